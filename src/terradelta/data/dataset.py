"""A data set of labelled image pairs for `torch.utils.data.DataLoader`.

Shapes: C bands, H rows, W columns. Images stay in their stored units: scaling is the model's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terradelta.data.images import read_change_mask, read_image, read_mask
from terradelta.data.layouts import PairFiles, PairFolder
from terradelta.errors import ArgumentError, DataError


class PairSample(NamedTuple):
    """One pair, or after collation a batch of them with a leading B."""

    before_CHW: Tensor
    """Image as stored: uint8, or float32 for any other data type."""
    after_CHW: Tensor
    before_labels_HW: Tensor
    """int64 class ids, 0 = unchanged or not labelled."""
    after_labels_HW: Tensor
    index: int | Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    """Position of the pair in its data set."""


class ChangeDataset(Dataset[PairSample]):
    """Reads the pairs of a folder, checks them and augments them.

    What the augmentation draws depends on (seed, epoch, index) alone: a resumed run, another order
    and any number of workers see the same. A change mask gives class id 1 at both dates.

    Args:
        pairs: What `find_pairs` returned; every pair must have labels.
        augmentation: A function of (sample, generator), such as `Augmentation`; None for none.
        seed: Non-negative seed of the augmentation.

    Raises:
        ArgumentError: If the seed is negative.
        DataError: If a pair has no labels, or, on reading it, if its files do not fit together.
    """

    def __init__(
        self,
        pairs: PairFolder,
        augmentation: Callable[[PairSample, torch.Generator], PairSample] | None = None,
        seed: int = 0,
    ):
        if seed < 0:
            raise ArgumentError(f"seed is {seed}, and it must be 0 or more", fix="use 0")
        self._labels = [
            (pair.before_label, pair.after_label)
            for pair in pairs.pairs
            if pair.before_label is not None and pair.after_label is not None
        ]
        unlabelled = [p.name for p in pairs.pairs if None in (p.before_label, p.after_label)]
        if unlabelled:
            raise DataError(
                f"{len(unlabelled)} of {len(pairs.pairs)} pairs in {pairs.root} have no labels,"
                f" {unlabelled[0]} first",
                fix="add the label folders (label1 and label2, or label), or choose a split that"
                " has labels",
            )
        self.pairs = pairs
        self.augmentation = augmentation
        self.seed = seed
        # Shared memory, so that workers that outlive an epoch see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Number of the epoch; set it before each pass, workers that are running see it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.pairs.pairs)

    def __getitem__(self, index: int) -> PairSample:
        """Return pair `index`: images (C, H, W), labels (H, W) int64."""
        index = range(len(self))[index]
        pair = self.pairs.pairs[index]
        sample = self._read(pair, index)
        if self.augmentation is None:
            return sample
        state = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        try:
            return self.augmentation(sample, generator)
        except DataError as error:
            raise DataError(f"{pair.before}: {error.problem}", fix=error.fix) from error

    def _read(self, pair: PairFiles, index: int) -> PairSample:
        before_CHW, after_CHW = read_image(pair.before), read_image(pair.after)
        before_kind, after_kind = _describe(before_CHW), _describe(after_CHW)
        if before_kind != after_kind:
            raise DataError(
                f"{pair.before} is {before_kind}, but {pair.after} is {after_kind}",
                fix="the dates of a pair need one size, band count and data type",
            )
        before_label, after_label = self._labels[index]
        if pair.is_change_mask:
            before_labels_HW = after_labels_HW = read_change_mask(before_label)
        else:
            before_labels_HW = read_mask(before_label, self.pairs.classes)
            after_labels_HW = read_mask(after_label, self.pairs.classes)
        _check_label_size(pair.before, before_CHW, before_label, before_labels_HW)
        _check_label_size(pair.after, after_CHW, after_label, after_labels_HW)
        return PairSample(
            _image_to_tensor(before_CHW),
            _image_to_tensor(after_CHW),
            torch.from_numpy(before_labels_HW.astype(np.int64)),
            torch.from_numpy(after_labels_HW.astype(np.int64)),
            index,
        )


def _describe(image_CHW: np.ndarray) -> str:
    bands, height, width = image_CHW.shape
    return f"{height} x {width} pixels with {bands} bands of {image_CHW.dtype.name}"


def _check_label_size(image: Path, image_CHW: np.ndarray, label: Path, labels_HW: np.ndarray):
    if image_CHW.shape[1:] != labels_HW.shape:
        image_size, label_size = (
            f"{height} x {width}" for height, width in (image_CHW.shape[1:], labels_HW.shape)
        )
        raise DataError(
            f"the label {label} is {label_size} pixels, but the image {image} is {image_size}",
            fix="make labels and images the same size (resample labels by nearest neighbour)",
        )


def _image_to_tensor(image_CHW: np.ndarray) -> Tensor:
    if image_CHW.dtype == np.uint8:
        return torch.from_numpy(image_CHW.copy())  # Pillow's arrays may be read-only
    return torch.from_numpy(image_CHW.astype(np.float32))
