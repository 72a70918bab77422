"""Confidence intervals of scores and of their differences, by resampling images.

A test set samples images, not pixels, which are similar within
an image. So images are drawn with replacement, their counts are added, and the protocol's
numbers computed from the sum, as for the real set. If several images show one place, they are
less independent than that, and intervals come out too narrow.

Legend of the array names: N images, I ids of the counts, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from terradelta.errors import ArgumentError
from terradelta.evaluation.scoring_protocols import Counts, ProtocolMetric

DEFAULT_REPLICATES = 1000
LEVEL = 0.95
MAX_COUNT_BYTES = 4 << 30
CHUNK_REPLICATES = 100


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of a number; nan if it is undefined."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference of one number between two maps of the same images."""

    value: float
    """First minus second."""
    interval: Interval
    """Interval of the difference, by drawing images again."""
    p_value: float
    """How often exchanging the two maps at random image by image gives as large a difference."""


class ImageCounts:
    """The counts of a protocol image by image.

    Args:
        metric: The protocol; it keeps the sum.
        apart: Keep each image's counts too, as intervals need them.
    """

    def __init__(self, metric: ProtocolMetric, apart: bool = True):
        self.metric = metric
        self._apart = apart
        self._counts: list[Counts] = []
        self._number = 0

    def add(self, *maps: ArrayLike, valid: ArrayLike | None = None):
        """Count the next image: before and after as predicted, then as labelled, (H, W) each.

        Pixels that are not valid do not count.

        Raises:
            DataError: If maps do not fit each other or the protocol's classes.
            ArgumentError: If the counts no longer fit into memory.
        """
        counts = self.metric.count(*maps, valid=valid)
        self.metric.counts += counts
        self._number += 1
        if not self._apart:
            return
        self._counts.append(counts)
        size_bytes = counts.nbytes * len(self._counts)
        if size_bytes > MAX_COUNT_BYTES:
            raise ArgumentError(
                f"the counts of {len(self._counts)} images by {self.metric.name!r} take "
                f"{size_bytes / 2**30:.0f} GiB",
                fix="use a protocol that counts each date by itself, such as second",
            )

    def stack(self) -> np.ndarray:
        """Return the counts of each image, (N, I, I) int64: rows predicted, columns true."""
        return np.stack(self._counts)

    def __len__(self) -> int:
        return self._number


def bootstrap(
    counts: ImageCounts, replicates: int = DEFAULT_REPLICATES, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % interval of each of a protocol's numbers.

    Percentiles of the numbers of sets of N images drawn with replacement; replicates where a
    number is undefined are left out of its interval.

    Args:
        counts: Of two images or more.
        replicates: Number of sets to draw.
        seed: Seed of the drawing.

    Raises:
        ArgumentError: If there are too few images or replicates.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    weights_RN = _draw_sets(len(counts), replicates, seed)
    drawn = _score_sets(counts, weights_RN)
    point = counts.metric.compute()
    return {
        name: _span(values_R) if not math.isnan(point[name]) else Interval(math.nan, math.nan)
        for name, values_R in drawn.items()
    }


def compare(
    counts: ImageCounts,
    other: ImageCounts,
    replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return how each number of one set of maps differs from that of another, image by image.

    The interval draws the same images for both. The p-value is that of a permutation test: if the
    two were equal, exchanging their answers to an image would change nothing.

    Args:
        counts: Of two images or more.
        other: Of the same images in the same order, by the same protocol.
        replicates: Number of sets to draw, and of exchanges.
        seed: Seed of both.

    Raises:
        ArgumentError: If the two are not comparable, or there are too few images or replicates.
    """
    mine, theirs = counts.metric, other.metric
    if (mine.name, mine.num_classes, len(counts)) != (theirs.name, theirs.num_classes, len(other)):
        raise ArgumentError(
            f"{len(counts)} images by {mine.name!r} with {mine.num_classes} classes cannot be "
            f"compared with {len(other)} by {theirs.name!r} with {theirs.num_classes}",
            fix="compare maps of the same images by one protocol",
        )
    weights_RN = _draw_sets(len(counts), replicates, seed)
    drawn, drawn_other = _score_sets(counts, weights_RN), _score_sets(other, weights_RN)
    exchanged = np.random.default_rng(seed + 1).integers(0, 2, weights_RN.shape)
    kept = 1 - exchanged
    swapped = _subtract(
        _score_sets(counts, kept, other, exchanged), _score_sets(other, kept, counts, exchanged)
    )
    point = _subtract(
        *({name: np.asarray(v) for name, v in c.metric.compute().items()} for c in (counts, other))
    )
    spans = _subtract(drawn, drawn_other)
    differences = {}
    for name, value in point.items():
        value = float(value)
        undefined = math.isnan(value)
        span = Interval(math.nan, math.nan) if undefined else _span(spans[name])
        # A difference that is smaller only by rounding counts as equal.
        as_large = int((np.abs(swapped[name]) >= abs(value) - 1e-12).sum())
        p_value = math.nan if undefined else (1 + as_large) / (1 + replicates)
        differences[name] = Difference(value, span, p_value)
    return differences


def _subtract(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: first[name] - second[name] for name in first}


def _draw_sets(images: int, replicates: int, seed: int) -> np.ndarray:
    """Return the number of times that each set holds each image, (R, N) int64."""
    if images < 2:
        raise ArgumentError(
            f"{images} image is too few to draw from", fix="score two images or more"
        )
    if replicates < 100:
        raise ArgumentError(
            f"{replicates} replicates do not reach the ends of a 95 % interval",
            fix=f"use 100 or more; {DEFAULT_REPLICATES} is usual",
        )
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), replicates)


def _score_sets(
    counts: ImageCounts,
    weights_RN: np.ndarray,
    other: ImageCounts | None = None,
    other_weights_RN: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return each number of weighted sums of images, and of those of a second set."""
    parts = [(counts.stack(), weights_RN)]
    if other is not None and other_weights_RN is not None:
        parts.append((other.stack(), other_weights_RN))
    rows: list[dict[str, float]] = []
    for start in range(0, len(weights_RN), CHUNK_REPLICATES):
        sums_RII = sum(
            np.tensordot(weights[start : start + CHUNK_REPLICATES], counts_NII, axes=1)
            for counts_NII, weights in parts
        )
        rows += _score_each(counts.metric.score, np.asarray(sums_RII))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _score_each(
    score: Callable[[Counts], dict[str, float]], sums_RII: np.ndarray
) -> list[dict[str, float]]:
    return [score(sum_II) for sum_II in sums_RII]


def _span(values_R: np.ndarray) -> Interval:
    defined = values_R[~np.isnan(values_R)]
    if not defined.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
