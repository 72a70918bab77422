"""How often 95 % intervals hold the truth: 2,000 samples of drawn maps with known errors."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from terradelta.areas import map_census as census_module
from terradelta.areas.design import SampleDesign
from terradelta.areas.estimators import Strata, StratifiedSample, report_accuracy
from terradelta.areas.intervals import StratumMeans
from terradelta.areas.map_census import ChangeMap, draw_pixels, take_census
from terradelta.areas.sampling import allocate
from terradelta.areas.stratification import stratify
from terradelta.classes import SENSEEARTH
from terradelta.geo.area import measure_pixels
from tests.areas.maps import (
    DEGREES,
    FREQUENT,
    RARE,
    SECOND,
    UTM,
    draw_map,
    draw_truth,
    write_prediction,
)

REPLICATES = 2000
TRANSITIONS = np.array([0, FREQUENT, SECOND, RARE])
DESIGNS = {
    "proportional": (SampleDesign(points=1000, floor=2), UTM),
    "neyman": (SampleDesign(points=1000, floor=2, allocation="neyman"), UTM),
    "floor": (SampleDesign(points=1000, floor=100), UTM),
    "buffer": (SampleDesign(points=1000, floor=100, buffer_px=3), UTM),
    "pooled transitions": (SampleDesign(points=1000, stratum_share=0.4), UTM),
    "pixels of different size": (SampleDesign(points=1000, floor=100), DEGREES),
}


@pytest.mark.slow
@pytest.mark.parametrize("other_map", [False, True], ids=["the map sampled", "another map"])
@pytest.mark.parametrize("name", DESIGNS)
def test_intervals_hold_the_truth_and_estimates_are_unbiased(
    name, other_map, tmp_path, monkeypatch
):
    design, grid = DESIGNS[name]
    truth_HW = draw_truth(grid)
    map_HW = draw_map(truth_HW)
    folder = write_prediction(tmp_path / "out", map_HW, grid)
    assessed_HW = draw_map(truth_HW, seed=7) if other_map else map_HW
    with ChangeMap(folder, design.buffer_px) as change_map:
        (window,) = change_map.windows
        codes_HW, areas_m2_HW = change_map.read(window), measure_pixels(grid, window)
        # The map is small, and read 2,000 times.
        monkeypatch.setattr(change_map, "read", lambda _: codes_HW)
        monkeypatch.setattr(census_module, "measure_pixels", lambda *_: areas_m2_HW)
        census = take_census(change_map)
        stratification = stratify(census, SENSEEARTH, design)
        points_H = allocate(stratification, design)
        estimates = []
        for seed in range(REPLICATES):
            pixels = draw_pixels(change_map, census, stratification.stratum_C, points_H, seed)
            sample = StratifiedSample(stratification.strata, pixels.stratum_N, pixels.area_m2_N)
            places = pixels.row_N, pixels.column_N
            report = report_accuracy(
                sample,
                np.searchsorted(np.sort(TRANSITIONS), assessed_HW[places]),
                np.searchsorted(np.sort(TRANSITIONS), truth_HW[places]),
                "abcd",
                np.zeros(4),
            )
            estimates.append([report.overall, *report.user, *report.producer, *report.area_m2])
    values_RQ, errors_RQ, low_RQ, high_RQ = np.moveaxis(np.array(estimates), -1, 0)
    true_Q = find_truth(truth_HW, assessed_HW, areas_m2_HW)
    names = [
        "overall",
        *(f"{what} {t}" for what in ("user", "producer", "area") for t in np.sort(TRANSITIONS)),
    ]
    covered, by_wald = (
        dict(zip(names, holds_RQ.mean(axis=0).tolist(), strict=True))
        for holds_RQ in (
            (low_RQ <= true_Q) & (true_Q <= high_RQ),
            np.abs(values_RQ - true_Q) <= 1.96 * errors_RQ,
        )
    )
    off_Q = (np.nanmean(values_RQ, axis=0) - true_Q) / np.nanstd(values_RQ, axis=0)
    bias = dict(zip(names, off_Q.tolist(), strict=True))
    print(f"\n{name}, another map {other_map}: points {points_H.tolist()}")
    print(f"{covered}\n{by_wald}\n{bias}")
    mapped_m2 = np.array([areas_m2_HW[assessed_HW == t].sum() for t in np.sort(TRANSITIONS)])
    assert 0.93 <= covered["overall"] <= 0.97
    for index, transition in enumerate(np.sort(TRANSITIONS)):
        area = f"area {transition}"
        assert 0.93 <= covered[area] <= 0.97
        if transition == RARE:
            # What the papers' intervals do not.
            assert by_wald[area] < 0.93
            # Few points find it, and sometimes none: its accuracies are not said to be surer.
            for what in ("user", "producer"):
                is_known_R = ~np.isnan(values_RQ[:, names.index(f"{what} {transition}")])
                assert is_known_R.mean() > 0.99
                assert covered[f"{what} {transition}"] >= 0.93
        # Of 2,000 samples, chance leaves a twentieth of a standard error.
        assert abs(bias[area]) < 0.1
        true_m2 = true_Q[names.index(area)]
        estimated_m2 = values_RQ[:, names.index(area)].mean()
        assert abs(mapped_m2[index] - true_m2) > 5 * abs(estimated_m2 - true_m2)
        if transition != RARE and points_H[stratification.stratum_C[transition]] >= 50:
            assert 0.93 <= covered[f"user {transition}"] <= 0.97


def find_truth(truth_HW, map_HW, areas_m2_HW):
    """Overall, user's and producer's accuracies and areas of the whole map, pixel by pixel."""
    right_m2 = areas_m2_HW[truth_HW == map_HW].sum()
    both, mapped, true = (
        np.array([areas_m2_HW[chosen(t)].sum() for t in np.sort(TRANSITIONS)])
        for chosen in (
            lambda t: (map_HW == t) & (truth_HW == t),
            lambda t: map_HW == t,
            lambda t: truth_HW == t,
        )
    )
    return np.array([right_m2 / areas_m2_HW.sum(), *(both / mapped), *(both / true), *true])


def test_in_a_simple_random_sample_the_interval_is_that_of_the_logit():
    pixels = 10**9
    strata = Strata(("all",), np.array([pixels]), np.array([1.0]))
    is_found_N = np.arange(400) < 30
    sample = StratifiedSample(strata, np.zeros(400, int))
    (share,) = sample.estimate_shares(is_found_N[:, None].astype(float))
    # Korn and Graubard (1998): the design effect is known to be 1, so there is no t about it.
    p = 30 / 400
    reach = norm.ppf(0.975) * np.sqrt(p * (1 - p) / 399) / (p * (1 - p))
    ends = [expit(logit(p) + sign * reach) for sign in (-1, 1)]
    assert [share.low, share.high] == pytest.approx(ends, rel=1e-4)


def test_degrees_of_freedom_tell_how_far_samples_disagree_on_the_design_effect():
    """Against what drawing again and again gives."""
    random = np.random.default_rng(3)
    weights_H, points_H = np.array([0.8, 0.15, 0.05]), np.array([500, 300, 200])
    chance_H = np.array([0.02, 0.2, 0.6])
    stratum_N = np.repeat(np.arange(3), points_H)
    effects, degrees = [], []
    for _ in range(1500):
        values_N = (random.random(len(stratum_N)) < chance_H[stratum_N]).astype(float)
        means_H = np.bincount(stratum_N, values_N) / points_H
        deviations_NQ = (values_N - means_H[stratum_N])[:, None]
        parts = StratumMeans(deviations_NQ, stratum_N, points_H, weights_H, np.ones(3))
        share = weights_H @ means_H
        effects.append(np.log(parts.variance_Q[0] / (share * (1 - share))))
        degrees.append(parts.find_degrees(np.array([share]))[0])
    assert np.median(degrees) == pytest.approx(2 / np.var(effects), rel=0.15)


def test_where_all_points_agree_the_interval_reaches_about_three_points_far():
    strata = Strata(tuple("ab"), np.array([10**6, 10**6]), np.array([0.9, 0.1]))
    stratum_N = np.repeat([0, 1], [90, 50])
    sample = StratifiedSample(strata, stratum_N)
    none, everything = sample.estimate_shares(np.stack([0 * stratum_N, 0 * stratum_N + 1.0], 1))
    assert (none.value, none.standard_error, none.low) == (0, 0, 0)
    # The rule of three, of points that stand for a hundredth of the whole each.
    assert 0.03 < none.high < 0.04
    assert (everything.value, everything.high) == pytest.approx((1, 1))
    assert everything.low == pytest.approx(1 - none.high)
    # Of what eight points say anything of, all of them say the same.
    is_whole_N = np.isin(np.arange(140), np.arange(8)).astype(float)[:, None]
    (wrong,) = sample.estimate_ratios(0 * is_whole_N, is_whole_N)
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(3.84 / (8 + 3.84), abs=0.001)
    seen = StratifiedSample(Strata(("a",), np.array([90]), np.array([9.0])), np.zeros(90, int))
    (whole,) = seen.estimate_areas(np.zeros((90, 1)))
    assert whole.high == 0, "who has seen every pixel knows"


def test_what_is_gained_less_what_is_lost_may_be_negative():
    strata = Strata(("all",), np.array([10**9]), np.array([50.0]))
    values_N = np.concatenate([np.full(60, -1.0), np.full(20, 1.0), np.zeros(320)])
    (net,) = StratifiedSample(strata, np.zeros(400, int)).estimate_areas(
        values_N[:, None], least=-1
    )
    assert net.value == pytest.approx(-5)
    assert net.low < -5 < net.high < 0
    assert net.high - net.low == pytest.approx(2 * 1.96 * net.standard_error, rel=0.02)
