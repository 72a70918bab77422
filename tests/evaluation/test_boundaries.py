import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.boundaries import BoundaryCounts, find_outline

masks = arrays(bool, (7, 9))


def outline_slowly(mask_HW):
    """Look at the four neighbours of every pixel."""
    height, width = mask_HW.shape
    found = set()
    for row, column in zip(*np.nonzero(mask_HW), strict=True):
        for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            y, x = row + down, column + across
            if 0 <= y < height and 0 <= x < width and not mask_HW[y, x]:
                found.add((int(row), int(column)))
    return found


@given(predicted_HW=masks, true_HW=masks, tolerance_px=st.sampled_from([0.0, 1.0, 1.5, 3.0]))
def test_counts_are_those_of_looking_at_all_pairs_of_pixels(predicted_HW, true_HW, tolerance_px):
    counts = BoundaryCounts(tolerance_px)
    counts.update(predicted_HW, true_HW)
    predicted, true = outline_slowly(predicted_HW), outline_slowly(true_HW)
    assert set(map(tuple, np.argwhere(find_outline(true_HW)).tolist())) == true

    def near(points, others):
        return sum(any(math.dist(p, o) <= tolerance_px for o in others) for p in points)

    assert (counts.predicted_px, counts.true_px) == (len(predicted), len(true))
    assert counts.predicted_hits_px == near(predicted, true)
    assert counts.true_hits_px == near(true, predicted)


def test_a_square_moved_by_two_pixels_fits_within_two_and_not_within_one():
    true_HW, moved_HW = np.zeros((2, 40, 40), np.uint8)
    true_HW[10:30, 10:30] = moved_HW[10:30, 12:32] = 1
    scores = {}
    for tolerance_px in (1, 2):
        counts = BoundaryCounts(tolerance_px)
        counts.update(moved_HW, true_HW)
        scores[tolerance_px] = counts.score()["boundary_f1"]
    assert scores[2] == 1
    assert scores[1] < 0.6


def test_images_add_up_and_nothing_is_undefined():
    counts = BoundaryCounts()
    assert all(map(math.isnan, counts.score().values()))
    square_HW = np.zeros((9, 9), bool)
    square_HW[3:6, 3:6] = True
    counts.update(square_HW, ~square_HW & False)
    assert counts.score()["boundary_precision"] == 0
    counts.update(square_HW, square_HW)
    assert counts.score() == pytest.approx(
        {"boundary_precision": 0.5, "boundary_recall": 1, "boundary_f1": 2 / 3}
    )


def test_outlines_of_nothing_in_common_score_zero():
    first_HW, second_HW = np.zeros((2, 30, 30), bool)
    first_HW[2:5, 2:5] = second_HW[20:25, 20:25] = True
    counts = BoundaryCounts()
    counts.update(first_HW, second_HW)
    assert counts.score()["boundary_f1"] == 0


def test_misfits_are_refused():
    with pytest.raises(DataError, match=r"\(3, 3\) and \(3, 4\)"):
        BoundaryCounts().update(np.zeros((3, 3)), np.zeros((3, 4)))
    with pytest.raises(ArgumentError, match="-1"):
        BoundaryCounts(-1)
