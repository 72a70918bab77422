"""The complete training loop.

Legend of the array names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from terradelta.data.dataset import ChangeDataset
from terradelta.data.layouts import find_pairs, list_inputs, list_named_splits
from terradelta.destination import claim_folder, follow_link
from terradelta.errors import ArgumentError, TerradeltaError
from terradelta.evaluation.model_scores import evaluate_dataset
from terradelta.evaluation.scoring_protocols import PROTOCOLS
from terradelta.heap import keep_freed_memory
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.losses.objective import ChangeObjective
from terradelta.models.bundle import Model, load_model
from terradelta.models.card import ModelCard
from terradelta.models.change_network import ChangeNetwork
from terradelta.models.precision import choose_device, choose_precision
from terradelta.outputs import clear_output
from terradelta.ownership import is_made
from terradelta.protocols import PairDataset
from terradelta.training.batches import OwnPairs, TrainingData, load_data
from terradelta.training.checkpoint import Progress, State, read_state, restore, save_checkpoint
from terradelta.training.class_weights import choose_class_weights
from terradelta.training.config import TrainConfig
from terradelta.training.network import (
    adopt_architecture,
    build_network,
    list_start_files,
    load_start,
)
from terradelta.training.optimization import (
    average_weights,
    build_optimizer,
    clip_gradients,
    rate_factor,
    set_rates,
)
from terradelta.training.processes import launch_fabric, leave_processes, seed_epoch
from terradelta.training.record import SELECTION_NUMBER, SELECTION_PROTOCOL, RunRecord, pick_scores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished run."""

    folder: Path
    """The run; `best/` and `last/` in it are model folders."""
    best_epoch: int
    """The epoch whose model is in `best/`."""
    scores: dict[str, float]
    """Validation numbers of that epoch, protocol `second`. They chose the epoch, so they are
    optimistic."""
    test_scores: dict[str, dict[str, float]] | None
    """Numbers of that model on the test split by protocol; None without a test split."""
    rank: int = 0
    """Number of this process; process 0 wrote the folder."""


def train(
    config: TrainConfig,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    dataset: PairDataset | None = None,
    validation: PairDataset | None = None,
) -> TrainResult:
    """Train a network and save its best and its last state as model folders.

    The run folder gets `config.yaml`, `log.csv`, `log.jsonl`, `best/`, `last/`, `pictures/` and
    `checkpoints/`; if the data set has a test split, also `test.json`: the numbers of the best
    model on it, which did not choose the best model.

    Started by torchrun or by Slurm's srun, the processes share the batches of an epoch; a step then
    averages the gradients of all. Process 0 validates and writes.

    Args:
        config: The recipe.
        output: The run folder.
        resume: Resume after the last finished epoch; on a CPU the result is bit for bit that of an
            uninterrupted run.
        overwrite: Start again in a folder that holds a run.
        dataset: A data set object in place of `config.data`, not augmented; see
            `terradelta.protocols.PairDataset`. The stored recipe then names no data: give the data
            set again to resume or repeat the run.
        validation: The validation pairs, with the same classes and bands.

    Raises:
        TerradeltaError: If the data or an option cannot be used.
    """
    # Fabric logs its settings on every start; the recipe and the log have them already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    run, own = Path(output), _pair_up(dataset, validation)
    device = choose_device(config.device)
    fabric = launch_fabric(device, choose_precision(device, config.precision))
    if fabric.is_global_zero:
        run = _claim_run(config, run, resume, overwrite)
    with _determinism(config.deterministic), keep_freed_memory():
        result = _train(config, run, fabric, resume, own)
    leave_processes()
    return result


def _pair_up(dataset: PairDataset | None, validation: PairDataset | None) -> OwnPairs | None:
    if dataset is None and validation is None:
        return None
    if dataset is None or validation is None:
        missing = "dataset" if dataset is None else "validation"
        raise ArgumentError(
            f"a data set object was given without {missing}",
            fix="give both: dataset=, which is trained on, and validation=, which judges it",
        )
    return OwnPairs(dataset, validation)


def _claim_run(config: TrainConfig, run: Path, resume: bool, overwrite: bool) -> Path:
    """Return the folder where a run may start or resume; see `claim_folder`."""
    if resume and is_made(run) and (run / "config.yaml").is_file():
        # These are replaced after each epoch.
        for name in ("best", "last"):
            claim_folder(run / name, overwrite=True)
        return follow_link(run)
    data = [] if config.data is None else list_inputs(config.data)
    inputs = [*data, *list_start_files(config)]
    return claim_folder(run, inputs, overwrite=overwrite and not resume)


@dataclass(frozen=True)
class _Learner:
    """The objects of a training step."""

    fabric: Fabric
    data: TrainingData
    batches: DataLoader
    """Class weights of the data, on the device of the fabric."""
    network: ChangeNetwork
    wrapped: Any
    """The network as the fabric runs it, a `torch.nn.Module` whose class lightning keeps private:
    autocast, and gradients shared between processes."""
    card: ModelCard
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    objective: ChangeObjective

    @property
    def kept(self) -> Model:
        """The network that is validated and saved."""
        average = self.average
        network = self.network if average is None else cast(ChangeNetwork, average.module)
        return Model(network, self.card)


def _set_up(
    config: TrainConfig, fabric: Fabric, start: Model | None, own: OwnPairs | None
) -> _Learner:
    """Load the data and create the network, the loss and the optimizer."""
    classes = None if start is None else start.card.classes
    data = load_data(config, fabric.global_rank, fabric.world_size, classes, own)
    network, card = build_network(config, data, start)
    average = average_weights(network.to(fabric.device), config.ema_decay)
    wrapped, optimizer = fabric.setup(network, build_optimizer(config, network))
    batches = cast(
        DataLoader, fabric.setup_dataloaders(data.batches, use_distributed_sampler=False)
    )
    objective = ChangeObjective(
        consistency=config.loss,
        change=config.change_loss,
        consistency_weight=config.consistency_weight,
        changed_pixel_weight=config.changed_pixel_weight,
        class_weights=choose_class_weights(
            config, data.training.classes, data.training.count_classes
        ),
    ).to(fabric.device)
    return _Learner(fabric, data, batches, network, wrapped, card, optimizer, average, objective)


def _train(
    config: TrainConfig, run: Path, fabric: Fabric, resume: bool, own: OwnPairs | None
) -> TrainResult:
    torch.manual_seed(config.seed)
    start = load_start(config)
    config = adopt_architecture(config, start)
    learner = _set_up(config, fabric, start, own)
    network, batches = learner.network, learner.batches
    if fabric.is_global_zero and not resume:
        clear_output(run)
    # Process 0 reads for all: other machines may not see its folder.
    state = fabric.broadcast(read_state(run) if fabric.is_global_zero else State())
    progress = restore(state, network, learner.optimizer, learner.average)
    del state
    record = RunRecord(run, config, progress.epoch) if fabric.is_global_zero else None
    bar = tqdm(
        total=config.epochs * len(batches),
        initial=progress.epoch * len(batches),
        desc="training",
        unit="batch",
        disable=None if fabric.is_global_zero else True,
    )
    while not _is_finished(progress, config):
        started = time.monotonic()
        learner.data.start_epoch(progress.epoch)
        seed_epoch(config.seed, progress.epoch, fabric.global_rank)
        network.train()
        losses = _train_epoch(config, learner, progress.epoch, bar)
        _require_finite(losses["loss_total"], progress.epoch + 1)
        network.eval()
        if record is not None:
            _keep_epoch(config, learner, record, progress, losses, started)
            _log_epoch(progress, config)
        progress = fabric.broadcast(progress)
    bar.close()
    best = progress.log[progress.best_epoch - 1]
    test_scores = None
    if record is not None:
        test_scores = _test(config, record, fabric.device)
        record.close()
    return TrainResult(run, progress.best_epoch, pick_scores(best), test_scores, fabric.global_rank)


def _keep_epoch(
    config: TrainConfig,
    learner: _Learner,
    record: RunRecord,
    progress: Progress,
    losses: dict[str, float],
    started: float,
):
    """Validate the network, and save it and the state to resume from."""
    # A new one each time, as a predictor copies the network.
    kept, held_out = learner.kept, learner.data.held_out
    predictor = _make_predictor(kept, learner.fabric.device, config)
    scores = evaluate_dataset(predictor, held_out, SELECTION_PROTOCOL)
    rate = learner.optimizer.param_groups[0]["lr"]
    seconds = round(time.monotonic() - started, 3)
    row = {**losses, **scores, "learning_rate": rate, "seconds": seconds}
    progress.finish_epoch(row, scores[SELECTION_NUMBER])
    record.keep_epoch(progress, kept, predictor, held_out)
    save_checkpoint(record.run, learner.network, learner.optimizer, learner.average, progress)


def _train_epoch(config: TrainConfig, learner: _Learner, epoch: int, bar: tqdm) -> dict[str, float]:
    """Train on every batch once and return the mean losses of all processes."""
    fabric, batches = learner.fabric, learner.batches
    wrapped, optimizer, scaling = learner.wrapped, learner.optimizer, learner.card.scaling
    sums: dict[str, torch.Tensor] = {}
    steps = math.ceil(len(batches) / config.accumulate_batches)
    for number, batch in enumerate(batches):
        if isinstance(batch, TerradeltaError):
            raise batch
        together, place = _place_in_step(number, len(batches), config.accumulate_batches)
        is_last = place == together - 1
        step = epoch * steps + number // config.accumulate_batches
        set_rates(optimizer, rate_factor(config, step, config.epochs * steps))
        # Gradients are exchanged between the processes once per step, not per batch.
        with fabric.no_backward_sync(wrapped, enabled=not is_last and fabric.world_size > 1):
            logits = wrapped(
                scaling.apply(batch.before_CHW).contiguous(memory_format=torch.channels_last),
                scaling.apply(batch.after_CHW).contiguous(memory_format=torch.channels_last),
            )
            parts = learner.objective(
                logits, batch.before_labels_HW, batch.after_labels_HW, batch.change_HW
            )
            fabric.backward(parts.total / together)
        if is_last:
            clip_gradients(wrapped.parameters(), config.gradient_clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if learner.average is not None:
                learner.average.update_parameters(learner.network)
        for name, value in parts._asdict().items():
            sums[f"loss_{name}"] = sums.get(f"loss_{name}", 0) + value.detach()
        bar.update()
    means = cast(torch.Tensor, fabric.all_reduce(torch.stack(list(sums.values())) / len(batches)))
    return dict(zip(sums, means.tolist(), strict=True))


def _place_in_step(batch: int, batches: int, wanted: int) -> tuple[int, int]:
    """Return the number of batches in the step of a batch, and its position in that step.

    An epoch ends with a step, of fewer batches if the division leaves a rest.
    """
    place = batch % wanted
    return min(wanted, batches - (batch - place)), place


def _is_finished(progress: Progress, config: TrainConfig) -> bool:
    if progress.epoch >= config.epochs:
        return True
    return config.patience is not None and progress.epoch - progress.best_epoch >= config.patience


def _test(
    config: TrainConfig, record: RunRecord, device: torch.device
) -> dict[str, dict[str, float]] | None:
    """Score the best model on the test split, if there is one."""
    if config.data is None or "test" not in list_named_splits(config.data):
        return None
    predictor = _make_predictor(load_model(record.run / "best"), device, config)
    dataset = ChangeDataset(find_pairs(config.data, split="test"))
    scores = {name: evaluate_dataset(predictor, dataset, name) for name in PROTOCOLS}
    record.keep_test(scores, len(dataset))
    return scores


def _make_predictor(model: Model, device: torch.device, config: TrainConfig) -> Predictor:
    return Predictor([model], Runtime(backend="torch", precision=config.precision), device=device)


def _log_epoch(progress: Progress, config: TrainConfig):
    row = progress.log[-1]
    logger.info(
        "epoch %d of %d: loss %.4f, mIoU %.4f, score %.4f, %.0f s",
        progress.epoch,
        config.epochs,
        row["loss_total"],
        row["miou"],
        row[SELECTION_NUMBER],
        row["seconds"],
    )


def _require_finite(loss: float, epoch: int):
    if not math.isfinite(loss):
        raise ArgumentError(
            f"the loss became {loss} in epoch {epoch}",
            fix="use a lower --learning-rate, or --precision fp32",
        )


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Let torch refuse irreproducible operations; restore its setting afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        # cuBLAS reads this when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
