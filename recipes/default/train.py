"""Make the default model: its pairs, the network, its temperatures and thresholds.

The first default model (`generation1`) is trained further twice: in two rounds, the second one on
further labels and other composed pairs, and on the places that these hold out. The weights of both
are averaged. Each step leaves a folder in the work folder and is skipped if that
exists; an interrupted training resumes. Run: `make weights SHARED=../shared/data`, three hours on
two cores.

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
from data import ROUNDS, write_pairs
from terradelta.evaluation.diagnosis import diagnose
from terradelta.evaluation.model_scores import prepare
from terradelta.evaluation.temperatures import calibrate, calibrate_card
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import Model, load_card, load_model, replace_card, save_model
from terradelta.models.card import Temperatures
from terradelta.training.config import TrainConfig

HERE = Path(__file__).parent
CHANGED = ("changed-val-",)
LABELLED = ("changed-val-", "tiles-val-")
HELD_OUT = ("changed-test-", "real-test-", "tiles-test-claremont")
"""Beginnings of the names of pairs: validation pairs with real changes, those and land cover by
hand, and pairs of places that no training has seen."""
SHARES = {"second": 0.4, "other_places": 0.6}
"""Shares of the two trainings in the average."""
RESOLUTION_M = (0.3, 0.8)
"""Pixel sizes of the drawn pairs; NAIP has 0.6 m, and half a metre if enlarged."""
DATA = (
    "real changes and land cover labelled by hand (California, Nepal, Zanzibar, Rio de Janeiro, "
    "Virginia), pairs composed of aerial scenes of these and of Dubai and Kampala, real pairs of "
    "unchanged ground, and drawn scenes"
)
LICENCE = (
    "MIT. Learned from: EfficientNet-lite0 on ImageNet (weights Apache-2.0); NAIP imagery (public "
    "domain; found in jonathanventura/urban-tree-detection-data) and its tree points (Ventura et "
    "al. 2024, CC BY 4.0); Banepa, Nepal (CC BY 4.0, buildings of OpenStreetMap, ODbL); Zanzibar "
    "and eastern Banepa, OpenAerialMap (CC BY) with OpenStreetMap (ODbL), presumed; Rio, SpaceNet "
    "(CC BY-SA 4.0, the copy states none); NEON (CC0, presumed); dubai72, Humans in the Loop (CC0 "
    "by its publishers, the copy states none); OpenAerialMap imagery of Kampala (CC BY) with "
    "OpenStreetMap buildings (ODbL), presumed, as the copy states none"
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

    start = HERE / "generation1"
    trained: dict[str, Path] = {}
    for name, wanted in ROUNDS.items():
        data = work / f"pairs_{name}"
        if not data.exists():
            write_pairs(shared, data, wanted)
        model = trained["first"] if name == "second" else start
        run = work / f"run_{name}"
        trained[name] = train(HERE / f"{name}.yaml", data / "pairs.csv", model, run)
    minutes = sum(count_seconds(work / f"run_{name}") for name in trained) / 60
    joined = average({trained[name]: share for name, share in SHARES.items()})
    # Their validation pairs with real changes are the same, and their test places Claremont's.
    finish(joined, work / "pairs_second" / "pairs.csv", options.output, round(minutes, 1))


def train(recipe: Path, pairs: Path, model: Path, run: Path) -> Path:
    """Train a model further, or resume, and return the new model's folder."""
    config = TrainConfig.read_yaml(recipe)
    config = replace(config, data=str(pairs), start_from=str(model))
    return td.train(config, run, resume=(run / "checkpoints").exists()).folder / "last"


def average(shares: dict[Path, float]) -> Model:
    """Return a model whose weights are the average of others, trained from the same start.

    It joins what they learned, with fewer false alarms than each (Wortsman et al., "Model soups",
    2022, arXiv:2203.05482).

    Args:
        shares: The models and their shares, which sum to 1.
    """
    models = {path: load_model(path) for path in shares}
    states = {path: model.network.state_dict() for path, model in models.items()}
    joined = models[next(iter(shares))]
    weights = {
        name: sum(share * states[path][name].float() for path, share in shares.items())
        for name, value in joined.network.state_dict().items()
        if value.is_floating_point()
    }
    # Counters of batches are no weights.
    joined.network.load_state_dict(weights, strict=False)
    return joined


def finish(model: Model, pairs: Path, output: Path, minutes: float):
    """Store as float16, calibrate, choose the thresholds and score.

    Change is calibrated and thresholds are chosen on validation pairs with real changes, classes
    on those and on tiles of land cover.

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
    fitted = calibrate(output, write_lines(pairs, "changed", CHANGED))
    land_cover = diagnose(
        *prepare(output, write_lines(pairs, "labelled", LABELLED), "val", Runtime())
    )
    more = Temperatures(classes=land_cover.fit_temperatures().classes)
    replace_card(output, calibrate_card(load_card(output), more))
    logging.info("%s", fitted.then(more))
    thresholds, seen = choose_thresholds(Predictor([load_model(output)]), pairs)
    logging.info("%s", seen)
    card = replace(
        load_card(output),
        change_threshold=thresholds.pop("balanced"),
        sensitivities=thresholds,
    )
    replace_card(output, card)
    held_out = write_lines(pairs, "held_out", HELD_OUT)
    scores = {
        f"held-out pairs of the recipe, protocol {protocol}": td.evaluate(
            output, str(held_out), split="test", protocol=protocol
        ).numbers
        for protocol in ("second", "from-to", "ual")
    }
    # The recipe and its commit identify what the work folder's names did.
    unsaid = ("data", "device")
    recipe = {key: value for key, value in card.training.items() if key not in unsaid}
    training = {
        **recipe,
        "start_from": "the first default model (recipes/default/generation1), twice; the weights "
        f"of both trainings are averaged ({', '.join(f'{share:g}' for share in SHARES.values())})",
        "data": DATA,
        "recipe": "recipes/default",
        "commit": commit,
        "minutes": minutes,
    }
    card = replace(load_card(output), training=training, scores=scores, licence=LICENCE)
    replace_card(output, card)
    print(json.dumps(scores, indent=2))


def write_lines(pairs: Path, name: str, beginnings: tuple[str, ...]) -> Path:
    """Write the lines of pairs whose names have certain beginnings beside the CSV."""
    header, *lines = pairs.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.split(",")[-1].startswith(beginnings)]
    chosen = pairs.with_name(f"{name}.csv")
    chosen.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    return chosen


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
