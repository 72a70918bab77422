"""The changed patches of a prediction folder: a selection, their sizes and confidence."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas

from terradelta.reports.wording import M2_PER_HECTARE, Unit

LARGEST = 6
MOST_CERTAIN = LEAST_CERTAIN = 3
LARGEST_SIZE = 1e18
"""In m2 or pixels; no patch is larger than the Earth."""
SMALLEST_PX = 25
"""Smaller patches are not shown as the most or least certain, if there are others."""
CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def choose_patches(table: pandas.DataFrame, has_area: bool) -> dict[str, list[int]]:
    """Return the ids of the patches to show, by reason."""
    size = "area_m2" if has_area else "pixels"
    by_size = table.sort_values(by=size, ascending=False, kind="stable")
    notable = by_size.loc[by_size.pixels >= SMALLEST_PX]
    if len(notable) < MOST_CERTAIN + LEAST_CERTAIN:
        notable = by_size
    certain = notable.sort_values(by="confidence", ascending=False, kind="stable")
    return {
        "largest": by_size.index[:LARGEST].tolist(),
        "most certain": certain.index[:MOST_CERTAIN].tolist(),
        "least certain": certain.index[::-1][:LEAST_CERTAIN].tolist(),
    }


@dataclass(frozen=True)
class Bin:
    """One row of a distribution."""

    label: str
    patches: int
    amount: float
    """Amount that they cover."""


@dataclass(frozen=True)
class Distribution:
    """The number of patches of each kind, and their amounts."""

    bins: list[Bin]
    unit: str
    """Unit of the amounts: "ha", "m²" or "px"."""

    @property
    def texts(self) -> list[str]:
        """The amounts, with the same number of decimals."""
        return Unit(self.unit == "ha").say_column([part.amount for part in self.bins])

    @classmethod
    def count(
        cls, labels: list[str], place: np.ndarray, size: np.ndarray, has_area: bool
    ) -> Distribution:
        """Sort patches into bins.

        Args:
            labels: Label of each bin.
            place: Number of each patch's bin.
            size: Size of each patch in m2, or in pixels if areas are unknown.
            has_area: Whether areas are known.
        """
        patches = np.bincount(place, minlength=len(labels)).tolist()
        amounts = np.bincount(place, weights=size, minlength=len(labels))
        unit = "px"
        if has_area:
            unit = "ha" if amounts.max() >= M2_PER_HECTARE else "m²"
        if unit == "ha":
            amounts = amounts / M2_PER_HECTARE
        return cls(list(map(Bin, labels, patches, amounts.tolist())), unit)


def sort_by_size(table: pandas.DataFrame, has_area: bool) -> Distribution:
    """Return the distribution of the patches' orders of magnitude."""
    size = _sizes(table, has_area)
    # Rounded so that 100 m2 of 0.01 m2 pixels counts among the hundreds.
    decade = np.floor(np.log10(np.maximum(size, 0.1)) + 1e-9).astype(int)
    powers = range(decade.min(), decade.max() + 1)
    labels = [_label_decade(power, has_area) for power in powers]
    return Distribution.count(labels, decade - powers.start, size, has_area)


def sort_by_confidence(table: pandas.DataFrame, has_area: bool) -> Distribution:
    """Return the distribution of the patches' mean confidence."""
    place = np.searchsorted(CONFIDENCE_EDGES[1:-1], table.confidence.to_numpy(), side="right")
    labels = [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in pairwise(CONFIDENCE_EDGES)]
    return Distribution.count(labels, place, _sizes(table, has_area), has_area)


def find_share_of_largest(table: pandas.DataFrame, has_area: bool, share: float = 0.1) -> float:
    """Return the share of the changed area in the largest patches, a given share of all."""
    size = np.sort(_sizes(table, has_area))[::-1]
    total = size.sum()
    return float(size[: max(1, round(share * len(size)))].sum() / total) if total else 0.0


def _sizes(table: pandas.DataFrame, has_area: bool) -> np.ndarray:
    sizes = (table.area_m2 if has_area else table.pixels).to_numpy(np.float64)
    # In a damaged or older file, an invalid size counts as 0.
    return np.clip(np.nan_to_num(sizes, nan=0.0, posinf=0.0, neginf=0.0), 0, LARGEST_SIZE)


def _label_decade(power: int, has_area: bool) -> str:
    low, high = 10**power, 10 ** (power + 1)
    if not has_area:
        return f"{low:,} to {high - 1:,} px"
    if power < 0:
        return "under 1 m²"
    if high < M2_PER_HECTARE:
        return f"{low:,} to {high:,} m²"
    if high == M2_PER_HECTARE:
        return f"{low:,} m² to 1 ha"
    return f"{low // M2_PER_HECTARE:,} to {high // M2_PER_HECTARE:,} ha"
