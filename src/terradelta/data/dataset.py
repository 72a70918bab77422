"""A data set of labelled image pairs for `torch.utils.data.DataLoader`.

Shapes: C bands, H rows, W columns. Images stay in their stored units; the model scales them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terradelta.classes import ClassTable
from terradelta.data.class_counts import count_labels
from terradelta.data.images import IGNORE, read_image, read_mask
from terradelta.data.labels import read_labels
from terradelta.data.layouts import PairFolder
from terradelta.errors import ArgumentError, DataError


class PairSample(NamedTuple):
    """One pair, or after collation a batch of them with a leading B."""

    before_CHW: Tensor
    """Image as stored: uint8, or float32 for any other data type."""
    after_CHW: Tensor
    before_labels_HW: Tensor
    """int64 class ids, 0 = unchanged or not labelled."""
    after_labels_HW: Tensor
    change_HW: Tensor
    """int64, 1 = changed, 0 = unchanged, -1 = not known."""
    index: int | Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    """Position of the pair in its data set."""


class EpochNumber:
    """Number of an epoch in shared memory, so that running workers see it change."""

    def __init__(self):
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def value(self) -> int:
        """The number."""
        return int(self._number)

    @value.setter
    def value(self, number: int) -> None:
        self._number.fill_(number)


class AugmentedPairs(Dataset[PairSample], ABC):
    """Pairs that a random augmentation changes in each epoch.

    The augmentation depends only on (seed, epoch, index): a resumed run, another order
    and any number of workers get the same pairs.

    Args:
        augmentation: A function of (sample, generator), such as `Augmentation`; None for none.
        seed: Non-negative seed of the augmentation.

    Raises:
        ArgumentError: If the seed is negative.
    """

    def __init__(
        self,
        augmentation: Callable[[PairSample, torch.Generator], PairSample] | None = None,
        seed: int = 0,
    ):
        if seed < 0:
            raise ArgumentError(f"seed is {seed}, and it must be 0 or more", fix="use 0")
        self.augmentation = augmentation
        self.seed = seed
        self._epoch = EpochNumber()

    @property
    def epoch(self) -> int:
        """Number of the epoch; set it before each pass; running workers see it."""
        return self._epoch.value

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.value = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of pairs."""

    @abstractmethod
    def name_pair(self, index: int) -> str:
        """Return the name of a pair in errors."""

    @abstractmethod
    def read(self, index: int) -> PairSample:
        """Return pair `index`, checked and not augmented."""

    def __getitem__(self, index: int) -> PairSample:
        """Return pair `index`, augmented: images (C, H, W), labels (H, W) int64.

        Raises:
            DataError: If it cannot be read or augmented.
        """
        index = range(len(self))[index]
        sample = self.read(index)
        if self.augmentation is None:
            return sample
        draw = np.random.SeedSequence((self.seed, self.epoch, index))
        state = draw.generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        try:
            return self.augmentation(sample, generator)
        except DataError as error:
            raise DataError(f"{self.name_pair(index)}: {error.problem}", fix=error.fix) from error


class ChangeDataset(AugmentedPairs):
    """Reads the pairs of a folder, checks them and augments them.

    `read_labels` combines the masks.

    Args:
        pairs: Result of `find_pairs`; every pair must have labels.
        augmentation: A function of (sample, generator), such as `Augmentation`; None for none.
        seed: Non-negative seed of the augmentation.
        allow_partial: Accept pairs with only a change mask or a mask of one date, which can be used
            to train but not to score.

    Raises:
        ArgumentError: If the seed is negative.
        DataError: If a pair lacks labels, or, when read, if its files do not fit together.
    """

    def __init__(
        self,
        pairs: PairFolder,
        augmentation: Callable[[PairSample, torch.Generator], PairSample] | None = None,
        seed: int = 0,
        allow_partial: bool = False,
    ):
        super().__init__(augmentation, seed)
        unlabelled = [p.name for p in pairs.pairs if not p.is_labelled]
        partial = [p.name for p in pairs.pairs if p.is_partly_labelled]
        if unlabelled:
            raise DataError(
                f"{len(unlabelled)} of {len(pairs.pairs)} pairs in {pairs.root} have no labels,"
                f" {unlabelled[0]} first",
                fix="add the label folders (label1 and label2, or label), or choose a split that"
                " has labels",
            )
        if partial and not allow_partial:
            raise DataError(
                f"{len(partial)} of {len(pairs.pairs)} pairs in {pairs.root} are not labelled at"
                f" both dates, {partial[0]} first, and cannot be scored",
                fix="put them in the train split (the split column of a CSV)",
            )
        _refuse_change_masks(pairs)
        self.pairs = pairs

    @property
    def classes(self) -> ClassTable:
        """Classes of the labels."""
        return self.pairs.classes

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands: three are red, green and blue, others have numbers."""
        count = len(read_image(self.pairs.pairs[0].before))
        if count == 3:
            return ("red", "green", "blue")
        return tuple(f"band {number}" for number in range(1, count + 1))

    def count_classes(self) -> np.ndarray:
        """Return how many pixels of both dates have each class, (K,) int64; reads all labels."""
        return count_labels(self.pairs).pixels_TK.sum(axis=0)[1:]

    def __len__(self) -> int:
        return len(self.pairs.pairs)

    def name_pair(self, index: int) -> str:
        """Return the path of the before image."""
        return str(self.pairs.pairs[index].before)

    def read(self, index: int) -> PairSample:
        """Return pair `index`: images (C, H, W), labels (H, W) int64."""
        pair = self.pairs.pairs[index]
        before_CHW, after_CHW = read_image(pair.before), read_image(pair.after)
        before_kind, after_kind = _describe(before_CHW), _describe(after_CHW)
        if before_kind != after_kind:
            raise DataError(
                f"{pair.before} is {before_kind}, but {pair.after} is {after_kind}",
                fix="the dates of a pair need one size, band count and data type",
            )
        labels = read_labels(pair, self.pairs.classes)
        if labels.before_HW.shape != before_CHW.shape[1:]:
            label = pair.before_label or pair.after_label or pair.change_label
            raise DataError(
                f"the label {label} is {_size(labels.before_HW)} pixels, but the image"
                f" {pair.before} is {_size(before_CHW)}",
                fix="make labels and images the same size (resample labels by nearest neighbour)",
            )
        return PairSample(
            _image_to_tensor(before_CHW),
            _image_to_tensor(after_CHW),
            torch.from_numpy(labels.before_HW),
            torch.from_numpy(labels.after_HW),
            torch.from_numpy(labels.change_HW),
            index,
        )


def _refuse_change_masks(pairs: PairFolder):
    """Raise if the land-cover masks are change masks of 0 and 255, of which 255 is `IGNORE`.

    The first mask with a class ends the search, mostly the first of all.
    """
    suspicious = None
    land_cover = [pair for pair in pairs.pairs if not pair.is_change_mask]
    for path in (path for pair in land_cover for path in (pair.before_label, pair.after_label)):
        if path is None:
            continue
        values = set(np.unique(read_mask(path, pairs.classes, may_ignore=True)).tolist())
        if not values <= {0, IGNORE}:
            return
        if IGNORE in values:
            suspicious = suspicious or path
    if suspicious is not None:
        raise DataError(
            f"{suspicious} and the other land-cover masks of {pairs.root} hold only 0 and 255, and"
            " 255 is ignored",
            fix="put change masks of 0 and 255 into a folder named label beside the images; a"
            " land-cover mask holds class ids",
        )


def _describe(image_CHW: np.ndarray) -> str:
    return f"{_size(image_CHW)} pixels with {len(image_CHW)} bands of {image_CHW.dtype.name}"


def _size(array: np.ndarray) -> str:
    height, width = array.shape[-2:]
    return f"{height} x {width}"


def _image_to_tensor(image_CHW: np.ndarray) -> Tensor:
    if image_CHW.dtype == np.uint8:
        return torch.from_numpy(image_CHW.copy())  # Pillow's arrays may be read-only
    return torch.from_numpy(image_CHW.astype(np.float32))
