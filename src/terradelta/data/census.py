"""How many pixels of each class a data set has at each date.

Legend of the array names: T dates, K class ids from 0, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from terradelta.data.images import read_change_mask, read_mask
from terradelta.data.layouts import PairFolder


@dataclass(frozen=True)
class LabelCounts:
    """Pixels by label."""

    pixels_TK: np.ndarray
    """(2, K + 1) int64, dates by class ids from 0, which is unchanged or not labelled."""
    sizes: dict[tuple[int, int], int]
    """How many pairs have which height and width."""

    @property
    def changed_share(self) -> float:
        """Share of pixels that the before date labels."""
        return float(self.pixels_TK[0, 1:].sum() / self.pixels_TK[0].sum())


def count_labels(pairs: PairFolder) -> LabelCounts:
    """Count the labels of all pairs that have some.

    Raises:
        DataError: If a mask cannot be read.
    """
    pixels_TK = np.zeros((2, pairs.classes.num_classes + 1), np.int64)
    sizes: dict[tuple[int, int], int] = {}
    for pair in tqdm(pairs.pairs, desc="counting labels", unit="pair", disable=None, leave=False):
        shape = None
        for date, path in enumerate((pair.before_label, pair.after_label)):
            if path is None:
                continue
            if pair.is_change_mask:
                labels_HW = read_change_mask(path)
            else:
                labels_HW = read_mask(path, pairs.classes)
            pixels_TK[date] += np.bincount(labels_HW.ravel(), minlength=pixels_TK.shape[1])
            shape = labels_HW.shape
        if shape is not None:
            sizes[shape] = sizes.get(shape, 0) + 1
    return LabelCounts(pixels_TK, sizes)
