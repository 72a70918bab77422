"""Combines the masks of a pair into its labels.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from terradelta.classes import ClassTable
from terradelta.data.images import IGNORE, read_change_mask, read_mask
from terradelta.data.pairs import PairFiles
from terradelta.errors import DataError

UNKNOWN = -1
"""Value of a change map where change is unknown."""


class PairLabels(NamedTuple):
    """The labels of one pair, (H, W) int64 each."""

    before_HW: np.ndarray
    """Class ids; 0 where unchanged, not labelled, or without a mask of the date."""
    after_HW: np.ndarray
    change_HW: np.ndarray
    """1 = changed, 0 = unchanged, -1 = not known."""


def read_labels(pair: PairFiles, classes: ClassTable) -> PairLabels:
    """Read the masks of a labelled pair.

    A change mask gives class id 1 at both dates where that is the only class. Change is read from
    the change mask, or else from the masks of both dates, or else unknown. Where a land-cover mask
    of either date holds `IGNORE`, its class and the change are unknown.

    Raises:
        DataError: If a mask cannot be read or two of them differ in size.
    """
    read: dict[Path, np.ndarray] = {}
    for path in (pair.before_label, pair.after_label):
        if path is not None and path not in read:
            is_change = pair.is_change_mask
            ids_HW = read_change_mask(path) if is_change else read_mask(path, classes, True)
            read[path] = ids_HW.astype(np.int64)
    if pair.change_label is not None:
        read[pair.change_label] = read_change_mask(pair.change_label).astype(np.int64)
    _require_one_size(read)
    shape = next(iter(read.values())).shape
    before_HW, after_HW = (
        read[path].copy() if path else np.zeros(shape, np.int64)
        for path in (pair.before_label, pair.after_label)
    )
    if pair.change_label is not None:
        change_HW = read[pair.change_label]
    elif pair.is_partly_labelled:
        change_HW = np.full(shape, UNKNOWN, np.int64)
    else:
        change_HW = ((before_HW > 0) | (after_HW > 0)).astype(np.int64)
    for ids_HW in (before_HW, after_HW):
        ignored_HW = ids_HW == IGNORE
        change_HW[ignored_HW] = UNKNOWN
        ids_HW[ignored_HW] = 0
    return PairLabels(before_HW, after_HW, change_HW)


def _require_one_size(masks: dict[Path, np.ndarray]):
    (first, first_HW), *others = masks.items()
    for other, other_HW in others:
        if other_HW.shape != first_HW.shape:
            first_size, other_size = (
                f"{height} x {width}" for height, width in (first_HW.shape, other_HW.shape)
            )
            raise DataError(
                f"the label {other} is {other_size} pixels, but the label {first} is {first_size}",
                fix="make them the same size (resample labels by nearest neighbour)",
            )
