"""Scores the agreement of predicted and true outlines of change.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt

from terradelta.errors import ArgumentError, DataError

DEFAULT_TOLERANCE_PX = 2.0


@dataclass
class BoundaryCounts:
    """Outline pixels of change, and how many of them have a counterpart nearby; adds up.

    Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
    2013; here summed over images before dividing, not averaged over them.
    """

    tolerance_px: float = DEFAULT_TOLERANCE_PX
    """Largest distance between pixel centres at which outlines agree."""
    predicted_px: int = 0
    true_px: int = 0
    predicted_hits_px: int = 0
    """Predicted outline pixels within reach of a true one."""
    true_hits_px: int = 0
    """True outline pixels within reach of a predicted one."""

    def __post_init__(self):
        if self.tolerance_px < 0:
            raise ArgumentError(
                f"the tolerance is {self.tolerance_px} px", fix="use 0 or more; 2 is usual"
            )

    def update(self, predicted_HW: ArrayLike, true_HW: ArrayLike):
        """Count the outlines of two masks.

        Args:
            predicted_HW: (H, W), nonzero where changed.
            true_HW: The same, labelled.

        Raises:
            DataError: If shapes disagree.
        """
        masks = [np.asarray(mask) != 0 for mask in (predicted_HW, true_HW)]
        if masks[0].shape != masks[1].shape:
            raise DataError(
                f"the masks have the shapes {masks[0].shape} and {masks[1].shape}",
                fix="compare maps of the same pixels",
            )
        predicted_HW, true_HW = map(find_outline, masks)
        self.predicted_px += int(predicted_HW.sum())
        self.true_px += int(true_HW.sum())
        self.predicted_hits_px += self._count_near(predicted_HW, true_HW)
        self.true_hits_px += self._count_near(true_HW, predicted_HW)

    def _count_near(self, outline_HW: np.ndarray, other_HW: np.ndarray) -> int:
        if not outline_HW.any() or not other_HW.any():
            return 0
        distance_HW = distance_transform_edt(~other_HW)
        return int((np.asarray(distance_HW)[outline_HW] <= self.tolerance_px).sum())

    def score(self) -> dict[str, float]:
        """Return `boundary_precision`, `boundary_recall`, `boundary_f1`; nan without outlines."""
        precision = _divide(self.predicted_hits_px, self.predicted_px)
        recall = _divide(self.true_hits_px, self.true_px)
        both = precision + recall
        f1 = 2 * precision * recall / both if both else (0.0 if both == 0 else math.nan)
        return {"boundary_precision": precision, "boundary_recall": recall, "boundary_f1": f1}


def find_outline(mask_HW: np.ndarray) -> np.ndarray:
    """Return the pixels of a bool mask with a 4-neighbour outside it; borders do not count."""
    outline_HW = np.zeros_like(mask_HW)
    for axis in (0, 1):
        differs = np.diff(mask_HW, axis=axis)
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        outline_HW[tuple(first)] |= differs
        outline_HW[tuple(second)] |= differs
    return outline_HW & mask_HW


def _divide(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
