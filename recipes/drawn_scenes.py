"""Train on drawn scenes only, score on unseen seeds, store the trained model of the tests.

About 15 minutes on two cores, ten of them training.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import torch

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.models.bundle import Model
from terradelta.training.config import TrainConfig

RECIPE = Path(__file__).with_suffix(".yaml")
TRAINING_SEED, TRAINING_PAIRS = 1, 1600
UNSEEN_SEED, UNSEEN_PAIRS = 2, 200


def main():
    """Draw, train, score and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/drawn_scenes"))
    parser.add_argument("--output", type=Path, default=Path("tests/weights/drawn"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work = arguments.work
    commit = _describe_commit()
    write_folders(work / "train", TRAINING_PAIRS, TRAINING_SEED, overwrite=True)
    write_folders(work / "unseen", UNSEEN_PAIRS, UNSEEN_SEED, overwrite=True)

    config = replace(TrainConfig.read_yaml(RECIPE), data=str(work / "train"))
    started = time.monotonic()
    result = td.train(config, work / "run", overwrite=True)
    minutes = (time.monotonic() - started) / 60

    folder = result.folder / "best"
    scores = {
        f"{UNSEEN_PAIRS} drawn pairs of seed {UNSEEN_SEED}, protocol {protocol}": td.evaluate(
            folder, work / "unseen", split="all", protocol=protocol
        ).numbers
        for protocol in ("second", "from-to", "ual")
    }
    model = td.load_model(folder)
    card = replace(
        model.card,
        training={
            **{key: value for key, value in model.card.training.items() if key != "data"},
            "data": f"{TRAINING_PAIRS} drawn pairs of seed {TRAINING_SEED}, 256 px at 0.5 m",
            "recipe": f"recipes/{Path(__file__).name}",
            "commit": commit,
            "minutes": round(minutes, 1),
            "threads": torch.get_num_threads(),
        },
        scores=scores,
        licence="MIT; the encoder started from ImageNet weights of EfficientNet-lite0, Apache-2.0",
    )
    td.save_model(Model(model.network, card), arguments.output, dtype=torch.float16, overwrite=True)
    print(json.dumps({"minutes": minutes, **scores}, indent=2))


def _describe_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
