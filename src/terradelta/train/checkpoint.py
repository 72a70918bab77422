"""The state of a run after an epoch: tensors as safetensors, the rest as JSON, no pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from terradelta.errors import ModelError
from terradelta.outputs import stage_folder
from terradelta.ownership import clear_folder


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    """Epochs finished."""
    best_score: float = math.nan
    """Best validation score so far."""
    best_epoch: int = 0
    """The epoch that reached it."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch."""

    def finish_epoch(self, row: dict[str, Any], score: float):
        """Count an epoch, log its row and remember whether its score is the best.

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
    """Where the run stands."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Of the network, the optimizer and the average; none of a new run."""


def save_checkpoint(
    run: Path,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: torch.nn.Module | None,
    progress: Progress,
):
    """Write the state after an epoch and drop the one before it.

    Nothing of the random generators: each epoch seeds its own.
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
            staged / "state.safetensors",
        )
        (staged / "progress.json").write_text(json.dumps(vars(progress), indent=2) + "\n")
    for older in sorted(folder.glob("epoch-*"))[:-1]:
        clear_folder(older)


def read_state(run: Path) -> State:
    """Return the newest state of a run; that of a new run is empty."""
    found = sorted((run / "checkpoints").glob("epoch-*"))
    if not found:
        return State()
    newest = found[-1]
    progress = Progress(**json.loads((newest / "progress.json").read_text()))
    return State(str(newest), progress, load_file(newest / "state.safetensors"))


def restore(
    state: State,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: torch.nn.Module | None,
) -> Progress:
    """Put what was read back in its place and return where the run stands.

    Raises:
        ModelError: If the state does not fit the network.
    """
    if not state.tensors:
        return state.progress
    try:
        network.load_state_dict(_pick(state.tensors, "network."))
        if average is not None:
            average.load_state_dict(_pick(state.tensors, "average."))
    except RuntimeError as error:
        raise ModelError(
            f"{state.folder} does not fit the network of this run: {error}",
            fix="resume with the options the run was started with",
        ) from error
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _pick(state.tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return state.progress


def _pick(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
