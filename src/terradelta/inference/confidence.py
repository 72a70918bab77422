"""Estimates the share of change that is less likely right than wrong, by the models' own account.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from terradelta.cautions import Caution

UNSURE_PERCENT = 50
"""A stated confidence below which an answer is more likely wrong than right."""
CAUTION_SHARE = 0.25
"""Of the changed area: from so much unsure change on a map carries a caution."""
M2_PER_HECTARE = 10_000


class UnsureChange:
    """Changed pixels of a low stated confidence, summed window by window.

    Args:
        has_area: Whether ground areas are known; without a CRS only pixels are counted.
    """

    def __init__(self, has_area: bool = True):
        self._has_area = has_area
        self._pixels = 0
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
            confidence_HW: Percent.
            pixel_area_m2_HW: Of each pixel; None where areas are unknown.
            sign: -1 takes what was counted back.
        """
        unsure_HW = changed_HW & (confidence_HW < UNSURE_PERCENT)
        self._pixels += sign * int(np.count_nonzero(unsure_HW))
        if pixel_area_m2_HW is not None:
            self._area_m2 += sign * float(pixel_area_m2_HW[unsure_HW].sum())

    def summarize(self, changed_pixels: int, changed_ha: float | None) -> dict[str, Any]:
        """Return its pixels, hectares, and percent of all that changed.

        Args:
            changed_pixels: All of them.
            changed_ha: Their area; None where areas are unknown.
        """
        # What was taken back leaves a rounding error.
        unsure_ha = max(0.0, self._area_m2) / M2_PER_HECTARE if self._has_area else None
        part, whole = (
            (self._pixels, changed_pixels) if not changed_ha else (unsure_ha or 0.0, changed_ha)
        )
        return {
            "unsure_pixels": self._pixels,
            "unsure_ha": unsure_ha,
            "unsure_percent": 100 * part / whole if whole else 0.0,
        }


def doubt_confidence(summary: dict[str, Any]) -> tuple[Caution, ...]:
    """Return the caution of a map of whose change too much is unsure, if it is one.

    Args:
        summary: The content of summary.json.
    """
    if summary["unsure_percent"] < 100 * CAUTION_SHARE:
        return ()
    has_area = summary["unsure_ha"] is not None
    extent = (
        f"{summary['unsure_ha']:,.4g} of {summary['changed_ha']:,.4g} ha"
        if has_area
        else f"{summary['unsure_pixels']:,} of {summary['changed_pixels']:,} px"
    )
    return (
        Caution(
            "confidence",
            f"{summary['unsure_percent']:.0f} % of what is mapped as changed ({extent}) has a "
            f"stated confidence below {UNSURE_PERCENT} %",
            "look at the least certain patches before you use the numbers, or estimate areas from "
            "labelled points: `terradelta sample` and `terradelta assess`",
        ),
    )
