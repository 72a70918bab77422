"""Data set objects in place of a recipe's `data`: checked, augmented and counted like terradelta's.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from terradelta.classes import ClassTable
from terradelta.data.dataset import AugmentedPairs, PairSample
from terradelta.errors import DataError, TerradeltaError
from terradelta.protocols import PairDataset

_IMAGE_DTYPES = (torch.uint8, torch.float32)


class OwnDataset(AugmentedPairs):
    """The pairs of a data set object, each checked when read.

    Args:
        dataset: The pairs; see `terradelta.protocols.PairDataset`.
        augmentation: A function of (sample, generator); None for none.
        seed: Non-negative seed of the augmentation.

    Raises:
        DataError: If the data set lacks an attribute, or has no pairs.
    """

    def __init__(
        self,
        dataset: PairDataset,
        augmentation: Callable[[PairSample, torch.Generator], PairSample] | None = None,
        seed: int = 0,
    ):
        super().__init__(augmentation, seed)
        _require_dataset(dataset)
        self._dataset = dataset
        self.classes: ClassTable = dataset.classes
        self.bands: Sequence[str] = tuple(dataset.bands)

    def __len__(self) -> int:
        return len(self._dataset)

    def name_pair(self, index: int) -> str:
        """Return the number of a pair and the type of the data set."""
        return f"pair {index} of {type(self._dataset).__name__}"

    def read(self, index: int) -> PairSample:
        """Return pair `index`, checked."""
        name = self.name_pair(index)
        try:
            sample = self._dataset[index]
        except TerradeltaError:
            raise
        except Exception as error:
            raise DataError(
                f"{name} cannot be read: {type(error).__name__}: {error}",
                fix="correct the data set",
            ) from error
        return _require_sample(sample, name, self.classes, len(self.bands))._replace(index=index)

    def count_classes(self) -> np.ndarray:
        """Return how many pixels of both dates have each class, (K,) int64; reads all pairs."""
        pixels_K = np.zeros(self.classes.num_classes + 1, np.int64)
        for index in range(len(self)):
            sample = self.read(index)
            for labels_HW in (sample.before_labels_HW, sample.after_labels_HW):
                pixels_K += np.bincount(labels_HW.numpy().ravel(), minlength=len(pixels_K))
        return pixels_K[1:]


def _require_dataset(dataset: PairDataset):
    kind = type(dataset).__name__
    needed = "classes", "bands", "__getitem__", "__len__"
    missing = [name for name in needed if not hasattr(dataset, name)]
    if missing:
        raise DataError(
            f"the data set {kind} has no {', '.join(missing)}",
            fix="add the attributes that terradelta.protocols.PairDataset lists",
        )
    if not isinstance(dataset.classes, ClassTable):
        raise DataError(
            f"the data set {kind} has classes of the type {type(dataset.classes).__name__}",
            fix="give it a ClassTable, such as td.SENSEEARTH or td.BINARY",
        )
    if len(dataset) < 1:
        raise DataError(f"the data set {kind} has no pairs", fix="give it at least one")


def _require_sample(sample: object, name: str, classes: ClassTable, bands: int) -> PairSample:
    if not isinstance(sample, PairSample):
        raise DataError(
            f"{name} is a {type(sample).__name__}, expected a PairSample",
            fix="return terradelta.data.dataset.PairSample",
        )
    parts = dict(zip(PairSample._fields[:5], sample[:5], strict=True))
    for field, part in parts.items():
        if not isinstance(part, torch.Tensor):
            raise DataError(f"{name}: {field} is a {type(part).__name__}", fix="make it a Tensor")
    _require_images(sample, name, bands)
    most = classes.num_classes
    for (field, part), (low, high) in zip(
        list(parts.items())[2:], ((0, most), (0, most), (-1, 1)), strict=True
    ):
        if part.shape != sample.before_CHW.shape[1:] or part.dtype != torch.int64:
            raise DataError(
                f"{name}: {field} is {part.dtype} of the shape {tuple(part.shape)}, expected int64 "
                f"of {tuple(sample.before_CHW.shape[1:])}",
                fix="give a label for each pixel",
            )
        if part.min() < low or part.max() > high:
            raise DataError(
                f"{name}: {field} holds {part.min()} to {part.max()}, expected {low} to {high}",
                fix="give ids of the data set's `classes`",
            )
    return sample


def _require_images(sample: PairSample, name: str, bands: int):
    before, after = sample.before_CHW, sample.after_CHW
    shapes = tuple(before.shape), tuple(after.shape)
    if before.ndim != 3 or len(before) != bands or shapes[0] != shapes[1] or not before.numel():
        raise DataError(
            f"{name}: the images have the shapes {shapes[0]} and {shapes[1]}, expected {bands} "
            "bands, rows and columns, the same at both dates",
            fix="return the bands that `bands` names",
        )
    if before.dtype not in _IMAGE_DTYPES or before.dtype != after.dtype:
        raise DataError(
            f"{name}: the images are {before.dtype} and {after.dtype}, expected uint8 or float32, "
            "the same at both dates",
            fix="convert them",
        )
