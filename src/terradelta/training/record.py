"""Writes the run folder after each epoch: numbers, pictures and model folders."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from terradelta.errors import ArgumentError, DataError
from terradelta.fields import COUNT
from terradelta.inference.predictor import Predictor
from terradelta.inputs import read_record
from terradelta.models.bundle import Model, save_model
from terradelta.outputs import null_undefined, stage_file, write_json
from terradelta.protocols import PairDataset
from terradelta.training.checkpoint import Progress
from terradelta.training.config import TrainConfig
from terradelta.training.pictures import draw_pairs

TEST_FILE = "test.json"
SELECTION_PROTOCOL = "second"
SELECTION_NUMBER = "score"
_NO_SCORES = ("epoch", "learning_rate", "seconds")


@dataclass(frozen=True)
class TestNumbers:
    """The content of test.json: numbers of the best model on the test split."""

    protocols: dict[str, dict[str, float | None]]
    """By protocol and name; None where undefined."""
    pairs: Annotated[int, COUNT] = 0


def read_test(path: Path) -> TestNumbers:
    """Read a run's test.json.

    Raises:
        DataError: If it cannot be read or has unexpected content.
    """
    return read_record(path, TestNumbers, DataError, "give a run's folder, as `train` left it")


class RunRecord:
    """Writes the folder of a run.

    Args:
        run: The folder.
        config: The recipe.
        epochs_done: Number of epochs already in it.

    Raises:
        ArgumentError: If TensorBoard is requested and not installed.
    """

    def __init__(self, run: Path, config: TrainConfig, epochs_done: int):
        self.run = run
        self.config = config
        self.writer = _open_tensorboard(run, epochs_done) if config.tensorboard else None
        run.mkdir(parents=True, exist_ok=True)
        config.write_yaml(run / "config.yaml")

    def keep_epoch(
        self, progress: Progress, model: Model, predictor: Predictor, held_out: PairDataset
    ):
        """Write the log, the pictures and the models of the epoch that has just ended."""
        row = progress.log[-1]
        self._write_log(progress.log)
        if self.config.picture_pairs:
            picture = self.run / "pictures" / f"epoch-{progress.epoch:04d}.png"
            draw_pairs(predictor, held_out, self.config.picture_pairs, picture)
        card = replace(
            model.card,
            training={**self.config.to_dict(), "epoch": progress.epoch},
            scores={f"validation, protocol {SELECTION_PROTOCOL}": pick_scores(row)},
        )
        kept = Model(model.network, card)
        save_model(kept, self.run / "last", overwrite=True)
        if progress.best_epoch == progress.epoch:
            save_model(kept, self.run / "best", overwrite=True)
        if self.writer is not None:
            for name, value in row.items():
                if name != "epoch" and not math.isnan(value):
                    group = "loss" if name.startswith("loss_") else "validation"
                    group = "run" if name in _NO_SCORES else group
                    self.writer.add_scalar(
                        f"{group}/{name.removeprefix('loss_')}", value, progress.epoch
                    )
            self.writer.flush()

    def keep_test(self, scores: dict[str, dict[str, float]], pairs: int):
        """Write the numbers of the best model on the test split, by protocol."""
        plain = {name: null_undefined(numbers) for name, numbers in scores.items()}
        with stage_file(self.run / TEST_FILE) as staged:
            write_json(staged, {"pairs": pairs, "protocols": plain})

    def close(self):
        """Close open files."""
        if self.writer is not None:
            self.writer.close()

    def _write_log(self, log: list[dict[str, Any]]):
        with stage_file(self.run / "log.csv") as staged, staged.open("w", newline="") as file:
            # A resumed run may have lines of another version.
            writer = csv.DictWriter(file, list(dict.fromkeys(key for line in log for key in line)))
            writer.writeheader()
            writer.writerows(log)
        with stage_file(self.run / "log.jsonl") as staged:
            lines = (json.dumps(null_undefined(line)) for line in log)
            staged.write_text("".join(line + "\n" for line in lines))


def pick_scores(row: dict[str, float]) -> dict[str, float]:
    """Return the validation numbers of a row of the log."""
    return {k: v for k, v in row.items() if k not in _NO_SCORES and not k.startswith("loss_")}


def _open_tensorboard(run: Path, epochs_done: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ArgumentError(
            "tensorboard was requested and is not installed",
            fix="pip install 'terradelta[tensorboard]', or leave it out: log.csv has the numbers",
        ) from error
    return SummaryWriter(run / "tensorboard", purge_step=epochs_done + 1)
