import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terradelta.areas.allocation import allocate_points, find_sample_size
from terradelta.areas.estimators import Strata
from terradelta.errors import ArgumentError

OLOFSSON_ACCURACY = np.array([0.7, 0.6, 0.9, 0.95])


def make_strata(pixels):
    pixels_H = np.array(pixels)
    return Strata(tuple(map(str, range(len(pixels)))), pixels_H, pixels_H * 900.0)


OLOFSSON = make_strata([200_000, 150_000, 3_200_000, 6_450_000])


def find_variance(strata, points_H, accuracy_H):
    """Of the overall accuracy, if the accuracies are true: Cochran (1977), equation 5.6."""
    deviation_H = np.sqrt(accuracy_H * (1 - accuracy_H))
    return (strata.weights**2 * deviation_H**2 * (1 / points_H - 1 / strata.pixels_H)).sum()


def test_olofsson_2014_needs_641_points_for_a_standard_error_of_one_percent():
    assert find_sample_size(OLOFSSON, OLOFSSON_ACCURACY, 0.01) == 641


def test_the_sample_size_gives_the_standard_error_when_allocated_by_neyman():
    points = find_sample_size(OLOFSSON, OLOFSSON_ACCURACY, 0.01)
    points_H = allocate_points(OLOFSSON, points, OLOFSSON_ACCURACY, rule="neyman", floor=2)
    assert find_variance(OLOFSSON, points_H, OLOFSSON_ACCURACY) ** 0.5 == pytest.approx(
        0.01, rel=2e-3
    )
    fewer_H = allocate_points(OLOFSSON, points - 5, OLOFSSON_ACCURACY, rule="neyman", floor=2)
    assert find_variance(OLOFSSON, fewer_H, OLOFSSON_ACCURACY) ** 0.5 > 0.01


def test_points_in_proportion_to_area():
    points_H = allocate_points(OLOFSSON, 641, OLOFSSON_ACCURACY, floor=2)
    assert points_H.tolist() == [13, 10, 205, 413]


def test_a_floor_lifts_rare_strata_and_the_others_share_what_is_left():
    points_H = allocate_points(OLOFSSON, 641, OLOFSSON_ACCURACY, floor=75)
    assert points_H[:2].tolist() == [75, 75]
    assert points_H.sum() == 641
    assert points_H[3] / points_H[2] == pytest.approx(645 / 320, rel=0.01)


def test_no_exchange_of_a_point_betters_neyman():
    strata, accuracy_H = make_strata([900, 4_000, 20_000]), np.array([0.55, 0.8, 0.97])
    points_H = allocate_points(strata, 200, accuracy_H, rule="neyman", floor=2)
    best = find_variance(strata, points_H, accuracy_H)
    for giver in range(3):
        for taker in range(3):
            if giver != taker:
                other_H = points_H.copy()
                other_H[[giver, taker]] += (-1, 1)
                assert find_variance(strata, other_H, accuracy_H) > best * (1 - 1e-4)
    proportional_H = allocate_points(strata, 200, accuracy_H, floor=2)
    assert find_variance(strata, proportional_H, accuracy_H) > best


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.lists(st.integers(1, 10**9), min_size=1, max_size=8),
    points=st.integers(2, 5000),
    floor=st.integers(2, 100),
    rule=st.sampled_from(["proportional", "neyman"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_points_add_up_and_stay_within_bounds(pixels, points, floor, rule, seed):
    strata = make_strata(pixels)
    accuracy_H = np.random.default_rng(seed).uniform(0.01, 0.99, len(pixels))
    least_H = np.minimum(floor, strata.pixels_H)
    if points < least_H.sum():
        with pytest.raises(ArgumentError, match="too few"):
            allocate_points(strata, points, accuracy_H, rule=rule, floor=floor)
        return
    points_H = allocate_points(strata, points, accuracy_H, rule=rule, floor=floor)
    assert points_H.sum() == min(points, strata.pixels_H.sum())
    assert (points_H >= least_H).all()
    assert (points_H <= strata.pixels_H).all()


@pytest.mark.parametrize("standard_error", [0, -0.1, 0.5, float("nan")])
def test_a_standard_error_that_makes_no_sense_is_refused(standard_error):
    with pytest.raises(ArgumentError, match="standard error"):
        find_sample_size(OLOFSSON, OLOFSSON_ACCURACY, standard_error)


def test_an_expectation_of_no_errors_is_refused():
    with pytest.raises(ArgumentError, match="expected accuracy"):
        find_sample_size(OLOFSSON, np.array([1, 0.6, 0.9, 0.95]), 0.01)
    with pytest.raises(ArgumentError, match="1 points in a stratum"):
        allocate_points(OLOFSSON, 641, OLOFSSON_ACCURACY, floor=1)
