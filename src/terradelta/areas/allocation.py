"""Chooses the number of points of a sample and shares them out among the strata.

Legend of the array names: H strata.

Sources: Cochran, Sampling Techniques, 3rd edition, 1977, sections 5.5 and 5.9; Olofsson et al.,
"Good practices for estimating area and assessing accuracy of land change", Remote Sensing of
Environment 148, 2014, section 5.1.
"""

from __future__ import annotations

import numpy as np

from terradelta.areas.design import Allocation
from terradelta.areas.estimators import Strata
from terradelta.errors import ArgumentError

MIN_POINTS = 2
"""Points in a stratum; one point gives no spread."""


def find_sample_size(strata: Strata, accuracy_H: np.ndarray, standard_error: float) -> int:
    """Return the number of points for a standard error of the overall accuracy.

    Args:
        strata: The population.
        accuracy_H: Expected share of each stratum that is mapped right, 0 to 1.
        standard_error: The target, for instance 0.01.

    Raises:
        ArgumentError: If the standard error or an accuracy is out of its range.

    Source: Olofsson et al. (2014), equation 13; Cochran (1977), equation 5.25.
    """
    if not 0 < standard_error < 0.5:
        raise ArgumentError(
            f"a standard error of {standard_error:g} is not a possible target",
            fix="give a share of the area between 0 and 0.5, such as 0.01",
        )
    deviation_H = _spread(accuracy_H)
    weights_H, pixels = strata.weights, int(strata.pixels_H.sum())
    numerator = (weights_H @ deviation_H) ** 2
    variance = standard_error**2 + (weights_H @ deviation_H**2) / pixels
    # Numbers that are whole except for rounding count as whole.
    return int(np.ceil(numerator / variance - 1e-9))


def allocate_points(
    strata: Strata,
    points: int,
    accuracy_H: np.ndarray,
    *,
    rule: Allocation = "proportional",
    floor: int = 50,
) -> np.ndarray:
    """Return the number of points of each stratum, (H,) int64.

    Strata that the rule would give fewer than `floor` get `floor`; the others share the rest by
    the rule. No stratum gets more points than it has pixels.

    Args:
        strata: The population.
        points: Number of points.
        accuracy_H: Expected share of each stratum that is mapped right; for "neyman".
        rule: "proportional" to area, or "neyman": to area times expected spread, which makes the
            standard error of the overall accuracy smallest.
        floor: Least number of points of a stratum.

    Raises:
        ArgumentError: If the points do not suffice for the floor.
    """
    if floor < MIN_POINTS:
        raise ArgumentError(
            f"{floor} points in a stratum do not give the spread of its labels",
            fix=f"use a floor of {MIN_POINTS} or more; 50 is usual",
        )
    least_H = np.minimum(floor, strata.pixels_H)
    if points < least_H.sum():
        raise ArgumentError(
            f"{points} points are too few for {len(strata)} strata of at least {floor}",
            fix=f"use {least_H.sum()} points or more, a smaller --floor, or a larger "
            "--stratum-share, which pools more transitions",
        )
    size_H = strata.weights * (_spread(accuracy_H) if rule == "neyman" else 1.0)
    points = min(points, int(strata.pixels_H.sum()))
    return _round(_share_out(size_H, points, least_H, strata.pixels_H), points, strata.pixels_H)


def _share_out(
    size_H: np.ndarray, points: int, least_H: np.ndarray, most_H: np.ndarray
) -> np.ndarray:
    """Return fractions of points in proportion to size, between a minimum and a maximum.

    They are the sizes times the factor for which the bounded products add up.
    """

    def bound(factor: float) -> np.ndarray:
        return np.clip(size_H * factor, least_H, most_H)

    low, high = 0.0, 1.0
    while bound(high).sum() < points and high < 1e300:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if bound(middle).sum() < points else (low, middle)
    return bound(high)


def _round(shares_H: np.ndarray, points: int, most_H: np.ndarray) -> np.ndarray:
    """Return whole numbers that add up, rounding up those with the largest fractions."""
    whole_H = np.floor(shares_H + 1e-9).astype(np.int64)
    left = points - int(whole_H.sum())
    fractions_H = np.where(whole_H < most_H, shares_H - whole_H, -1)
    whole_H[np.argsort(-fractions_H, kind="stable")[: max(left, 0)]] += 1
    return whole_H


def _spread(accuracy_H: np.ndarray) -> np.ndarray:
    """Return the standard deviation of "mapped right" in each stratum."""
    if not ((accuracy_H > 0) & (accuracy_H < 1)).all():
        raise ArgumentError(
            f"an expected accuracy of {accuracy_H.tolist()} leaves nothing to measure",
            fix="give shares above 0 and below 1, such as 0.7",
        )
    return np.sqrt(accuracy_H * (1 - accuracy_H))
