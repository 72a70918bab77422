import math
import sys

import numpy as np
import pytest
from scipy import stats

from terradelta.errors import ArgumentError
from terradelta.evaluation.bootstrap import ImageCounts, bootstrap, compare
from terradelta.evaluation.scoring_protocols import create_protocol

SIZE_PX = 24


def draw_maps(random, noise):
    """Truth of both dates and a noisy prediction, noisier in some images than in others."""
    change_HW = np.kron(random.random((4, 4)) < 0.4, np.ones((6, 6), bool))
    true = [np.kron(random.integers(1, 4, (4, 4)), np.ones((6, 6), int)) * change_HW for _ in "ab"]
    flip_HW = random.random((SIZE_PX, SIZE_PX)) < noise * 2 * random.random()
    predicted = [np.where(flip_HW, random.integers(0, 4, flip_HW.shape), m) for m in true]
    return [m.astype(np.uint8) for m in (*predicted, *true)]


def draw_counts(protocol, images, noise, seed):
    random = np.random.default_rng(seed)
    counts = ImageCounts(create_protocol(protocol, 3))
    maps = [draw_maps(random, noise) for _ in range(images)]
    for layers in maps:
        counts.add(*layers)
    return counts, maps


@pytest.mark.parametrize("protocol", ["second", "from-to", "ual"])
def test_intervals_are_those_of_scoring_sets_of_images_drawn_again(protocol):
    counts, maps = draw_counts(protocol, 7, 0.3, seed=1)
    intervals = bootstrap(counts, 120, seed=3)
    drawn = np.random.default_rng(3).multinomial(7, [1 / 7] * 7, 120)
    rows = []
    for times_N in drawn:
        metric = create_protocol(protocol, 3)
        for times, layers in zip(times_N, maps, strict=True):
            for _ in range(times):
                metric.update(*layers)
        rows.append(metric.compute())
    for name, interval in intervals.items():
        low, high = np.nanquantile([row[name] for row in rows], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high))


def accuracies(counts):
    """Share of right pixels of each image; images of one size, so their mean is the set's."""
    stack_NII = counts.stack()
    return np.trace(stack_NII, axis1=1, axis2=2) / stack_NII.sum(axis=(1, 2))


def test_a_mean_over_images_has_scipys_interval_and_permutation_test():
    counts, _ = draw_counts("second", 9, 0.3, seed=1)
    other, _ = draw_counts("second", 9, 0.4, seed=1)
    found = bootstrap(counts, 4000)["overall_accuracy"]
    expected = stats.bootstrap(
        (accuracies(counts),), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx(expected, abs=0.05 * width)
    difference = compare(counts, other, 4000)["overall_accuracy"]
    exact = stats.permutation_test(
        (accuracies(counts), accuracies(other)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert difference.value == pytest.approx(exact.statistic)
    assert difference.p_value == pytest.approx(exact.pvalue, abs=0.02)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    population, _ = draw_counts("second", 600, 0.3, seed=8)
    stack_NII = population.stack()
    true = population.metric.compute()
    random = np.random.default_rng(0)
    hits = dict.fromkeys(("miou", "sek", "fscd"), 0)
    for trial in range(150):
        sample = ImageCounts(create_protocol("second", 3))
        sample._counts = list(stack_NII[random.integers(0, 600, 40)])
        sample.metric.counts = sum(sample._counts)
        sample._number = 40
        intervals = bootstrap(sample, 200, seed=trial)
        for name in hits:
            hits[name] += intervals[name].low <= true[name] <= intervals[name].high
    assert all(0.87 <= number / 150 <= 1 for number in hits.values()), hits


def test_a_map_does_not_differ_from_itself():
    counts, _ = draw_counts("second", 5, 0.3, seed=1)
    for difference in compare(counts, counts, 100).values():
        assert difference.value == difference.interval.low == difference.interval.high == 0
        assert difference.p_value == 1


def test_a_better_map_is_recognised_and_swapping_turns_the_sign():
    good, _ = draw_counts("from-to", 30, 0.1, seed=4)
    bad, _ = draw_counts("from-to", 30, 0.4, seed=4)
    forth, back = compare(good, bad, 300)["sek"], compare(bad, good, 300)["sek"]
    assert forth.value > 0
    assert forth.interval.low > 0
    assert forth.p_value == pytest.approx(1 / 301)
    assert back.value == -forth.value
    assert (back.interval.low, back.interval.high) == pytest.approx(
        (-forth.interval.high, -forth.interval.low)
    )


def test_maps_that_are_alike_seldom_look_different():
    """The p-value of two maps of equal quality is below 0.1 in about a tenth of the cases."""
    low = 0
    for trial in range(150):
        first, _ = draw_counts("second", 12, 0.3, seed=2 * trial)
        second = ImageCounts(create_protocol("second", 3))
        random = np.random.default_rng(trial)
        for maps in draw_counts("second", 12, 0.3, seed=2 * trial)[1]:
            flip_HW = random.random((SIZE_PX, SIZE_PX)) < 0.6 * random.random()
            noisy = [np.where(flip_HW, random.integers(0, 4, flip_HW.shape), m) for m in maps[2:]]
            second.add(*noisy, *maps[2:])
        low += compare(first, second, 100, seed=trial)["miou"].p_value < 0.1
    assert 4 <= low <= 27


def test_what_is_undefined_has_no_interval():
    counts = ImageCounts(create_protocol("second", 3))
    nothing_HW = np.zeros((4, 4), np.uint8)
    for _ in range(3):
        counts.add(nothing_HW, nothing_HW, nothing_HW, nothing_HW)
    assert math.isnan(bootstrap(counts, 100)["fscd"].low)
    assert math.isnan(compare(counts, counts, 100)["fscd"].p_value)


@pytest.mark.parametrize(
    ("images", "replicates", "message"), [(1, 100, "1 image is too few"), (3, 99, "99 repl")]
)
def test_too_few_images_or_replicates_are_refused(images, replicates, message):
    counts, _ = draw_counts("second", images, 0.3, seed=1)
    with pytest.raises(ArgumentError, match=message):
        bootstrap(counts, replicates)


def test_other_images_or_protocols_are_not_compared():
    counts, _ = draw_counts("second", 4, 0.3, seed=1)
    for protocol, images in (("ual", 4), ("second", 5)):
        with pytest.raises(ArgumentError, match="cannot be compared"):
            compare(counts, draw_counts(protocol, images, 0.3, seed=1)[0], 100)


def test_counts_that_are_not_kept_apart_take_no_memory(monkeypatch):
    # By name it would be looked for in the function td.evaluate.
    monkeypatch.setattr(sys.modules[ImageCounts.__module__], "MAX_COUNT_BYTES", 500)
    random = np.random.default_rng(0)
    whole = ImageCounts(create_protocol("second", 3), apart=False)
    apart = ImageCounts(create_protocol("second", 3))
    for _ in range(10):
        whole.add(*draw_maps(random, 0.2))
    assert len(whole) == 10
    with pytest.raises(ArgumentError, match="4 images by"):
        for _ in range(10):
            apart.add(*draw_maps(random, 0.2))
