"""The training loop, all of it in sight.

Legend of the array names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.augment import Augmentation
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.layouts import find_pairs
from terradelta.data.sampler import PairBatchSampler
from terradelta.errors import ArgumentError, TerradeltaError
from terradelta.evaluate.scoring import evaluate_dataset
from terradelta.losses.objective import ChangeObjective
from terradelta.models.bundle import Model, ModelCard, Scaling, save_model
from terradelta.models.precision import choose_device, choose_precision
from terradelta.models.registry import create_model
from terradelta.models.siamese import SiameseNetwork
from terradelta.outputs import refuse_existing, stage_file
from terradelta.predict.engine import Predictor
from terradelta.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from terradelta.train.config import TrainConfig

logger = logging.getLogger(__name__)

REFERENCE_CLASS_WEIGHTS = (2.0, 1.0, 2.0, 2.0, 1.0, 1.0)
SELECTION_PROTOCOL = "second"
SELECTION_NUMBER = "score"


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left behind."""

    folder: Path
    """The run; `best/` and `last/` in it are model folders."""
    best_epoch: int
    """The epoch whose model is in `best/`."""
    scores: dict[str, float]
    """Validation numbers of that epoch, protocol `second`."""


def train(
    config: TrainConfig, output: str | Path, *, resume: bool = False, overwrite: bool = False
) -> TrainResult:
    """Train a network and keep its best and its last state as model folders.

    The run folder gets `config.yaml`, `log.csv`, `log.jsonl`, `best/`, `last/` and `checkpoints/`.

    Args:
        config: The recipe.
        output: The run folder.
        resume: Go on after the last finished epoch; on a CPU the result is bit for bit that of an
            unbroken run.
        overwrite: Start anew in a folder that holds a run.

    Raises:
        TerradeltaError: If the data or an option cannot be used.
    """
    # Fabric says how it runs on every start; the recipe and the log say it already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    run = Path(output)
    if not resume:
        refuse_existing(run, overwrite)
    torch.manual_seed(config.seed)
    data = _load_data(config)
    network, card = _build(config, data)
    optimizer = _build_optimizer(config, network)
    device = choose_device(config.device)
    precision = choose_precision(device, config.precision)
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        precision="bf16-mixed" if precision is torch.bfloat16 else "32-true",
    )
    wrapped, optimizer = fabric.setup(network, optimizer)
    batches = fabric.setup_dataloaders(data.batches, use_distributed_sampler=False)
    objective = ChangeObjective(
        consistency=config.loss,
        consistency_weight=config.consistency_weight,
        changed_pixel_weight=config.changed_pixel_weight,
        class_weights=_choose_class_weights(config, card.classes),
    ).to(fabric.device)

    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    progress = load_checkpoint(run, network, optimizer)
    run.mkdir(parents=True, exist_ok=True)
    config.write_yaml(run / "config.yaml")
    steps = len(data.batches)
    bar = tqdm(
        total=config.epochs * steps,
        initial=progress.epoch * steps,
        desc="training",
        unit="step",
        disable=None,
    )
    while progress.epoch < config.epochs:
        started = time.monotonic()
        data.start_epoch(progress.epoch)
        network.train()
        sums: dict[str, torch.Tensor] = {}
        for step, batch in enumerate(batches, start=progress.epoch * steps):
            if isinstance(batch, TerradeltaError):
                raise batch
            together, place = _place_in_step(step % steps, steps, config.accumulate_batches)
            share_done = (step - place) / (config.epochs * steps)
            _decay_rates(optimizer, (1 - share_done) ** config.poly_power)
            logits = wrapped(
                card.scaling.apply(batch.before_CHW).contiguous(memory_format=torch.channels_last),
                card.scaling.apply(batch.after_CHW).contiguous(memory_format=torch.channels_last),
            )
            parts = objective(logits, batch.before_labels_HW, batch.after_labels_HW)
            fabric.backward(parts.total / together)
            if place == together - 1:
                optimizer.step()
                optimizer.zero_grad()
            for name, value in parts._asdict().items():
                sums[f"loss_{name}"] = sums.get(f"loss_{name}", 0) + value.detach()
            bar.update()
        losses = {name: float(total) / steps for name, total in sums.items()}
        _require_finite(losses["loss_total"], progress.epoch + 1)
        network.eval()
        # Anew, as a predictor runs a copy of the network.
        predictor = Predictor(
            [Model(network, card)],
            device=str(device),
            backend="torch",
            precision=config.precision,
        )
        scores = evaluate_dataset(predictor, data.held_out, SELECTION_PROTOCOL)
        seconds = round(time.monotonic() - started, 3)
        progress.finish_epoch({**losses, **scores, "seconds": seconds}, scores[SELECTION_NUMBER])
        _keep(run, Model(network, card), progress, config)
        save_checkpoint(run, network, optimizer, progress)
        logger.info(
            "epoch %d of %d: loss %.4f, mIoU %.4f, score %.4f, %.0f s",
            progress.epoch,
            config.epochs,
            losses["loss_total"],
            scores["miou"],
            scores[SELECTION_NUMBER],
            seconds,
        )
    bar.close()
    best = progress.log[progress.best_epoch - 1]
    return TrainResult(run, progress.best_epoch, _scores_of(best))


@dataclass(frozen=True)
class _Data:
    """The two splits of a data set, ready to be iterated."""

    training: ChangeDataset
    held_out: ChangeDataset
    sampler: PairBatchSampler
    batches: DataLoader

    def start_epoch(self, epoch: int):
        self.sampler.epoch = self.training.epoch = epoch


class _Reporting(Dataset):
    """Returns a bad pair's error instead of raising it.

    A DataLoader turns what its workers raise into a RuntimeError with a traceback, and the reader
    would lose the typed error and its fix.
    """

    def __init__(self, dataset: ChangeDataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> PairSample | TerradeltaError:
        try:
            return self.dataset[index]
        except TerradeltaError as error:
            return error


def _collate(samples: list[PairSample | TerradeltaError]) -> PairSample | TerradeltaError:
    errors = [sample for sample in samples if isinstance(sample, TerradeltaError)]
    return errors[0] if errors else default_collate(samples)


def _load_data(config: TrainConfig) -> _Data:
    if config.data is None:
        raise ArgumentError("no data set was named", fix="give its folder or its CSV file")
    pairs = find_pairs(config.data, split="train", val_every=config.val_every)
    held_out = find_pairs(config.data, split="val", val_every=config.val_every)
    augmentation = Augmentation(
        views=config.views,
        crop_size_px=config.crop_size_px,
        brightness=config.brightness,
        contrast=config.contrast,
        colour=config.colour,
        swap_dates=config.swap_dates,
    )
    training = ChangeDataset(pairs, augmentation=augmentation, seed=config.seed)
    sampler = PairBatchSampler(len(training), config.batch_size, shuffle=True, seed=config.seed)
    batches = DataLoader(
        _Reporting(training),
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )
    return _Data(training, ChangeDataset(held_out), sampler, batches)


def _build(config: TrainConfig, data: _Data) -> tuple[SiameseNetwork, ModelCard]:
    sample = data.training[0]
    num_bands = len(sample.before_CHW)
    classes = data.training.pairs.classes
    network = create_model(
        config.model,
        encoder=config.encoder,
        num_classes=classes.num_classes,
        lightweight=config.lightweight,
        in_channels=num_bands,
        encoder_weights=config.encoder_weights,
    )
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    # A pooled answer depends on how much is pooled, so predict as it was trained.
    trained_size_px = max(sample.before_CHW.shape[-2:])
    tile_size_px = config.tile_size_px or trained_size_px if network.has_global_pooling else None
    card = ModelCard(
        architecture=network.config,
        bands=("red", "green", "blue")
        if num_bands == 3
        else tuple(f"band {number}" for number in range(1, num_bands + 1)),
        scaling=Scaling.for_encoder(config.encoder, num_bands),
        classes=classes,
        tile_size_px=tile_size_px,
    )
    return network, card


def _build_optimizer(config: TrainConfig, network: SiameseNetwork) -> torch.optim.Optimizer:
    head_rate = config.learning_rate * config.head_rate_factor
    groups = [
        {"params": list(network.encoder_parameters()), "lr": config.learning_rate},
        {"params": list(network.head_parameters()), "lr": head_rate},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.Adam(groups, weight_decay=config.weight_decay)


def _place_in_step(batch: int, batches: int, wanted: int) -> tuple[int, int]:
    """Return how many batches of an epoch make up the step of one of them, and its place there.

    An epoch ends with a step, of fewer batches where their number does not divide.
    """
    place = batch % wanted
    return min(wanted, batches - (batch - place)), place


def _decay_rates(optimizer: torch.optim.Optimizer, factor: float):
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _choose_class_weights(config: TrainConfig, classes: ClassTable) -> tuple[float, ...] | None:
    if config.class_weights is None:
        return REFERENCE_CLASS_WEIGHTS if classes == SENSEEARTH else None
    if len(config.class_weights) != classes.num_classes:
        raise ArgumentError(
            f"{len(config.class_weights)} class weights for {classes.num_classes} classes "
            f"({', '.join(classes.names[1:])})",
            fix="give one weight per class",
        )
    return config.class_weights


def _require_finite(loss: float, epoch: int):
    if not math.isfinite(loss):
        raise ArgumentError(
            f"the loss became {loss} in epoch {epoch}",
            fix="use a lower --learning-rate, or --precision fp32",
        )


def _keep(run: Path, model: Model, progress: Progress, config: TrainConfig):
    """Write the log and the model folders of the epoch that has just ended."""
    row = progress.log[-1]
    with stage_file(run / "log.csv") as staged, staged.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(progress.log)
    with stage_file(run / "log.jsonl") as staged:
        lines = (json.dumps(_null_undefined(line)) for line in progress.log)
        staged.write_text("".join(line + "\n" for line in lines))
    card = replace(
        model.card,
        training={**config.to_dict(), "epoch": progress.epoch},
        scores={f"validation, protocol {SELECTION_PROTOCOL}": _scores_of(row)},
    )
    save_model(Model(model.network, card), run / "last", overwrite=True)
    if progress.best_epoch == progress.epoch:
        save_model(Model(model.network, card), run / "best", overwrite=True)


def _null_undefined(row: dict[str, float]) -> dict[str, float | None]:
    """Return a row with nan as None: JSON has no word for it."""
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def _scores_of(row: dict[str, float]) -> dict[str, float]:
    others = ("epoch", "seconds")
    return {k: v for k, v in row.items() if k not in others and not k.startswith("loss_")}
