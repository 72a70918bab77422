"""The state of a run after an epoch: tensors as safetensors, the rest as JSON, no pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from terradelta.errors import ModelError
from terradelta.fields import POSITIVE_COUNT, FieldError
from terradelta.inputs import read_record
from terradelta.models.weight_files import read_checkpoint
from terradelta.outputs import stage_folder
from terradelta.ownership import clear_folder

STATE_FILE = "state.safetensors"
PROGRESS_FILE = "progress.json"
LOGGED = ("epoch", "loss_total", "score", "miou", "learning_rate", "seconds")
"""Columns of each row of the log, with any recipe."""
START_AGAIN = "restore that folder from a copy, or start the run again with --overwrite"


@dataclass
class Progress:
    """The progress of a run."""

    epoch: int = 0
    """Epochs finished."""
    best_score: float = math.nan
    """Best validation score so far."""
    best_epoch: int = 0
    """The epoch that reached it."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch."""

    def finish_epoch(self, row: dict[str, Any], score: float):
        """Count an epoch, log its row and record whether its score is the best.

        A score is nan where neither truth nor prediction has any change; any number beats it.
        """
        self.epoch += 1
        self.log.append({"epoch": self.epoch, **row})
        if self.best_epoch == 0 or score > self.best_score or math.isnan(self.best_score):
            self.best_score, self.best_epoch = score, self.epoch


@dataclass
class State:
    """A checkpoint as it was read."""

    folder: str = ""
    """Where from."""
    progress: Progress = field(default_factory=Progress)
    """The progress of the run."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the network, the optimizer and the average; empty for a new run."""


def save_checkpoint(
    run: Path,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: torch.nn.Module | None,
    progress: Progress,
):
    """Write the state after an epoch and drop the previous one.

    The state of random generators is not stored: each epoch seeds its own.
    """
    folder = run / "checkpoints"
    name = f"epoch-{progress.epoch:04d}"
    with stage_folder(folder / name, overwrite=True, listed=False) as staged:
        tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
        tensors |= {
            f"optimizer.{index}.{key}": torch.as_tensor(value)
            for index, state in optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        if average is not None:
            tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
        save_file(
            {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()},
            staged / STATE_FILE,
        )
        content = {**vars(progress), "tensors": len(tensors)}
        (staged / PROGRESS_FILE).write_text(json.dumps(content, indent=2) + "\n")
    for older in sorted(folder.glob("epoch-*"))[:-1]:
        clear_folder(older)


@dataclass(frozen=True)
class ProgressRecord:
    """The content of progress.json.

    Raises:
        FieldError: If the numbers contradict each other.
    """

    epoch: Annotated[int, POSITIVE_COUNT]
    best_epoch: Annotated[int, POSITIVE_COUNT]
    best_score: Any
    """A number, or nan."""
    log: tuple[dict[str, Any], ...]
    tensors: Annotated[int, POSITIVE_COUNT] | None = None
    """Number of tensors beside it; None from earlier versions."""

    def __post_init__(self):
        if self.best_epoch > self.epoch:
            raise FieldError("best_epoch", self.best_epoch, f"at most {self.epoch}, the last one")
        if len(self.log) != self.epoch:
            raise FieldError("log", len(self.log), f"a row for each of {self.epoch} epochs")
        if not _is_number(self.best_score):
            raise FieldError("best_score", self.best_score, "a number")
        for index, row in enumerate(self.log):
            if row.keys() != self.log[0].keys() or not set(LOGGED) <= row.keys():
                raise FieldError(f"log[{index}]", sorted(row), f"a row with {', '.join(LOGGED)}")
            for key, value in row.items():
                if not _is_number(value):
                    raise FieldError(f"log[{index}].{key}", value, "a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_state(run: Path) -> State:
    """Return the newest state of a run; empty for a new run.

    Raises:
        ModelError: If a file of it is missing or damaged.
    """
    found = sorted((run / "checkpoints").glob("epoch-*"))
    if not found:
        return State()
    newest = found[-1]
    path = newest / PROGRESS_FILE
    record = read_record(path, ProgressRecord, ModelError, START_AGAIN)
    try:
        tensors = read_checkpoint(newest / STATE_FILE)
    except ModelError as error:
        raise ModelError(error.problem, START_AGAIN) from error
    if record.tensors not in (None, len(tensors)):
        raise ModelError(
            f"{newest / STATE_FILE} holds {len(tensors)} tensors and {path} counts "
            f"{record.tensors}",
            START_AGAIN,
        )
    progress = Progress(record.epoch, record.best_score, record.best_epoch, list(record.log))
    return State(str(newest), progress, tensors)


def restore(
    state: State,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: torch.nn.Module | None,
) -> Progress:
    """Restore the state that was read, and return the progress of the run.

    Raises:
        ModelError: If the state does not fit the network, the optimizer or the average.
    """
    if not state.tensors:
        return state.progress
    try:
        network.load_state_dict(_pick(state.tensors, "network."))
        if average is not None:
            average.load_state_dict(_pick(state.tensors, "average."))
        slots = _sort_slots(_pick(state.tensors, "optimizer."), optimizer)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"{state.folder} does not fit the network of this run: {error}",
            fix="resume with the options of the first start",
        ) from error
    return state.progress


def _sort_slots(
    tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state of each parameter, by the parameter's number.

    Raises:
        ValueError: If it belongs to other parameters.
    """
    shapes = [part.shape for group in optimizer.param_groups for part in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(shapes) or not name:
            raise ValueError(f"optimizer.{key} belongs to none of its {len(shapes)} parameters")
        # Counts of steps have no axis.
        if value.ndim and value.shape != shapes[int(number)]:
            raise ValueError(
                f"optimizer.{key} is {list(value.shape)} where {list(shapes[int(number)])} is "
                "needed"
            )
        slots.setdefault(int(number), {})[name] = value
    if len({frozenset(slot) for slot in slots.values()}) > 1:
        raise ValueError("the optimizer's state is incomplete for some parameters")
    return slots


def _pick(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
