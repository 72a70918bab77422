"""Counts the pixels of each class of a data set at each date.

Legend of the array names: T dates, K class ids from 0, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from terradelta.data.labels import read_labels
from terradelta.data.layouts import PairFolder


@dataclass(frozen=True)
class LabelCounts:
    """Number of pixels by label."""

    pixels_TK: np.ndarray
    """(2, K + 1) int64, dates by class ids from 0, which is unchanged or not labelled."""
    sizes: dict[tuple[int, int], int]
    """Number of pairs by height and width."""

    changed_px: int
    """Pixels that are known to have changed."""
    unchanged_px: int
    """Pixels that are known not to have changed."""

    @property
    def changed_share(self) -> float:
        """Share of changed pixels among those with known change; NaN if there are none."""
        known_px = self.changed_px + self.unchanged_px
        return self.changed_px / known_px if known_px else math.nan


def count_labels(pairs: PairFolder) -> LabelCounts:
    """Count the labels of all labelled pairs.

    Raises:
        DataError: If a mask cannot be read.
    """
    pixels_TK = np.zeros((2, pairs.classes.num_classes + 1), np.int64)
    sizes: dict[tuple[int, int], int] = {}
    changed_px = unchanged_px = 0
    for pair in tqdm(pairs.pairs, desc="counting labels", unit="pair", disable=None, leave=False):
        if not pair.is_labelled:
            continue
        labels = read_labels(pair, pairs.classes)
        for date, labels_HW in enumerate((labels.before_HW, labels.after_HW)):
            pixels_TK[date] += np.bincount(labels_HW.ravel(), minlength=pixels_TK.shape[1])
        changed_px += int((labels.change_HW == 1).sum())
        unchanged_px += int((labels.change_HW == 0).sum())
        shape = labels.change_HW.shape
        sizes[shape] = sizes.get(shape, 0) + 1
    return LabelCounts(pixels_TK, sizes, changed_px, unchanged_px)
