"""Make the default model: its pairs, the network, its temperatures and thresholds.

The first default model (`generation1`) is trained further in two rounds, the second one on further
labels and other composed pairs, and its weights are averaged with the new ones. Each step leaves a
folder in the work folder and is skipped if that exists; an interrupted training resumes. Run:
`make weights SHARED=../shared/data`, two hours on two cores.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import subprocess
from dataclasses import replace
from pathlib import Path

import torch
from thresholds import choose_thresholds

import terradelta as td
from data import FIRST, SECOND, write_pairs
from terradelta.evaluation.temperatures import calibrate
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import Model, load_card, load_model, replace_card, save_model
from terradelta.training.config import TrainConfig

HERE = Path(__file__).parent
REAL = "changed-val-"
NEW_SHARE = 0.6
"""Share of the new weights in the average. More of them know more land cover of other places, and
give more false alarms on LEVIR (benchmarks/real/results.md)."""
RESOLUTION_M = (0.3, 0.8)
"""Pixel sizes of the drawn pairs; NAIP has 0.6 m, and half a metre if enlarged."""
DATA = (
    "real changes and land cover labelled by hand (California, Nepal, Zanzibar, Virginia), pairs "
    "composed of aerial scenes of these and of Dubai and Kampala, real pairs of unchanged ground, "
    "and drawn scenes"
)
LICENCE = (
    "MIT. Learned from: EfficientNet-lite0 on ImageNet (weights Apache-2.0); NAIP imagery (public "
    "domain; found in jonathanventura/urban-tree-detection-data) and its tree points (Ventura et "
    "al. 2024, CC BY 4.0); Banepa, Nepal (CC BY 4.0, buildings of OpenStreetMap, ODbL); Zanzibar "
    "and eastern Banepa, OpenAerialMap (CC BY) with OpenStreetMap (ODbL), presumed; NEON (CC0, "
    "presumed); dubai72, Humans in the Loop (CC0 by its publishers, the copy states none); "
    "OpenAerialMap imagery of Kampala (CC BY) with OpenStreetMap buildings (ODbL), presumed, as "
    "the copy states none"
)


def main():
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/default"))
    # Not in the place of the model that ships before it is better.
    parser.add_argument("--output", type=Path, default=Path("runs/default/model"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shared, work = options.shared, options.work

    first = model = HERE / "generation1"
    for name, wanted in (("first", FIRST), ("second", SECOND)):
        data = work / f"pairs_{name}"
        if not data.exists():
            write_pairs(shared, data, wanted)
        model = train(HERE / f"{name}.yaml", data / "pairs.csv", model, work / f"run_{name}")
    minutes = sum(count_seconds(work / f"run_{name}") for name in ("first", "second")) / 60
    pairs = work / "pairs_second" / "pairs.csv"
    finish(average(first, model), pairs, options.output, round(minutes, 1))


def train(recipe: Path, pairs: Path, model: Path, run: Path) -> Path:
    """Train a model further, or resume, and return the new model's folder."""
    config = TrainConfig.read_yaml(recipe)
    config = replace(config, data=str(pairs), start_from=str(model))
    return td.train(config, run, resume=(run / "checkpoints").exists()).folder / "last"


def average(first: Path, trained: Path) -> Model:
    """Return a trained model whose weights are averages with those that it was trained from.

    Such an average keeps what the first weights knew of other places (Wortsman et al., "Robust
    fine-tuning of zero-shot models", 2022, arXiv:2109.01903, equation 1).
    """
    model, old = load_model(trained), load_model(first).network.state_dict()
    joined = {
        name: torch.lerp(old[name].float(), value.float(), NEW_SHARE).to(value.dtype)
        for name, value in model.network.state_dict().items()
    }
    model.network.load_state_dict(joined)
    return model


def finish(model: Model, pairs: Path, output: Path, minutes: float):
    """Store as float16, calibrate, choose the thresholds and score.

    Temperatures are fitted and thresholds chosen on validation pairs with real changes.

    Args:
        model: The model.
        pairs: The CSV of the pairs it was trained on, with its validation and test splits.
        output: Folder of the model.
        minutes: Time of its training.
    """
    # Before the weights are written, which would change the working tree.
    commit = describe_commit()
    card = replace(
        model.card,
        resolution_m=RESOLUTION_M,
        decided_by="transition",
        # Of flagged ground with the same class at both dates, 3 % was changed (benchmarks/real).
        same_class_changes=False,
    )
    save_model(Model(model.network, card), output, dtype=torch.float16, overwrite=True)
    logging.info("%s", calibrate(output, write_real(pairs)))
    thresholds, seen = choose_thresholds(Predictor([load_model(output)]), pairs)
    logging.info("%s", seen)
    card = replace(
        load_card(output),
        change_threshold=thresholds.pop("balanced"),
        sensitivities=thresholds,
    )
    replace_card(output, card)
    scores = {
        f"held-out pairs of the recipe, protocol {protocol}": td.evaluate(
            output, str(pairs), split="test", protocol=protocol
        ).numbers
        for protocol in ("second", "from-to", "ual")
    }
    # The recipe and its commit identify what the work folder's names did.
    unsaid = ("data", "device")
    recipe = {key: value for key, value in card.training.items() if key not in unsaid}
    training = {
        **recipe,
        "start_from": "the first default model (recipes/default/generation1), with which the new "
        f"weights were averaged: {NEW_SHARE} of these",
        "data": DATA,
        "recipe": "recipes/default",
        "commit": commit,
        "minutes": minutes,
    }
    card = replace(load_card(output), training=training, scores=scores, licence=LICENCE)
    replace_card(output, card)
    print(json.dumps(scores, indent=2))


def write_real(pairs: Path) -> Path:
    """Write the lines of the validation pairs with real changes beside the CSV."""
    lines = pairs.read_text(encoding="utf-8").splitlines()
    real = pairs.with_name("real.csv")
    kept = [lines[0], *(line for line in lines[1:] if line.split(",")[-1].startswith(REAL))]
    real.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return real


def count_seconds(run: Path) -> float:
    """Return the time of a run's epochs."""
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def describe_commit() -> str:
    """Return the commit of the recipe."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
