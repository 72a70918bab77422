"""Statistics over runs of several seeds: means, and paired differences.

A run's number depends on its seed. Runs with the same seed, data and recipe, except for the tested
option, start from the same weights and see the same crops, so their difference varies less than
either number. The test uses that difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from terradelta.errors import ArgumentError
from terradelta.evaluation.bootstrap import LEVEL, Difference, Interval


@dataclass(frozen=True)
class SeedSummary:
    """A number over the seeds of one recipe."""

    mean: float
    standard_deviation: float
    """Standard deviation between seeds; nan for one seed."""
    interval: Interval
    """Interval of the mean, by Student's t; nan for one seed."""
    seeds: int


def summarize_seeds(values: Sequence[float]) -> SeedSummary:
    """Return mean, spread and the mean's 95 % interval over seeds.

    Raises:
        ArgumentError: If there are no values.
    """
    if not values:
        raise ArgumentError("there is no run to summarize", fix="give one or more")
    number = len(values)
    mean = float(np.mean(values))
    if number == 1:
        return SeedSummary(mean, math.nan, Interval(math.nan, math.nan), 1)
    deviation = float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, number - 1)) * deviation / math.sqrt(number)
    return SeedSummary(mean, deviation, Interval(mean - reach, mean + reach), number)


def compare_seeds(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the mean difference of paired runs, with the t interval and the p-value of its test.

    With one pair, only the difference is defined.

    Args:
        values: A number of the runs, by seed.
        others: The same of the other runs, in the same order of seeds.

    Raises:
        ArgumentError: If their numbers differ.
    """
    if len(values) != len(others):
        raise ArgumentError(
            f"{len(values)} runs cannot be paired with {len(others)}",
            fix="give the same number of both, with the same seeds in the same order",
        )
    differences = np.subtract(values, others)
    summary = summarize_seeds(list(differences))
    p_value = math.nan
    if len(differences) > 1:
        # Equal runs differ by 0, which the test cannot divide by.
        same = summary.standard_deviation == 0
        p_value = float(summary.mean == 0) if same else float(stats.ttest_rel(values, others)[1])
    return Difference(summary.mean, summary.interval, p_value)
