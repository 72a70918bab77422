import math

import numpy as np
import pytest
from scipy import stats

from terradelta.errors import ArgumentError
from terradelta.evaluation.seeds import compare_seeds, summarize_seeds


def test_differences_have_the_interval_and_p_value_of_the_paired_t_test():
    random = np.random.default_rng(0)
    values = random.normal(0.5, 0.1, 5)
    others = values - random.normal(0.02, 0.02, 5)
    found = compare_seeds(list(values), list(others))
    expected = stats.ttest_rel(values, others)
    span = expected.confidence_interval(0.95)
    assert found.value == pytest.approx((values - others).mean())
    assert (found.interval.low, found.interval.high) == pytest.approx((span.low, span.high))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_one_seed_has_a_mean_and_no_spread():
    summary = summarize_seeds([0.4])
    assert (summary.mean, summary.seeds) == (0.4, 1)
    assert math.isnan(summary.standard_deviation)
    difference = compare_seeds([0.4], [0.3])
    assert difference.value == pytest.approx(0.1)
    assert math.isnan(difference.p_value)


def test_equal_runs_do_not_differ():
    difference = compare_seeds([0.4, 0.5], [0.4, 0.5])
    assert (difference.value, difference.interval.low, difference.p_value) == (0, 0, 1)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ArgumentError, match="2 runs cannot be paired with 1"):
        compare_seeds([1, 2], [1])
    with pytest.raises(ArgumentError, match="no run"):
        summarize_seeds([])
