"""The two splits of a data set, as pairs and as batches.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from terradelta.classes import BINARY, ClassTable
from terradelta.data.augment import Augmentation
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.layouts import find_pairs
from terradelta.data.pairs import PairFolder
from terradelta.data.sampler import PairBatchSampler
from terradelta.errors import ArgumentError, DataError, TerradeltaError
from terradelta.protocols import PairDataset
from terradelta.training.config import TrainConfig
from terradelta.training.own_data import OwnDataset


@dataclass(frozen=True)
class TrainingData:
    """The pairs to train on, and those that judge each epoch."""

    training: ChangeDataset | OwnDataset
    """Augmented pairs."""
    held_out: ChangeDataset | OwnDataset
    """Pairs of the validation split, not augmented."""
    batches: DataLoader
    """Batches of this process; a bad pair is given as its error, which the loop raises."""
    sampler: PairBatchSampler

    def start_epoch(self, epoch: int):
        """Draw the order and the augmentation of an epoch, counted from 0."""
        self.sampler.epoch = self.training.epoch = epoch


@dataclass(frozen=True)
class OwnPairs:
    """Your own data sets in place of a recipe's `data`."""

    training: PairDataset
    """Pairs to train on, not augmented: the recipe's augmentation is applied to them."""
    validation: PairDataset
    """Pairs that judge each epoch."""


def load_data(
    config: TrainConfig,
    rank: int = 0,
    processes: int = 1,
    classes: ClassTable | None = None,
    own: OwnPairs | None = None,
) -> TrainingData:
    """Find the splits and prepare this process's share of the batches.

    Args:
        config: The recipe, which names the data.
        rank: Number of this process.
        processes: Number of processes.
        classes: Classes of a network that is trained further: change masks teach it what
            changed, and contain none of its classes.
        own: Own data sets in place of those of the recipe.

    Raises:
        ArgumentError: If no data set is named or two are, or there are fewer batches than
            processes.
        DataError: If the data set cannot be used.
    """
    augmentation = Augmentation(
        views=config.views,
        crop_size_px=config.crop_size_px,
        zoom=config.zoom,
        brightness=config.brightness,
        contrast=config.contrast,
        colour=config.colour,
        swap_dates=config.swap_dates,
    )
    training, held_out = (
        _open_splits(config, augmentation, classes)
        if own is None
        else _take_own(config, augmentation, own)
    )
    sampler = PairBatchSampler(
        len(training),
        config.batch_size,
        shuffle=True,
        seed=config.seed,
        rank=rank,
        processes=processes,
    )
    batches = DataLoader(
        _Reporting(training),
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )
    return TrainingData(training, held_out, batches, sampler)


def _open_splits(
    config: TrainConfig, augmentation: Augmentation, classes: ClassTable | None
) -> tuple[ChangeDataset, ChangeDataset]:
    if config.data is None:
        raise ArgumentError("no data set was named", fix="give its folder or its CSV file")
    pairs = find_training_pairs(config.data, config.val_every, classes)
    held_out = find_pairs(config.data, split="val", val_every=config.val_every)
    training = ChangeDataset(pairs, augmentation, config.seed, allow_partial=True)
    return training, ChangeDataset(held_out)


def _take_own(
    config: TrainConfig, augmentation: Augmentation, own: OwnPairs
) -> tuple[OwnDataset, OwnDataset]:
    if config.data is not None:
        raise ArgumentError(
            f"the recipe names the data {config.data}, and a data set object was also given",
            fix="leave out one of them",
        )
    training = OwnDataset(own.training, augmentation, config.seed)
    held_out = OwnDataset(own.validation)
    for name in ("classes", "bands"):
        mine, theirs = getattr(training, name), getattr(held_out, name)
        if mine != theirs:
            raise DataError(
                f"the data sets differ in their {name}: {mine} to train on, {theirs} to validate",
                fix="give both the same",
            )
    return training, held_out


def find_training_pairs(data: str, val_every: int, classes: ClassTable | None) -> PairFolder:
    """Return the pairs to train on.

    Args:
        data: The data set.
        val_every: Same as in the recipe.
        classes: Classes of a network that is trained further; pairs of change masks become pairs of
            these classes without labelled land cover. None for a new network.
    """
    pairs = find_pairs(data, split="train", val_every=val_every)
    if classes is None or pairs.classes != BINARY:
        return pairs
    unnamed = (
        replace(pair, before_label=None, after_label=None, change_label=pair.before_label)
        for pair in pairs.pairs
    )
    return replace(pairs, pairs=tuple(unnamed), classes=classes)


class _Reporting(Dataset):
    """Returns a bad pair's error instead of raising it.

    A DataLoader turns errors of its workers into a RuntimeError with a traceback, so the reader
    would lose the typed error and its fix.
    """

    def __init__(self, dataset: ChangeDataset | OwnDataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> PairSample | TerradeltaError:
        try:
            return self.dataset[index]
        except TerradeltaError as error:
            return error


def _collate(samples: list[PairSample | TerradeltaError]) -> PairSample | TerradeltaError:
    pairs = []
    for sample in samples:
        if isinstance(sample, TerradeltaError):
            return sample
        pairs.append(sample)
    sizes = sorted({tuple(pair.before_CHW.shape) for pair in pairs})
    if len(sizes) > 1:
        first, second = ("{} bands of {} x {} px".format(*size) for size in sizes[:2])
        return DataError(
            f"images of one batch differ: one has {first}, another {second}",
            fix="crop them to one size with --crop-size-px, or use --batch-size 1",
        )
    return default_collate(pairs)
