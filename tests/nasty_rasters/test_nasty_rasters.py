"""The acceptance table: each odd pair has the right map, or the right error."""

import csv
import re
from contextlib import ExitStack
from dataclasses import fields

import geopandas
import numpy as np
import pytest
from pyproj import CRS
from rasterio import features
from rasterio.windows import Window

import terradelta as td
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import DateOptions, PairOptions, split_both
from tests.flat_options import sort_options

from . import (  # noqa: F401
    containers,
    placement,
    refusals,
    scalings,
    strange_places,
    validity,
    values,
)
from .cases import MAPPED, REFUSED, Bench
from .drawing import draw, open_quietly
from .oracle import Oracle, map_changes, measure_area_m2

RGB = ("red", "green", "blue")
READ_OPTIONS = ("bands", "grid", "aoi", "mask_values")
ENOUGH_PX = 100
"""A correlation of fewer pixels says nothing."""
TILE_SIZE_PX = 1024
TILED_SHARE = 1e-5
"""Of the labels of a map of several tiles, whose borders the network sees."""


def open_pair(pair):
    options = {name: pair.options[name] for name in READ_OPTIONS if name in pair.options}
    nodata, masks = (split_both(pair.options.get(name)) for name in ("nodata", "mask"))
    dates = (DateOptions(nodata=nodata[date], mask=masks[date]) for date in (0, 1))
    options = PairOptions(**options, **dict(zip(("before", "after"), dates, strict=True)))
    return RasterPair(pair.before, pair.after, RGB, options)


@pytest.fixture(scope="module", params=MAPPED)
def case(request, tmp_path_factory):
    with ExitStack() as exits:
        pair = MAPPED[request.param](Bench(tmp_path_factory.mktemp("case"), exits))
        yield pair, Oracle(pair)


@pytest.fixture(scope="module")
def whole(case):
    """What the library reads of the whole pair."""
    with open_pair(case[0]) as pair:
        return pair.read(Window(0, 0, pair.grid.width, pair.grid.height))


@pytest.fixture(scope="module")
def prediction(case, judge_folder, tmp_path_factory):
    pair, _ = case
    output = tmp_path_factory.mktemp("out") / "out"
    options = {"model": judge_folder, "precision": "fp32", **pair.options}
    return td.predict(pair.before, pair.after, output, **sort_options(options))


def test_the_grid_is_what_the_rasters_share(case):
    pair, oracle = case
    expected = oracle.frame
    with open_pair(pair) as opened:
        grid, area = opened.grid, opened.area
    assert (grid.crs is None) == (expected.crs is None)
    if expected.crs is not None:
        assert CRS(grid.crs.to_wkt()).equals(CRS(expected.crs), ignore_axis_order=True)
    assert (grid.width, grid.height) == (expected.width, expected.height)
    tolerance = 1e-3 * min(grid.pixel_size)
    for corner in ((0, 0), (grid.width, 0), (0, grid.height)):
        assert grid.transform @ corner == pytest.approx(expected.transform @ corner, abs=tolerance)
    assert area.toslices() == oracle.area


def test_the_pixels_are_those_of_the_whole_arrays(case, whole):
    pair, oracle = case
    wrong = (whole.valid_HW != (oracle.valid_HW & oracle.inside_HW)) & oracle.certain_HW
    assert not wrong.any(), np.argwhere(wrong)
    assert whole.valid_HW.any()
    shown_HW = whole.valid_HW & oracle.certain_HW
    for image_CHW, date, shown in zip(whole[:2], oracle.dates, pair.truth, strict=True):
        off = np.abs(image_CHW.astype(np.float64) - date.image_CHW)[:, shown_HW]
        assert off.max(initial=0) <= (0 if date.exact else pair.grey_levels)
        assert image_CHW.dtype == shown.dtype or not date.exact


def test_the_pixels_show_their_own_place_on_the_ground(case, whole):
    pair, oracle = case
    shown_HW = whole.valid_HW & oracle.certain_HW
    if shown_HW.sum() < ENOUGH_PX or pair.likeness is None:
        return
    for image_CHW, date in zip(whole[:2], ("before", "after"), strict=True):
        drawn_CHW = draw(oracle.frame, date, pair.pixel_m).image_CHW[list(pair.bands)]
        for band_HW, drawn_HW in zip(image_CHW, drawn_CHW, strict=True):
            likeness = np.corrcoef(band_HW[shown_HW], drawn_HW[shown_HW])[0, 1]
            assert likeness > pair.likeness


def test_any_window_reads_like_the_same_part_of_the_whole(case, whole):
    pair, _ = case
    random = np.random.default_rng(0)
    height, width = whole.valid_HW.shape
    with open_pair(pair) as opened:
        for _ in range(8):
            column, row = random.integers(0, width), random.integers(0, height)
            size = [
                int(random.integers(1, min(41, left + 1)))
                for left in (width - column, height - row)
            ]
            part = opened.read(Window(int(column), int(row), *size))
            rows, columns = slice(row, row + size[1]), slice(column, column + size[0])
            assert (part.valid_HW == whole.valid_HW[rows, columns]).all()
            for image_CHW, whole_CHW in zip(part[:2], whole[:2], strict=True):
                off = image_CHW.astype(np.float64) - whole_CHW[:, rows, columns]
                assert np.abs(off)[:, part.valid_HW].max(initial=0) <= 1


def test_the_map_is_what_the_network_answers_to_the_whole_arrays(case, prediction, judge):
    pair, oracle = case
    with open_quietly(prediction.folder / "change.tif") as dataset:
        change_HW = dataset.read(1)
        rows, columns = oracle.area
        expected = oracle.frame.cut(columns.start, rows.start)
        for corner in ((0, 0), (dataset.width, 0), (0, dataset.height)):
            tolerance = 1e-3 * np.hypot(dataset.transform.a, dataset.transform.d)
            wanted = expected.transform @ corner
            assert dataset.transform @ corner == pytest.approx(wanted, abs=tolerance)
        if expected.crs is not None:
            assert CRS(dataset.crs.to_wkt()).equals(CRS(expected.crs), ignore_axis_order=True)
        assert dataset.nodata == 255
    images = [date.image_CHW for date in oracle.dates]
    value_range = pair.options.get("value_range")
    ranges = value_range, pair.options.get("after_value_range", value_range)
    answer_HW, decided_HW = map_changes(judge, images, oracle.valid_HW, ranges)
    certain_HW = oracle.certain_HW[oracle.area]
    valid_HW = (oracle.valid_HW & oracle.inside_HW)[oracle.area]
    assert ((change_HW != 255) == valid_HW)[certain_HW].all()
    judged_HW = valid_HW & decided_HW[oracle.area] & certain_HW & (change_HW != 255)
    wrong_HW = judged_HW & (change_HW != answer_HW[oracle.area])
    is_tiled = max(change_HW.shape) > TILE_SIZE_PX
    allowed = pair.wrong_share if not oracle.exact else TILED_SHARE * is_tiled
    assert wrong_HW.sum() <= allowed * judged_HW.sum()


def test_the_sums_are_the_geodesic_area(case, prediction):
    _, oracle = case
    with (prediction.folder / "transitions.csv").open(newline="") as file:
        total = next(row for row in csv.DictReader(file) if row["from"] == "all valid")
    with open_quietly(prediction.folder / "change.tif") as dataset:
        valid_HW = dataset.read(1) != 255
    assert int(total["pixels"]) == valid_HW.sum()
    if oracle.frame.crs is None:
        assert total["area_ha"] == ""
        return
    rows, columns = oracle.area
    area_m2 = measure_area_m2(valid_HW, oracle.frame.cut(columns.start, rows.start))
    assert float(total["area_ha"]) * 10_000 == pytest.approx(area_m2, rel=1e-6, abs=1e-3)


def test_the_polygons_burn_to_the_map(prediction):
    frame = geopandas.read_file(prediction.folder / "changes.gpkg", layer="changes")
    assert frame.geometry.is_valid.all()
    with open_quietly(prediction.folder / "change.tif") as dataset:
        change_HW = dataset.read(1)
        burnt_HW = np.zeros_like(change_HW)
        if len(frame):
            shapes = zip(frame.geometry, frame.transition, strict=True)
            features.rasterize(shapes, out=burnt_HW, transform=dataset.transform)
    assert (burnt_HW == np.where(change_HW == 255, 0, change_HW)).all()


READING = {field.name for field in fields(td.RasterOptions)}
"""The options of `predict` that `check` has, too."""


def check(pair, model):
    """What `check` says of a pair, given the options of `predict` that it has."""
    options = {name: value for name, value in pair.options.items() if name in READING}
    return td.check(pair.before, pair.after, **sort_options(options, model=model))


def test_what_is_mapped_passes_the_check(case, judge_folder):
    report = check(case[0], judge_folder)
    failed = [finding for finding in report.findings if finding.level == "FAIL"]
    assert not failed
    # A map carries what the check warns of.
    assert all(caution.message and caution.fix for caution in report.cautions)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_fails_the_check(name, judge_folder, tmp_path):
    with ExitStack() as exits:
        refusal = REFUSED[name](Bench(tmp_path, exits))
        if not refusal.options.keys() <= READING:
            pytest.skip("check has not all of its options")
        try:
            report = check(refusal, judge_folder)
        except td.TerradeltaError:
            # An option that cannot be read leaves nothing to look at.
            return
    failed = [finding for finding in report.findings if finding.level == "FAIL"]
    assert failed
    assert all(finding.fix for finding in failed)


@pytest.mark.parametrize("name", REFUSED)
def test_the_error_says_what_is_wrong_and_nothing_is_left(name, judge_folder, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    with ExitStack() as exits:
        refusal = REFUSED[name](Bench(tmp_path / "in", exits))
        with pytest.raises(td.TerradeltaError) as caught:
            options = {"model": judge_folder, "precision": "fp32", **refusal.options}
            td.predict(
                refusal.before,
                refusal.after,
                tmp_path / "out" / "map",
                **sort_options(options),
            )
    for pattern in refusal.problem:
        assert re.search(pattern, caught.value.problem), caught.value.problem
    assert caught.value.fix
    assert not list((tmp_path / "out").iterdir())
