import csv

import numpy as np
import pytest

from terradelta.classes import SENSEEARTH
from terradelta.inference.confidence import UnsureChange
from terradelta.inference.transitions import TransitionSums


@pytest.fixture
def window():
    random = np.random.default_rng(0)
    change_HW = random.integers(0, 49, (60, 70)).astype(np.uint8)
    return change_HW, random.random((60, 70)) < 0.9, random.uniform(3, 5, (60, 70))


def test_sums_are_those_of_a_loop_over_the_pixels(window):
    change_HW, valid_HW, area_HW = window
    sums = TransitionSums(SENSEEARTH)
    for rows in (slice(0, 13), slice(13, 60)):
        sums.add(change_HW[rows], valid_HW[rows], area_HW[rows])
    for transition in (0, 17, 48):
        pixels = [
            (row, column)
            for row in range(60)
            for column in range(70)
            if valid_HW[row, column] and change_HW[row, column] == transition
        ]
        assert sums.pixels[transition] == len(pixels)
        assert sums.area_m2[transition] == pytest.approx(sum(area_HW[p] for p in pixels))
    assert sums.nodata_pixels == (~valid_HW).sum()


def test_the_table_adds_up_to_the_valid_area(window, tmp_path):
    change_HW, valid_HW, area_HW = window
    sums = TransitionSums(SENSEEARTH)
    sums.add(change_HW, valid_HW, area_HW)
    sums.write_csv(tmp_path / "transitions.csv")
    with (tmp_path / "transitions.csv").open(newline="") as file:
        *parts, total, nodata = csv.DictReader(file)
    named = [(row["from"], row["to"]) for row in (parts[-1], total, nodata)]
    assert named == [(name, name) for name in ("unchanged", "all valid", "nodata")]
    hectares = area_HW[valid_HW].sum() / 10_000
    assert float(total["area_ha"]) == pytest.approx(hectares, rel=1e-9)
    assert sum(float(row["area_ha"]) for row in parts) == pytest.approx(hectares, rel=1e-9)
    assert sum(float(row["share_percent"]) for row in parts) == pytest.approx(100)
    assert sum(int(row["pixels"]) for row in parts) == int(total["pixels"]) == valid_HW.sum()
    assert int(nodata["pixels"]) == (~valid_HW).sum()


def test_without_a_crs_there_are_pixels_and_no_hectares(window):
    change_HW, valid_HW, _ = window
    sums = TransitionSums(SENSEEARTH, has_area=False)
    sums.add(change_HW, valid_HW, None)
    summary = sums.summarize(UnsureChange(has_area=False))
    assert summary.changed_ha is None
    changed = (change_HW > 0) & valid_HW
    assert summary.changed_percent == pytest.approx(100 * changed.sum() / valid_HW.sum())


def test_nothing_valid_is_nothing_changed():
    sums = TransitionSums(SENSEEARTH)
    sums.add(np.zeros((3, 3), np.uint8), np.zeros((3, 3), bool), np.ones((3, 3)))
    summary = sums.summarize(UnsureChange())
    assert (summary.valid_pixels, summary.changed_percent) == (0, 0)
    assert summary.transitions == ()


def test_pixels_without_an_area_leave_the_area_of_nodata_a_number(window):
    """Where a projection shows no ground there is none to sum, and none that is valid."""
    change_HW, valid_HW, area_HW = window
    beyond_HW = np.zeros_like(valid_HW)
    beyond_HW[:, 50:] = True
    sums = TransitionSums(SENSEEARTH)
    sums.add(change_HW, valid_HW & ~beyond_HW, np.where(beyond_HW, np.nan, area_HW))
    nodata_HW = ~valid_HW & ~beyond_HW
    assert sums.nodata_pixels == nodata_HW.sum() + beyond_HW.sum()
    assert sums.nodata_m2 == pytest.approx(area_HW[nodata_HW].sum())
    assert sums.area_m2.sum() == pytest.approx(area_HW[valid_HW & ~beyond_HW].sum())


def test_clearing_pixels_gives_the_sums_of_a_map_without_their_change(window, tmp_path):
    change_HW, valid_HW, area_HW = window
    sums, expected = TransitionSums(SENSEEARTH), TransitionSums(SENSEEARTH)
    sums.add(change_HW, valid_HW, area_HW)
    cleared_HW = valid_HW & (change_HW == 17) & (np.arange(70) < 40)
    assert 0 < cleared_HW.sum() < (valid_HW & (change_HW == 17)).sum()
    sums.clear(17, int(cleared_HW.sum()), float(area_HW[cleared_HW].sum()))
    expected.add(np.where(cleared_HW, 0, change_HW), valid_HW, area_HW)
    assert (sums.pixels == expected.pixels).all()
    assert sums.area_m2 == pytest.approx(expected.area_m2)
    sums.write_csv(tmp_path / "transitions.csv")
    with (tmp_path / "transitions.csv").open(newline="") as file:
        *_, unchanged, total, _ = csv.DictReader(file)
    assert float(total["share_percent"]) == 100
    share = (
        100 * area_HW[valid_HW & ((change_HW == 0) | cleared_HW)].sum() / area_HW[valid_HW].sum()
    )
    assert float(unchanged["share_percent"]) == pytest.approx(share)
