"""Sums the change that is more likely wrong than right by the confidence of the models.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from terradelta.cautions import Caution
from terradelta.prediction.records import Summary

UNSURE_PERCENT = 50
"""A stated confidence below which an answer is more likely wrong than right."""
CAUTION_SHARE = 0.25
"""Share of the changed area; with so much unsure change a map carries a caution."""
M2_PER_HECTARE = 10_000


class UnsureChange:
    """Changed pixels of a low stated confidence, summed window by window.

    Args:
        has_area: Whether ground areas are known; without a CRS only pixels are counted.
    """

    def __init__(self, has_area: bool = True):
        self._has_area = has_area
        self.pixels = 0
        self._area_m2 = 0.0

    def add(
        self,
        changed_HW: np.ndarray,
        confidence_HW: np.ndarray,
        pixel_area_m2_HW: np.ndarray | None,
        sign: int = 1,
    ):
        """Count a window.

        Args:
            changed_HW: Where something changed.
            confidence_HW: Confidence in percent.
            pixel_area_m2_HW: Area of each pixel; None if areas are unknown.
            sign: -1 subtracts the window again.
        """
        unsure_HW = changed_HW & (confidence_HW < UNSURE_PERCENT)
        self.pixels += sign * int(np.count_nonzero(unsure_HW))
        if pixel_area_m2_HW is not None:
            self._area_m2 += sign * float(pixel_area_m2_HW[unsure_HW].sum())

    @property
    def area_ha(self) -> float | None:
        """Its ground; None if areas are unknown."""
        # Subtracting leaves a rounding error.
        return max(0.0, self._area_m2) / M2_PER_HECTARE if self._has_area else None

    def find_percent(self, changed_pixels: int, changed_ha: float | None) -> float:
        """Return its share of all change in percent, by area if areas are known.

        Args:
            changed_pixels: All changed pixels.
            changed_ha: Their area; None if areas are unknown.
        """
        part, whole = (
            (self.pixels, changed_pixels) if not changed_ha else (self.area_ha or 0.0, changed_ha)
        )
        return 100 * part / whole if whole else 0.0


def doubt_confidence(summary: Summary) -> tuple[Caution, ...]:
    """Return a caution if too much of a map's change is unsure."""
    percent = summary.unsure_percent
    if percent is None or percent < 100 * CAUTION_SHARE:
        return ()
    extent = (
        f"{summary.unsure_pixels:,} of {summary.changed_pixels:,} px"
        if summary.unsure_ha is None
        else f"{summary.unsure_ha:,.4g} of {summary.changed_ha:,.4g} ha"
    )
    return (
        Caution(
            "confidence",
            f"{percent:.0f} % of the mapped change ({extent}) has a stated confidence "
            f"below {UNSURE_PERCENT} %",
            "look at the least certain patches before you use the numbers, or estimate areas from "
            "labelled points: `terradelta sample` and `terradelta assess`",
        ),
    )
