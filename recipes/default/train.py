"""Make the next default model: its pairs, the network, its temperatures and thresholds.

The one that ships was made by the recipe of commit 6a6860b (docs/model.md).

Each step leaves a folder in the work folder and is skipped if that exists; an interrupted
training resumes. Run: `make weights SHARED=../shared/data`, an hour on two cores.

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
from data import write_pairs
from terradelta.evaluation.temperatures import calibrate
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import Model, load_card, load_model, replace_card, save_model
from terradelta.training.config import TrainConfig

HERE = Path(__file__).parent
REAL = "changed-val-"
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

    data = work / "data"
    if not data.exists():
        write_pairs(shared, data)
    pairs = data / "pairs.csv"
    finish(train(pairs, work / "run"), pairs, options.output)


def train(pairs: Path, run: Path) -> Path:
    """Train with the recipe, or resume, and return the model's folder."""
    config = replace(TrainConfig.read_yaml(HERE / "default.yaml"), data=str(pairs))
    return td.train(config, run, resume=(run / "checkpoints").exists()).folder / "last"


def finish(folder: Path, pairs: Path, output: Path):
    """Calibrate, choose the thresholds, score, and store as float16.

    Temperatures are fitted and thresholds chosen on validation pairs with real changes.

    Args:
        folder: The trained model.
        pairs: The CSV of the pairs it was trained on, with its validation and test splits.
        output: Folder of the model.
    """
    # Before the weights are written, which would change the working tree.
    commit = describe_commit()
    model = load_model(folder)
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
        "data": DATA,
        "recipe": "recipes/default",
        "commit": commit,
        "minutes": round(count_seconds(folder.parent) / 60, 1),
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
