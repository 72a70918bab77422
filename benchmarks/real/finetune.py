"""The default model trained further on five LEVIR pairs, measured on the other five.

The result is measured and deleted: LEVIR-CD is for academic use only, so no weights
trained on it are shipped.

Run: `python benchmarks/real/finetune.py --shared ../shared/data --work runs/five`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pairs import RealPair, read_levir
from table import BUILDING_WAYS, tally, write_table

import terradelta as td
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.training.config import TrainConfig

HALF = 5
EPOCHS = 60
RECIPE = TrainConfig(
    start_from="default",
    epochs=EPOCHS,
    batch_size=HALF,
    val_every=HALF,
    crop_size_px=256,
    optimizer="adamw",
    learning_rate=2e-4,
    head_rate_factor=3.0,
    weight_decay=0.01,
    loss="ual-probability",
    ema_decay=0.95,
    views="d4",
    brightness=0.2,
    contrast=0.2,
    colour=0.1,
    picture_pairs=0,
)


def main():
    """Train on one half, score the default model and the result on the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    names = [pair.name for pair in read_levir(options.shared)]
    learned = set(names[:HALF])
    data = options.work / "data"
    shutil.rmtree(data, ignore_errors=True)
    for folder in ("A", "B", "label"):
        (data / folder).mkdir(parents=True)
        for path in sorted((options.shared / "levir_eval10" / folder).iterdir()):
            if path.stem in learned:
                (data / folder / path.name).symlink_to(path.resolve())
    recipe = TrainConfig(**{**RECIPE.to_dict(), "data": str(data)})
    run = td.train(recipe, options.work / "run", overwrite=True)
    predictors = {
        "default": Predictor([load_model(DEFAULT_MODEL)]),
        f"after {HALF} pairs": Predictor([load_model(run.folder / "last")]),
    }
    unseen: list[RealPair] = [p for p in read_levir(options.shared) if p.name not in learned]
    rows = tally(unseen, predictors, BUILDING_WAYS, rivals=False)
    numbers = ["F1", "precision", "recall", "objects found", "false alarms a pair"]
    print(write_table(f"LEVIR-CD, {len(unseen)} pairs", rows, numbers, "F1"))


if __name__ == "__main__":
    main()
