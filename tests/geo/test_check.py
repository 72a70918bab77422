"""Each line of a report says what is so, and names the flag that fixes it."""

import json
import re
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp

from terradelta.data.synthetic import draw_pair
from terradelta.geo.check import examine_pair
from terradelta.geo.pair_options import DateOptions, ModelNeeds, PairOptions

from .conftest import RGB, UTM_ORIGIN


@pytest.fixture(scope="module")
def scene():
    return draw_pair((80, 1), 400)


def ranged(low, high):
    date = DateOptions(value_range=(low, high))
    return PairOptions(before=date, after=date)


@pytest.fixture
def lines(write_raster, scene):
    """A function that writes a pair and returns its findings by name."""

    def run(before=None, after=None, options=None, **after_profile):
        before = scene.before_CHW if before is None else before
        after = scene.before_CHW if after is None else after
        paths = [write_raster("before", before), write_raster("after", after, **after_profile)]
        report = examine_pair(*paths, options or PairOptions(), ModelNeeds())
        json.dumps(report.to_dict())
        for finding in report.findings:
            assert finding.message in report.to_text()
            assert finding.level == "OK" or finding.fix
        return {finding.name: finding for finding in report.findings}

    return run


def test_a_pair_without_fault_is_ok_throughout(lines):
    findings = lines()
    assert {finding.level for finding in findings.values()} == {"OK"}
    assert "both EPSG:32632" in findings["crs"].message
    assert findings["overlap"].values == {"before_share": 1, "after_share": 1}
    assert findings["shift"].values["columns_px"] == pytest.approx(0, abs=0.02)
    assert findings["grid"].values["resampled"] == []


def test_a_shift_is_given_in_pixels_and_metres(lines, scene):
    moved = scene.before_CHW[:, 2:-2, :-4]
    findings = lines(scene.before_CHW[:, 4:, 4:], moved)
    shift = findings["shift"]
    # However large it is, it is an estimate: it makes a map doubtful, and forbids none.
    assert shift.level == "WARN"
    assert shift.caution is not None
    assert shift.fix == "--register"
    found = shift.values["columns_px"], shift.values["rows_px"]
    assert found == pytest.approx((4, 2), abs=0.05)
    assert shift.values["shift_m"] == pytest.approx(2 * np.hypot(4, 2), rel=0.02)
    small = lines(scene.before_CHW[:, :, 1:], scene.before_CHW[:, :, :-1])["shift"]
    assert small.level == "WARN"


def test_rasters_apart_overlap_in_part_or_not_at_all(lines):
    half = UTM_ORIGIN @ Affine.translation(250, 0)
    overlap = lines(transform=half)["overlap"]
    assert overlap.level == "WARN"
    assert overlap.values["before_share"] == pytest.approx(150 / 400)
    far = lines(transform=UTM_ORIGIN @ Affine.translation(5000, 0))
    assert far["pair"].level == "FAIL"
    assert "do not overlap" in far["pair"].message


def test_other_resolutions_are_reported_with_the_grid_to_use(lines, scene):
    coarse = scene.before_CHW[:, ::4, ::4]
    resolution = lines(after=coarse, transform=UTM_ORIGIN @ Affine.scale(4))["resolution"]
    assert resolution.level == "WARN"
    assert resolution.values["ratio"] == pytest.approx(4, rel=1e-3)
    assert resolution.fix.startswith("--grid after")


def test_a_crs_that_is_missing_is_reported(lines):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        findings = lines(crs=None, transform=Affine.identity())
    assert findings["crs"].level == "FAIL"
    assert "gdal_edit.py" in findings["crs"].fix


def test_bands_that_cannot_be_identified_are_listed_and_can_be_named(lines, scene):
    four = np.concatenate([scene.before_CHW, scene.before_CHW[:1]])
    nameless = {"colours": (ColorInterp.gray, *[ColorInterp.undefined] * 3)}
    findings = lines(after=four, **nameless)
    assert findings["bands"].level == "WARN"
    assert findings["bands"].fix.startswith("--bands 1,2,3")
    assert findings["bands"].values == {"before": [1, 2, 3], "after": [1, 2, 3]}
    findings = lines(after=four, options=PairOptions(bands=[3, 2, 1]), **nameless)
    assert findings["bands"].values == {"before": [3, 2, 1], "after": [3, 2, 1]}


def test_near_infrared_that_is_declared_alpha_is_reported(lines, scene):
    four = np.concatenate([scene.before_CHW, scene.before_CHW[:1]])
    findings = lines(after=four, colours=(*RGB, ColorInterp.alpha))
    assert "band 4 is declared alpha and holds measurements" in findings["alpha"].message
    true_alpha = np.full((1, 400, 400), 255, np.uint8)
    true_alpha[:, :150] = 0
    four = np.concatenate([scene.before_CHW, true_alpha])
    findings = lines(after=four, colours=(*RGB, ColorInterp.alpha))
    assert "alpha" not in findings
    assert findings["nodata"].level == "WARN"
    assert findings["nodata"].values["nodata_share"] == pytest.approx(150 / 400)


def test_another_depth_fails_with_the_range_that_fixes_it(lines, scene):
    deep = scene.before_CHW.astype(np.uint16) * 16
    depth = lines(deep, deep)["depth"]
    assert depth.level == "FAIL"
    low, high = map(float, depth.fix.removeprefix("--value-range ").split(","))
    assert [low, high] == np.percentile(deep, (2, 98)).tolist()
    assert lines(deep, deep, options=ranged(low, high))["depth"].level == "OK"


def test_a_range_that_is_given_is_held_against_the_values(lines, scene):
    deep = scene.before_CHW.astype(np.uint16) * 16
    assert lines(deep, deep, ranged(0, 4080))["depth"].level == "OK"
    for options, problem in (
        (ranged(10_000, 20_000), "no value lies in the range 10000 to 20000"),
        (ranged(-1e9, 1e9), "within less than 0.1% of the range"),
    ):
        depth = lines(deep, deep, options)["depth"]
        assert depth.level == "FAIL"
        assert problem in depth.message
        assert "trained" not in depth.message
        assert depth.fix.startswith("--value-range ")
    few = lines(deep, deep, ranged(deep.max() - 1, deep.max() + 100))["depth"]
    assert few.level == "WARN"
    # Another range is a user's own.
    assert lines(deep, deep, ranged(0, 1000))["depth"].level == "OK"


def test_dates_of_other_units_are_reported_with_a_range_for_each(lines, scene):
    deep = scene.before_CHW.astype(np.uint16) * 16
    low, high = map(round, np.percentile(deep, (2, 98)))
    for after, second in (
        (deep + 1000, f"{low + 1000},{high + 1000}"),
        ((deep * 1e-4).astype(np.float32), r"0\.0\d+,0\.\d+"),
    ):
        findings = lines(deep, after)
        values = findings["values"]
        assert values.level == "WARN"
        flags = rf"--value-range {low},{high} --after-value-range {second}"
        assert re.match(flags + ", or --match-light linear$", values.fix)
        assert re.fullmatch(flags, findings["depth"].fix)
        assert findings["light"].level == "OK"
        first, last = (
            tuple(map(float, text.split(","))) for text in findings["depth"].fix.split()[1::2]
        )
        options = PairOptions(before=DateOptions(value_range=first))
        options = replace(options, after=DateOptions(value_range=last))
        levels = {name: finding.level for name, finding in lines(deep, after, options).items()}
        assert levels["values"] == levels["depth"] == levels["light"] == "OK"
    # Light of pictures is another matter.
    assert lines(after=scene.before_CHW // 2 + 100)["values"].level == "OK"


def test_scales_are_read_before_values_are_compared(lines, scene, write_raster):
    deep = scene.before_CHW.astype(np.uint16) * 16
    paths = write_raster("before", deep), write_raster("after", deep + 1000)
    for path, offset in zip(paths, (0.0, -0.1), strict=True):
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,) * 3, (offset,) * 3
    report = examine_pair(*paths, ranged(0, 0.408), ModelNeeds())
    found = {finding.name: finding for finding in report.findings}
    assert {found[name].level for name in ("depth", "values", "light", "shift")} == {"OK"}
    assert "(stored x 0.0001 - 0.1)" in found["values"].message


@pytest.mark.parametrize("value", [0.1, 1 / 3, 77, 1e6])
def test_a_constant_image_has_no_shift_to_measure(lines, value):
    flat = np.full((3, 111, 130), value, np.float64)
    shift = lines(flat, flat)["shift"]
    assert shift.level == "WARN"
    assert "cannot be measured: 0 of 0 patches" in shift.message


def test_flat_and_saturated_bands_are_reported(lines, scene):
    image = scene.before_CHW.copy()
    image[0] = 7
    image[1, :40] = 255
    findings = lines(after=image)
    assert "band red is 7 everywhere" in findings["constant"].message
    assert "of band green is at 255" in findings["saturated"].message


def test_other_light_is_reported_by_band(lines, scene):
    darker = (scene.before_CHW * 0.3).astype(np.uint8)
    light = lines(after=darker)["light"]
    assert light.level == "WARN"
    assert max(light.values["drift"]) < -0.5
    assert max(light.values["contrast_ratio"]) < 0.5
    assert light.fix.startswith("--match-light linear")


def test_dates_the_wrong_way_round_are_reported(lines, write_raster, scene):
    stamps = ("2020:01:01 10:00:00", "2012:01:01 10:00:00")
    paths = []
    for name, stamp in zip("ba", stamps, strict=True):
        paths.append(write_raster(name, scene.before_CHW))
        with rasterio.open(paths[-1], "r+") as dataset:
            dataset.update_tags(TIFFTAG_DATETIME=stamp)
    names = {
        finding.name
        for finding in examine_pair(*paths, PairOptions(), ModelNeeds()).findings
        if finding.level == "WARN"
    }
    assert names == {"dates"}


def test_a_file_that_cannot_be_opened_is_a_line_and_no_exception(write_raster, scene, tmp_path):
    paths = tmp_path / "missing.tif", write_raster("after", scene.after_CHW)
    report = examine_pair(*paths, PairOptions(), ModelNeeds())
    assert report.level == "FAIL"
    assert [finding.name for finding in report.findings] == ["before", "after"]
    assert "missing.tif cannot be opened" in report.to_text()


def test_images_without_common_data_fail(lines, scene):
    empty = np.zeros_like(scene.before_CHW)
    nodata = lines(after=empty, nodata=0)["nodata"]
    assert nodata.level == "FAIL"


def test_the_check_runs_to_its_end_whatever_fails(lines, scene, tmp_path):
    """Five nameless deep bands, an area of interest that is not there, and a shift, all at once."""
    five = np.concatenate([scene.before_CHW, scene.before_CHW[:2]]).astype(np.uint16) * 16
    nameless = (ColorInterp.gray, *[ColorInterp.undefined] * 4)
    findings = lines(
        scene.before_CHW[:, 2:, 2:],
        five[:, :-2, :-2],
        options=PairOptions(aoi=tmp_path / "missing.gpkg"),
        colours=nameless,
    )
    assert findings["bands"].level == "FAIL"
    assert "missing.gpkg" in findings["pair"].message
    assert findings["depth"].level == "FAIL"
    assert findings["shift"].values["columns_px"] == pytest.approx(2, abs=0.1)
    assert {"crs", "overlap", "resolution", "grid", "nodata", "light"} <= findings.keys()


def test_outside_of_an_area_of_interest_nothing_is_missed(write_raster, scene, tmp_path):
    paths = [write_raster(name, scene.before_CHW) for name in ("before", "after")]
    with rasterio.open(paths[0]) as dataset:
        left, bottom, right, top = dataset.bounds
        crs = dataset.crs
    corner = shapely.Polygon([(left, bottom), (right, bottom), (left, top)])
    geopandas.GeoSeries([corner], crs=crs).to_file(tmp_path / "corner.gpkg")
    options = PairOptions(aoi=tmp_path / "corner.gpkg")
    findings = examine_pair(*paths, options, ModelNeeds()).findings
    (nodata,) = [finding for finding in findings if finding.name == "nodata"]
    assert nodata.level == "OK"
    assert nodata.values["nodata_share"] == 0


def test_data_between_the_windows_of_a_large_pair_is_not_denied(write_raster):
    image = np.random.default_rng(0).integers(1, 255, (3, 64, 2000), dtype=np.uint8)
    paths = [write_raster("before", image, nodata=0)]
    # Windows of 256 px lie a sixth of 2,000 px apart.
    image[:, :, :260] = image[:, :, 330:] = 0
    paths.append(write_raster("after", image, nodata=0))
    nodata = examine_pair(*paths, PairOptions(), ModelNeeds()).findings[-1]
    assert nodata.name == "nodata"
    assert nodata.level == "WARN"
    assert nodata.message == "of the sampled pixels, no pixel is valid on both dates"
    small = examine_pair(
        *(write_raster(f"small{n}", np.full((3, 64, 64), n, np.uint8), nodata=0) for n in range(2)),
        PairOptions(),
        ModelNeeds(),
    )
    assert small.findings[-1].level == "FAIL"
