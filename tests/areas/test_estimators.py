"""Estimates against published examples, slow formulas point by point, and a bootstrap."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terradelta.areas.estimators import (
    Estimate,
    Strata,
    StratifiedSample,
    report_accuracy,
)
from terradelta.errors import DataError
from terradelta.prediction.estimates import AreaEstimate, NetEstimate

OLOFSSON_CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
OLOFSSON_PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
OLOFSSON_COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
LANDSAT_PIXEL_M2 = 900.0


def report_counts(counts_KK, pixels_K, pixel_m2, classes, pixels_per_pixel=1):
    """Accuracy from an error matrix of a map whose classes are the strata."""
    mapped_N, reference_N = (
        np.repeat(index.ravel(), counts_KK.ravel()) for index in np.indices(counts_KK.shape)
    )
    area_m2_K = pixels_K * pixel_m2
    strata = Strata(tuple(classes), pixels_K * pixels_per_pixel, area_m2_K)
    sample = StratifiedSample(strata, mapped_N)
    return report_accuracy(sample, mapped_N, reference_N, classes, area_m2_K)


@pytest.fixture(scope="module")
def olofsson():
    # Of pixels so small that the finite population correction, which the paper leaves out, is 1.
    return report_counts(
        OLOFSSON_COUNTS, OLOFSSON_PIXELS, LANDSAT_PIXEL_M2, OLOFSSON_CLASSES, 10**9
    )


def test_olofsson_2014_areas_and_their_intervals(olofsson):
    areas_ha = [round(area.value / 10_000) for area in olofsson.area_m2]
    half_widths_ha = [round(area.half_width / 10_000) for area in olofsson.area_m2]
    # Section 5.2: deforestation 21,158 ± 6,158 ha, forest gain 11,686 ± 3,756 ha, and so on.
    assert areas_ha == [21_158, 11_686, 285_770, 581_386]
    assert half_widths_ha == [6_158, 3_756, 15_510, 16_282]


def test_olofsson_2014_accuracies(olofsson):
    assert round(olofsson.overall.value, 3) == 0.947
    assert round(olofsson.overall.half_width, 3) == 0.018
    user = [(round(u.value, 2), round(u.half_width, 2)) for u in olofsson.user]
    assert user == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    producer = [(round(p.value, 2), round(p.half_width, 2)) for p in olofsson.producer]
    # The paper prints 0.23 and 0.01 for the second and fourth; its equation 7 gives these.
    assert producer == [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]
    # Table 9.
    assert olofsson.shares_KK.round(4)[0].tolist() == [0.0176, 0, 0.0013, 0.0011]
    assert olofsson.shares_KK[:, 3].sum() == pytest.approx(581_386 / 900_000, abs=1e-6)


def test_pixels_that_are_counted_give_another_area_than_the_estimate(olofsson):
    assert olofsson.mapped_area_m2[0] / 10_000 == 18_000


def test_the_finite_population_correction_narrows_intervals_by_the_share_that_was_seen(olofsson):
    real = report_counts(OLOFSSON_COUNTS, OLOFSSON_PIXELS, LANDSAT_PIXEL_M2, OLOFSSON_CLASSES)
    for seen, infinite in zip(real.area_m2, olofsson.area_m2, strict=True):
        assert seen.value == infinite.value
        assert 0.999 < seen.standard_error / infinite.standard_error < 1


def test_stehman_2014_where_strata_are_not_the_maps_classes():
    stratum_N = index("A" * 10 + "B" * 10 + "C" * 10 + "D" * 10)
    mapped_N = index("AAAAAAABBB" + "A" + "B" * 11 + "CCCCCC" + "BB" + "D" * 10)
    reference_N = index("AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB")
    pixels_H = np.array([40_000, 30_000, 20_000, 10_000])
    sample = StratifiedSample(Strata(tuple("ABCD"), pixels_H, pixels_H / 1e5), stratum_N)
    report = report_accuracy(sample, mapped_N, reference_N, "ABCD", np.ones(4))
    # Pages 4932 to 4936.
    assert report.area_m2[0].value == pytest.approx(0.35)
    assert report.area_m2[2].value == pytest.approx(0.20)
    assert report.overall.value == pytest.approx(0.63)
    assert report.shares_KK[1, 2] == pytest.approx(0.08)
    assert round(report.user[1].value, 3) == 0.574
    assert round(report.producer[1].value, 3) == 0.794
    assert round(report.area_m2[0].standard_error, 3) == 0.082
    assert round(report.area_m2[2].standard_error, 3) == 0.064
    assert round(report.overall.standard_error, 3) == 0.085
    assert round(report.user[1].standard_error, 3) == 0.125
    assert round(report.producer[1].standard_error, 3) == 0.117


def index(letters):
    return np.array(["ABCD".index(letter) for letter in letters])


@st.composite
def draw_samples(draw):
    """Strata, classes on the map and by reference of a few dozen points, equal pixels."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    strata, classes = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    points_H = random.integers(2, 12, strata)
    pixels_H = points_H + random.integers(0, 300, strata)
    stratum_N = np.repeat(np.arange(strata), points_H)
    mapped_N, reference_N = random.integers(0, classes, (2, len(stratum_N)))
    return pixels_H, stratum_N, mapped_N, reference_N, classes


@settings(max_examples=60, deadline=None)
@given(draw_samples())
def test_every_estimate_is_stehmans_formula_point_by_point(drawn):
    pixels_H, stratum_N, mapped_N, reference_N, classes = drawn
    strata = Strata(tuple(map(str, range(len(pixels_H)))), pixels_H, pixels_H * 30.0)
    sample = StratifiedSample(strata, stratum_N)
    report = report_accuracy(
        sample, mapped_N, reference_N, tuple(map(str, range(classes))), np.ones(classes)
    )

    def check(estimate, expected, factor=1.0):
        value, error = (estimate.value, estimate.standard_error)
        if not math.isnan(value):
            slack = 1e-9 * factor
            assert -slack <= estimate.low <= value + slack
            assert value - slack <= estimate.high <= factor + slack
        assert value == pytest.approx(expected[0] * factor, nan_ok=True)
        assert error == pytest.approx(expected[1] * factor, abs=1e-9, nan_ok=True)

    whole_m2 = strata.area_m2_H.sum()
    right_N = [float(m == r) for m, r in zip(mapped_N, reference_N, strict=True)]
    check(report.overall, estimate_mean(pixels_H, stratum_N, right_N))
    for k in range(classes):
        is_class_N = [float(r == k) for r in reference_N]
        is_mapped_N = [float(m == k) for m in mapped_N]
        both_N = [a * b for a, b in zip(is_class_N, is_mapped_N, strict=True)]
        check(report.area_m2[k], estimate_mean(pixels_H, stratum_N, is_class_N), whole_m2)
        check(report.user[k], estimate_ratio(pixels_H, stratum_N, both_N, is_mapped_N))
        check(report.producer[k], estimate_ratio(pixels_H, stratum_N, both_N, is_class_N))
    for i, j in itertools.product(range(classes), repeat=2):
        cell_N = [float((m, r) == (i, j)) for m, r in zip(mapped_N, reference_N, strict=True)]
        assert report.shares_KK[i, j] == pytest.approx(
            estimate_mean(pixels_H, stratum_N, cell_N)[0]
        )


def estimate_mean(pixels_H, stratum_N, y_N):
    """Stehman (2014), equations 2 and 25, in plain loops."""
    whole = sum(int(pixels) for pixels in pixels_H)
    total = variance = 0.0
    for h, pixels in enumerate(map(int, pixels_H)):
        values = [y for s, y in zip(stratum_N, y_N, strict=True) if s == h]
        n = len(values)
        # Each point stands for the pixels of its stratum over the points of its stratum.
        total += sum(value / (n / pixels) for value in values)
        mean = sum(values) / n
        spread = sum((value - mean) ** 2 for value in values) / (n - 1)
        variance += pixels**2 * (1 - n / pixels) * spread / n
    return total / whole, math.sqrt(variance) / whole


def estimate_ratio(pixels_H, stratum_N, y_N, x_N):
    """Stehman (2014), equations 27 and 28: variances and covariance, one by one."""
    y_total = estimate_mean(pixels_H, stratum_N, y_N)[0]
    x_total = estimate_mean(pixels_H, stratum_N, x_N)[0]
    if x_total == 0:
        return math.nan, math.nan
    ratio, whole = y_total / x_total, sum(int(pixels) for pixels in pixels_H)
    variance = 0.0
    for h, pixels in enumerate(map(int, pixels_H)):
        pairs = [(y, x) for s, y, x in zip(stratum_N, y_N, x_N, strict=True) if s == h]
        n = len(pairs)
        y_mean, x_mean = (sum(pair[i] for pair in pairs) / n for i in (0, 1))
        y_spread = sum((y - y_mean) ** 2 for y, _ in pairs) / (n - 1)
        x_spread = sum((x - x_mean) ** 2 for _, x in pairs) / (n - 1)
        both = sum((y - y_mean) * (x - x_mean) for y, x in pairs) / (n - 1)
        spread = y_spread + ratio**2 * x_spread - 2 * ratio * both
        variance += pixels**2 * (1 - n / pixels) * spread / n
    return ratio, math.sqrt(max(variance, 0)) / (x_total * whole)


def test_olofssons_formulas_are_the_case_where_strata_are_classes():
    """Equations 5 to 7 and 9 to 10, as the paper writes them, on another matrix."""
    counts_KK = np.array([[40, 7, 3], [5, 60, 10], [2, 4, 119]])
    pixels_K = np.array([10_000, 50_000, 400_000])
    report = report_counts(counts_KK, pixels_K, 1.0, ("a", "b", "c"), 10**9)
    weights = pixels_K / pixels_K.sum()
    rows = counts_KK.sum(axis=1)
    user = np.diag(counts_KK) / rows
    overall = sum(w * n / r for w, n, r in zip(weights, np.diag(counts_KK), rows, strict=True))
    variance = sum(weights**2 * user * (1 - user) / (rows - 1))
    assert report.overall[:2] == pytest.approx((overall, math.sqrt(variance)))
    assert [u.standard_error for u in report.user] == pytest.approx(
        np.sqrt(user * (1 - user) / (rows - 1)).tolist()
    )
    for j in range(3):
        shares = counts_KK[:, j] / rows
        area_error = math.sqrt(sum(weights**2 * shares * (1 - shares) / (rows - 1)))
        assert report.area_m2[j].standard_error == pytest.approx(area_error * pixels_K.sum())
        column = sum(pixels_K * shares)
        producer = pixels_K[j] * shares[j] / column
        others = [i for i in range(3) if i != j]
        commission = (
            pixels_K[j] ** 2 * (1 - producer) ** 2 * user[j] * (1 - user[j]) / (rows[j] - 1)
        )
        omission = producer**2 * sum(
            pixels_K[i] ** 2 * shares[i] * (1 - shares[i]) / (rows[i] - 1) for i in others
        )
        error = math.sqrt((commission + omission) / column**2)
        assert report.producer[j][:2] == pytest.approx((producer, error))


@pytest.fixture
def uneven():
    """Points of pixels of very different size, and what each is."""
    random = np.random.default_rng(5)
    points_H, pixels_H = np.array([150, 90, 60]), np.array([9_000, 2_000, 600])
    stratum_N = np.repeat(np.arange(3), points_H)
    size_N = random.uniform(0.3, 2.0, len(stratum_N))
    reference_N = (random.random(len(stratum_N)) < np.array([0.1, 0.5, 0.8])[stratum_N]).astype(int)
    strata = Strata(tuple("abc"), pixels_H, pixels_H * np.array([1.1, 1.2, 1.15]))
    return strata, stratum_N, size_N, reference_N


def test_areas_add_up_to_the_known_one_however_uneven_pixels_are(uneven):
    strata, stratum_N, size_N, reference_N = uneven
    sample = StratifiedSample(strata, stratum_N, size_N)
    areas = sample.estimate_areas(np.eye(2)[reference_N])
    assert sum(area.value for area in areas) == pytest.approx(strata.area_m2_H.sum())
    assert areas[0].standard_error == pytest.approx(areas[1].standard_error)


def test_a_bootstrap_of_uneven_pixels_has_the_same_standard_errors(uneven):
    strata, stratum_N, size_N, reference_N = uneven
    sample = StratifiedSample(strata, stratum_N, size_N)
    area = sample.estimate_areas(np.eye(2)[reference_N])[1]
    mapped_N = (stratum_N > 0).astype(int)
    both_N = (mapped_N & reference_N)[:, None].astype(float)
    ratio = sample.estimate_ratios(both_N, reference_N[:, None].astype(float))[0]
    random = np.random.default_rng(0)
    places = [np.flatnonzero(stratum_N == h) for h in range(3)]
    areas, ratios = [], []
    for _ in range(3000):
        total = parts = 0.0
        for h, place in enumerate(places):
            again = random.choice(place, len(place))
            share = strata.area_m2_H[h] / size_N[again].sum()
            total += share * (size_N[again] * reference_N[again]).sum()
            parts += share * (size_N[again] * both_N[again, 0]).sum()
        areas.append(total)
        ratios.append(parts / total)
    # The bootstrap knows no finite population: a tenth of the last stratum was seen.
    assert area.standard_error == pytest.approx(np.std(areas), rel=0.05)
    assert ratio.standard_error == pytest.approx(np.std(ratios), rel=0.05)


def test_whoever_sees_every_pixel_knows():
    random = np.random.default_rng(1)
    stratum_N = np.repeat([0, 1], [30, 20])
    size_N, reference_N = random.uniform(1, 3, 50), random.integers(0, 2, 50)
    area_m2_H = np.bincount(stratum_N, size_N)
    sample = StratifiedSample(Strata(("a", "b"), np.array([30, 20]), area_m2_H), stratum_N, size_N)
    area = sample.estimate_areas(reference_N[:, None].astype(float))[0]
    assert area.value == pytest.approx(size_N[reference_N == 1].sum())
    assert area.standard_error == 0


def test_one_point_of_a_stratum_is_refused_unless_it_is_all_of_it():
    sizes = np.array([1, 100])
    one, ten = Strata(("a", "b"), sizes, sizes.astype(float)), np.repeat([0, 1], [1, 10])
    assert StratifiedSample(one, ten).estimate_areas(np.ones((11, 1)))[0][:2] == (101, 0)
    with pytest.raises(DataError, match=r"stratum 'b' has 1 labelled points and 100 pixels"):
        StratifiedSample(one, np.array([0, 1]))
    with pytest.raises(DataError, match=r"stratum 'a' has 2 labelled points and 1 pixels"):
        StratifiedSample(one, np.array([0, 0, 1, 1]))


def test_a_class_that_no_point_has_is_not_known():
    sample = StratifiedSample(Strata(("a",), np.array([9]), np.array([9.0])), np.zeros(3, int))
    report = report_accuracy(sample, np.zeros(3, int), np.zeros(3, int), ("x", "y"), np.ones(2))
    assert math.isnan(report.user[1].value)
    assert report.to_legend().classes[1].area_ha.value == 0
    assert report.to_legend().classes[1].users_accuracy.value is None


def test_square_metres_are_given_as_hectares():
    """A hectare is 10,000 m2, whatever the number says of itself."""
    estimate = Estimate(25_000, 5_000, -10_000, 40_000)
    for hectares in map(estimate.to_hectares, (AreaEstimate, NetEstimate)):
        assert hectares.value == pytest.approx(2.5)
        assert hectares.standard_error == pytest.approx(0.5)
        assert hectares.interval_95_percent == pytest.approx((-1, 4))
