"""Estimates from a stratified random sample: areas, shares and accuracies with standard errors.

All are functions of stratum means, whatever the strata are: where they are the map's classes, these
are the formulas of Olofsson et al. (2014), where not, those of Stehman (2014).

Pixels are drawn with equal probability within a stratum, and need not be equally large (those of a
geographic grid shrink towards the poles). So a stratum's mean is weighted by the ground area of the
points' pixels and multiplied by the stratum's area, which is known from the map: the separate ratio
estimator (Cochran 1977, section 6.10), whose areas add up to the map's. With equal pixels it is the
plain one.

Legend of the array names: N points, H strata, Q quantities, K classes.

Sources: Olofsson et al., "Good practices for estimating area and assessing accuracy of land
change", Remote Sensing of Environment 148, 2014; Stehman, "Estimating area and map accuracy for
stratified random sampling when the strata are different from the map classes", International
Journal of Remote Sensing 35, 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from terradelta.errors import DataError
from terradelta.predict.transitions import M2_PER_HECTARE

Z_95 = 1.96
"""Standard errors on either side of an estimate that make its 95 % interval."""


class Estimate(NamedTuple):
    """A number and how far chance, the drawing of the points, may have moved it."""

    value: float
    """nan where the sample cannot say."""
    standard_error: float
    """nan where `value` is."""

    @property
    def half_width(self) -> float:
        """What is to be added and subtracted for the 95 % interval."""
        return Z_95 * self.standard_error

    def to_dict(
        self, factor: float = 1.0, bottom: float = 0.0, top: float = math.inf
    ) -> dict[str, Any]:
        """Return a JSON-ready form: value, standard error and the ends of the 95 % interval.

        Args:
            factor: What to multiply the numbers with, for another unit.
            bottom: Least possible value, where the interval is cut off.
            top: Largest possible value, likewise.
        """
        value, error = self.value * factor, self.standard_error * factor
        low, high = max(bottom, value - Z_95 * error), min(top, value + Z_95 * error)
        ends = [math.nan, math.nan] if math.isnan(value) else [low, high]
        return {"value": value, "standard_error": error, "interval_95_percent": ends}


@dataclass(frozen=True)
class Strata:
    """The population: which parts it was divided into before points were drawn."""

    names: tuple[str, ...]
    """What each is called."""
    pixels_H: np.ndarray
    """Pixels of each, int64."""
    area_m2_H: np.ndarray
    """Ground area of each, float64."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def weights(self) -> np.ndarray:
        """Each stratum's share of the area, (H,)."""
        return self.area_m2_H / self.area_m2_H.sum()


class StratifiedSample:
    """Points drawn at random, without replacement, within strata.

    Args:
        strata: The population.
        stratum_N: Index of the stratum that each point was drawn from, (N,) int.
        area_m2_N: Ground area of each point's pixel, (N,); equal pixels if it is left out.

    Raises:
        DataError: If a stratum holds pixels and has fewer than two points, from which no spread can
            be told, or more points than pixels.
    """

    def __init__(self, strata: Strata, stratum_N: np.ndarray, area_m2_N: np.ndarray | None = None):
        self.strata = strata
        self.stratum_N = stratum_N
        self.points_H = np.bincount(stratum_N, minlength=len(strata))
        for name, points, pixels in zip(strata.names, self.points_H, strata.pixels_H, strict=True):
            if points > pixels or points < min(2, pixels):
                raise DataError(
                    f"stratum {name!r} has {points} labelled points and {pixels} pixels",
                    fix="label two points or more in each stratum, and each pixel once",
                )
        self._size_N = np.ones(len(stratum_N)) if area_m2_N is None else area_m2_N
        sums_H = np.bincount(stratum_N, self._size_N, minlength=len(strata))
        self._mean_size_H = sums_H / np.maximum(self.points_H, 1)

    def estimate_areas(self, values_NQ: np.ndarray) -> list[Estimate]:
        """Return the area in m2 that has each of Q properties.

        Args:
            values_NQ: 1 where a point has the property, else 0; or anything between.

        Source: Stehman (2014), equations 3 and 25 and their special case Olofsson et al. (2014),
        equations 9 to 11.
        """
        means_HQ, deviations_NQ = self._centre(values_NQ)
        areas_Q = self.strata.area_m2_H @ means_HQ
        variances_Q = self._add_variances(deviations_NQ)
        return _pair(areas_Q, np.sqrt(variances_Q))

    def estimate_shares(self, values_NQ: np.ndarray) -> list[Estimate]:
        """Return which share of the whole area has each of Q properties."""
        total_m2 = float(self.strata.area_m2_H.sum())
        areas = self.estimate_areas(values_NQ)
        return [Estimate(area.value / total_m2, area.standard_error / total_m2) for area in areas]

    def estimate_ratios(self, parts_NQ: np.ndarray, wholes_NQ: np.ndarray) -> list[Estimate]:
        """Return which share of the area with a property has another, too, Q times.

        nan where no point has the first.

        Args:
            parts_NQ: 1 where a point has both properties.
            wholes_NQ: 1 where it has the first.

        Source: Stehman (2014), equations 27 and 28; Olofsson et al. (2014), equations 6 and 7, are
        the special case.
        """
        areas_H = self.strata.area_m2_H
        wholes_Q = areas_H @ self._centre(wholes_NQ)[0]
        with np.errstate(invalid="ignore"):
            ratios_Q = (areas_H @ self._centre(parts_NQ)[0]) / wholes_Q
            residuals_NQ = parts_NQ - ratios_Q * wholes_NQ
            errors_Q = np.sqrt(self._add_variances(self._centre(residuals_NQ)[1])) / wholes_Q
        return _pair(ratios_Q, errors_Q)

    def _centre(self, values_NQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return stratum means weighted by pixel area, and each point's deviation from its mean."""
        means_HQ = np.zeros((len(self.strata), values_NQ.shape[1]))
        np.add.at(means_HQ, self.stratum_N, values_NQ * self._size_N[:, None])
        filled_H = self.points_H > 0
        means_HQ[filled_H] /= (self.points_H * self._mean_size_H)[filled_H, None]
        relative_size_N = self._size_N / self._mean_size_H[self.stratum_N]
        return means_HQ, relative_size_N[:, None] * (values_NQ - means_HQ[self.stratum_N])

    def _add_variances(self, deviations_NQ: np.ndarray) -> np.ndarray:
        """Return the variance of the sum over strata of area times mean, (Q,), in m4."""
        squares_HQ = np.zeros((len(self.strata), deviations_NQ.shape[1]))
        np.add.at(squares_HQ, self.stratum_N, deviations_NQ**2)
        points_H, pixels_H = self.points_H, np.maximum(self.strata.pixels_H, 1)
        # A stratum of one pixel, or one that is sampled whole, adds nothing.
        spread_HQ = squares_HQ / np.maximum(points_H - 1, 1)[:, None]
        left_H = 1 - points_H / pixels_H
        factor_H = self.strata.area_m2_H**2 * left_H / np.maximum(points_H, 1)
        return factor_H @ spread_HQ


@dataclass(frozen=True)
class AccuracyReport:
    """A map against reference labels: K classes, each with its accuracy and its area."""

    classes: tuple[str, ...]
    """What the classes are called."""
    counts_KK: np.ndarray
    """Points: rows mapped, columns reference."""
    shares_KK: np.ndarray
    """The error matrix as estimated shares of the area; sums to 1."""
    overall: Estimate
    """Share of the area that is mapped right."""
    user: list[Estimate]
    """Of what is mapped as the class, which share is; 1 - commission error."""
    producer: list[Estimate]
    """Of what is the class, which share is mapped as it; 1 - omission error."""
    area_m2: list[Estimate]
    """Area of the class, from the reference labels."""
    mapped_area_m2: np.ndarray
    """Area of the class on the map: what counting pixels gives."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; areas in hectares."""
        rows = zip(
            self.classes,
            self.counts_KK.sum(axis=0).tolist(),
            self.mapped_area_m2.tolist(),
            self.area_m2,
            self.user,
            self.producer,
            strict=True,
        )
        return {
            "overall_accuracy": self.overall.to_dict(top=1),
            "classes": [
                {
                    "class": name,
                    "points": points,
                    "mapped_ha": mapped_m2 / M2_PER_HECTARE,
                    "area_ha": area.to_dict(1 / M2_PER_HECTARE),
                    "users_accuracy": user.to_dict(top=1),
                    "producers_accuracy": producer.to_dict(top=1),
                }
                for name, points, mapped_m2, area, user, producer in rows
            ],
            "error_matrix": {
                "rows": "map",
                "columns": "reference",
                "classes": list(self.classes),
                "points": self.counts_KK.tolist(),
                "area_shares": self.shares_KK.tolist(),
            },
        }


def report_accuracy(
    sample: StratifiedSample,
    mapped_N: np.ndarray,
    reference_N: np.ndarray,
    classes: Sequence[str],
    mapped_area_m2_K: np.ndarray,
) -> AccuracyReport:
    """Estimate accuracies and areas of the classes of a map.

    Args:
        sample: Where the points come from; its strata need not be the classes.
        mapped_N: Index of each point's class on the map, (N,) int.
        reference_N: Index of its class by the reference label.
        classes: What the K classes are called.
        mapped_area_m2_K: Area of each on the whole map.
    """
    count = len(classes)
    mapped_NK, reference_NK = np.eye(count)[mapped_N], np.eye(count)[reference_N]
    both_NK = mapped_NK * reference_NK
    cells_NQ = (mapped_NK[:, :, None] * reference_NK[:, None, :]).reshape(-1, count**2)
    shares = [share.value for share in sample.estimate_shares(cells_NQ)]
    return AccuracyReport(
        classes=tuple(classes),
        counts_KK=cells_NQ.sum(axis=0).astype(np.int64).reshape(count, count),
        shares_KK=np.reshape(shares, (count, count)),
        overall=sample.estimate_shares(both_NK.sum(axis=1, keepdims=True))[0],
        user=sample.estimate_ratios(both_NK, mapped_NK),
        producer=sample.estimate_ratios(both_NK, reference_NK),
        area_m2=sample.estimate_areas(reference_NK),
        mapped_area_m2=mapped_area_m2_K,
    )


def _pair(values_Q: np.ndarray, errors_Q: np.ndarray) -> list[Estimate]:
    return [Estimate(float(v), float(e)) for v, e in zip(values_Q, errors_Q, strict=True)]
