"""Estimates from a stratified random sample: areas, shares and accuracies with standard errors.

All are functions of stratum means, for any strata: if they are the map's classes, these
are the formulas of Olofsson et al. (2014), otherwise those of Stehman (2014).

Pixels are drawn with equal probability within a stratum, and need not be equally large (those of a
geographic grid shrink towards the poles). Therefore a stratum's mean is weighted by the ground area
of the points' pixels and multiplied by the stratum's area, which is known from the map: the
separate ratio estimator (Cochran 1977, section 6.10), whose areas add up to the map's. With equal
pixels it is the usual one.

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
from typing import NamedTuple, TypeVar

import numpy as np

from terradelta.areas.design import IntervalKind
from terradelta.areas.intervals import (
    Z_95,
    StratumMeans,
    find_logit_intervals,
    find_wald_intervals,
)
from terradelta.errors import DataError
from terradelta.inference.transitions import M2_PER_HECTARE
from terradelta.prediction.estimates import (
    AreaEstimate,
    ErrorMatrix,
    EstimatedClass,
    Legend,
    NetEstimate,
    ShareEstimate,
)

Hectares = TypeVar("Hectares", AreaEstimate, NetEstimate)


class Estimate(NamedTuple):
    """An estimate and its uncertainty from the random drawing of the points."""

    value: float
    """nan if the sample cannot give it."""
    standard_error: float
    """nan if `value` is nan."""
    low: float
    """Lower end of the 95 % interval; nan if `value` is nan."""
    high: float
    """Upper end of the 95 % interval."""

    @property
    def half_width(self) -> float:
        """The number after ± in papers."""
        return Z_95 * self.standard_error

    def scale(self, factor: float) -> Estimate:
        """Return it in another unit."""
        return Estimate(*(number * factor for number in self))

    def to_share(self) -> ShareEstimate:
        """Return it as a share; None if unknown."""
        value, standard_error, low, high = (
            number if math.isfinite(number) else None for number in self
        )
        return ShareEstimate(
            value=value, standard_error=standard_error, interval_95_percent=(low, high)
        )

    def to_hectares(self, kind: type[Hectares]) -> Hectares:
        """Return square metres as a record of hectares."""
        area = self.scale(1 / M2_PER_HECTARE)
        return kind(
            value=area.value,
            standard_error=area.standard_error,
            interval_95_percent=(area.low, area.high),
        )


@dataclass(frozen=True)
class Strata:
    """The population, divided into parts before points were drawn."""

    names: tuple[str, ...]
    """Name of each."""
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
        interval: How 95 % intervals are found.

    Raises:
        DataError: If a stratum holds pixels and has fewer than two points, too few to estimate a
            spread, or more points than pixels.
    """

    def __init__(
        self,
        strata: Strata,
        stratum_N: np.ndarray,
        area_m2_N: np.ndarray | None = None,
        interval: IntervalKind = "logit",
    ):
        self.strata = strata
        self.interval: IntervalKind = interval
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

    def estimate_areas(self, values_NQ: np.ndarray, least: float = 0.0) -> list[Estimate]:
        """Return the area in m2 that has each of Q properties.

        Args:
            values_NQ: 1 where a point has the property, else 0; or anything from `least` to 1.
            least: Smallest possible value.
        """
        total_m2 = float(self.strata.area_m2_H.sum())
        return [share.scale(total_m2) for share in self.estimate_shares(values_NQ, least)]

    def estimate_shares(self, values_NQ: np.ndarray, least: float = 0.0) -> list[Estimate]:
        """Return the share of the whole area that has each of Q properties.

        Source: Stehman (2014), equations 3 and 25 and their special case Olofsson et al. (2014),
        equations 9 to 11.
        """
        means_HQ, deviations_NQ = self._centre(values_NQ)
        whole_HQ = np.ones(means_HQ.shape)
        return self._estimate(self.strata.weights @ means_HQ, deviations_NQ, whole_HQ, least)

    def estimate_ratios(self, parts_NQ: np.ndarray, wholes_NQ: np.ndarray) -> list[Estimate]:
        """Return the share of the area with one property that also has another, Q times.

        nan if no point has the first.

        Args:
            parts_NQ: 1 where a point has both properties.
            wholes_NQ: 1 where it has the first.

        Source: Stehman (2014), equations 27 and 28; Olofsson et al. (2014), equations 6 and 7, are
        the special case.
        """
        weights_H, wholes_HQ = self.strata.weights, self._centre(wholes_NQ)[0]
        wholes_Q = weights_H @ wholes_HQ
        with np.errstate(invalid="ignore"):
            ratios_Q = (weights_H @ self._centre(parts_NQ)[0]) / wholes_Q
            residuals_NQ = self._centre(parts_NQ - ratios_Q * wholes_NQ)[1] / wholes_Q
            return self._estimate(ratios_Q, residuals_NQ, (wholes_HQ > 0) / wholes_Q)

    def _estimate(
        self,
        values_Q: np.ndarray,
        deviations_NQ: np.ndarray,
        scale_HQ: np.ndarray,
        least: float = 0.0,
    ) -> list[Estimate]:
        """Return estimates of shares with their intervals.

        Args:
            values_Q: The shares.
            deviations_NQ: Contribution of each point to its stratum's mean.
            scale_HQ: Factor from a stratum's weight to its share of the area that the
                shares refer to; 0 if none of its points count.
            least: Smallest possible share.
        """
        # A stratum of one pixel, or one that is sampled whole, adds nothing.
        unseen_H = 1 - self.points_H / np.maximum(self.strata.pixels_H, 1)
        weights_H = self.strata.weights / np.maximum(self.points_H, 1)
        parts = StratumMeans(
            deviations_NQ, self.stratum_N, self.points_H, self.strata.weights, unseen_H
        )
        errors_Q = np.sqrt(parts.variance_Q)
        # The largest share that a single point represents.
        heaviest_Q = np.max((weights_H * unseen_H)[:, None] * scale_HQ, axis=0)
        find = {"logit": find_logit_intervals, "wald": find_wald_intervals}[self.interval]
        low_Q, high_Q = find(values_Q, parts, heaviest_Q, least)
        rows = np.stack([values_Q, errors_Q, low_Q, high_Q], axis=1)
        return [Estimate(*map(float, row)) for row in rows]

    def _centre(self, values_NQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return stratum means weighted by pixel area, and each point's deviation from its mean."""
        means_HQ = np.zeros((len(self.strata), values_NQ.shape[1]))
        np.add.at(means_HQ, self.stratum_N, values_NQ * self._size_N[:, None])
        filled_H = self.points_H > 0
        means_HQ[filled_H] /= (self.points_H * self._mean_size_H)[filled_H, None]
        relative_size_N = self._size_N / self._mean_size_H[self.stratum_N]
        return means_HQ, relative_size_N[:, None] * (values_NQ - means_HQ[self.stratum_N])


@dataclass(frozen=True)
class AccuracyReport:
    """A map against reference labels: K classes, each with its accuracy and its area."""

    classes: tuple[str, ...]
    """Names of the classes."""
    counts_KK: np.ndarray
    """Points: rows mapped, columns reference."""
    shares_KK: np.ndarray
    """The error matrix as estimated shares of the area; sums to 1."""
    overall: Estimate
    """Share of the area that is mapped right."""
    user: list[Estimate]
    """Share of the area mapped as the class that is the class; 1 - commission error."""
    producer: list[Estimate]
    """Share of the area of the class that is mapped as it; 1 - omission error."""
    area_m2: list[Estimate]
    """Area of the class, from the reference labels."""
    mapped_area_m2: np.ndarray
    """Area of the class on the map, from counting pixels."""

    def to_legend(self) -> Legend:
        """Return its part of area_estimates.json, with areas in hectares."""
        rows = zip(
            self.classes,
            self.counts_KK.sum(axis=0).tolist(),
            self.mapped_area_m2.tolist(),
            self.area_m2,
            self.user,
            self.producer,
            strict=True,
        )
        return Legend(
            self.overall.to_share(),
            tuple(
                EstimatedClass(
                    name=name,
                    points=points,
                    mapped_ha=mapped_m2 / M2_PER_HECTARE,
                    area_ha=area.to_hectares(AreaEstimate),
                    users_accuracy=user.to_share(),
                    producers_accuracy=producer.to_share(),
                )
                for name, points, mapped_m2, area, user, producer in rows
            ),
            ErrorMatrix(
                "map",
                "reference",
                self.classes,
                tuple(map(tuple, self.counts_KK.tolist())),
                tuple(map(tuple, self.shares_KK.tolist())),
            ),
        )


def report_accuracy(
    sample: StratifiedSample,
    mapped_N: np.ndarray,
    reference_N: np.ndarray,
    classes: Sequence[str],
    mapped_area_m2_K: np.ndarray,
) -> AccuracyReport:
    """Estimate accuracies and areas of the classes of a map.

    Args:
        sample: The drawn points; its strata need not be the classes.
        mapped_N: Index of each point's class on the map, (N,) int.
        reference_N: Index of its class by the reference label.
        classes: Names of the K classes.
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
