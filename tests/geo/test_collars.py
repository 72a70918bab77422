"""What is no data and is not said to be is found, and the flag that is named fixes it."""

import re
import tracemalloc

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rasterio.windows
from affine import Affine

from terradelta.data.synthetic import draw_pair
from terradelta.errors import RasterError
from terradelta.geo.collars import find_collars
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import DateOptions, PairOptions

from .conftest import UTM_ORIGIN

BANDS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def scene_CHW():
    return np.clip(draw_pair((80, 1), 300).before_CHW, 3, 250)


def look(before, after, /, **options):
    with RasterPair(before, after, BANDS, PairOptions(**options)) as pair:
        return list(find_collars(pair))


def give(findings):
    """Return the options that the findings' flags stand for."""
    options = {}
    for finding in findings:
        flag = re.fullmatch(r"--nodata (?:(before|after)=)?(\S+)", finding.fix)
        for date in (flag[1],) if flag[1] else ("before", "after"):
            options[date] = DateOptions(nodata=float(flag[2]))
    return options


def test_images_without_collars_have_none(write_raster, scene_CHW):
    before = write_raster("before", scene_CHW)
    declared_CHW = scene_CHW.copy()
    declared_CHW[:, :100] = 0
    after = write_raster("after", declared_CHW, nodata=0)
    assert look(before, after) == []
    spotted_CHW = scene_CHW.copy()
    spotted_CHW[:, 5:9, 5:9] = 0  # a few dark pixels are no collar
    assert look(before, write_raster("spotted", spotted_CHW)) == []


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 0),
        ("uint8", 255),
        ("uint16", 0),
        ("uint16", 65535),
        ("int16", -9999),
        ("float32", -9999),
        ("float32", 0),
    ],
)
@pytest.mark.parametrize("shape", ["side", "turned"])
def test_a_collar_is_found_and_its_flag_fixes_it(write_raster, scene_CHW, dtype, value, shape):
    rows, columns = np.mgrid[:300, :300]
    is_collar_HW = columns >= 183 if shape == "side" else abs(rows - 150) + abs(columns - 150) > 170
    after_CHW = np.where(is_collar_HW, value, scene_CHW.astype(dtype)).astype(dtype)
    before, after = (
        write_raster("before", scene_CHW.astype(dtype)),
        write_raster("after", after_CHW),
    )
    (found,) = look(before, after)
    assert (found.name, found.level) == ("collar", "WARN")
    assert found.message.startswith(
        f"after: {value:g} in all bands fills {is_collar_HW.mean():.1%}"
    )
    assert found.fix == f"--nodata after={value:g}"
    assert look(before, after, **give([found])) == []
    (swapped,) = look(after, before)
    assert swapped.fix == f"--nodata before={value:g}"
    on_both = look(after, after)
    assert [finding.fix for finding in on_both] == [f"--nodata {value:g}"] * 2


def test_a_collar_inside_of_declared_nodata_is_found(write_raster, scene_CHW):
    after_CHW = scene_CHW.copy()
    after_CHW[:, :60], after_CHW[:, :40] = 0, 255
    after = write_raster("after", after_CHW, nodata=255)
    (found,) = look(write_raster("before", scene_CHW), after)
    assert found.values["share"] == pytest.approx(20 / 300)


def test_impossible_values_are_named_and_taken_for_no_data(write_raster, scene_CHW):
    lowest = float(np.finfo("float32").min)
    after_CHW = scene_CHW.astype("float32")
    after_CHW[1, 50:80, 50:80] = lowest
    before = write_raster("before", scene_CHW)
    after = write_raster("after", after_CHW)
    (found,) = look(before, after)
    assert (found.name, found.level) == ("impossible", "WARN")
    assert "which no sensor measures" in found.message
    assert look(before, after, **give([found])) == []
    assert look(before, write_raster("said", after_CHW, nodata=lowest)) == []


def test_fill_far_from_all_values_is_found_away_from_the_edge(write_raster, scene_CHW):
    after_CHW = scene_CHW.astype("int16")
    after_CHW[1, 50:80, 50:80] = -9999
    before, after = write_raster("before", scene_CHW), write_raster("after", after_CHW)
    (found,) = look(before, after)
    assert (found.name, found.fix) == ("fill", "--nodata after=-9999")
    assert found.values["share"] == pytest.approx(0.01)
    assert look(before, after, **give([found])) == []


@pytest.mark.parametrize("nodata", [None, 0])
def test_blocks_that_were_never_written_are_found(tmp_path, write_raster, scene_CHW, nodata):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 300, "height": 300, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": UTM_ORIGIN, "photometric": "RGB", "nodata": nodata}
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True}
    with rasterio.open(path, "w", **profile, **place, **blocks) as dataset:
        part_CHW = scene_CHW[:, 64:128, :]
        dataset.write(part_CHW, window=rasterio.windows.Window(0, 64, 300, 64))
    findings = look(write_raster("before", scene_CHW), path)
    by_name = {finding.name: finding for finding in findings}
    if nodata is not None:
        assert findings == []
        return
    assert by_name["sparse"].values["share"] == pytest.approx(20 / 25)
    assert by_name["sparse"].fix == "--nodata after=0"
    assert look(write_raster("before", scene_CHW), path, after=DateOptions(nodata=0)) == []


def test_a_mosaic_is_looked_at_raster_by_raster(write_raster, scene_CHW):
    collared_CHW = scene_CHW.copy()
    collared_CHW[:, :, :30] = 0
    moved = UTM_ORIGIN @ Affine.translation(300, 0)
    parts = [write_raster("one", scene_CHW), write_raster("two", collared_CHW, transform=moved)]
    (found,) = look(parts, write_raster("after", scene_CHW))
    assert found.fix == "--nodata before=0"
    assert found.values["share"] == pytest.approx(0.05)


def test_little_is_read_of_a_huge_raster(tmp_path, write_raster, scene_CHW):
    side = 60_000
    path = tmp_path / "huge.tif"
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": UTM_ORIGIN, "photometric": "RGB"}
    options = {"tiled": True, "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(path, "w", **profile, **place, **options) as dataset:
        for number in range(0, side, 6_000):
            window = rasterio.windows.Window(number, number, 300, 300)
            dataset.write(scene_CHW, window=window)
    before = write_raster("before", scene_CHW)
    tracemalloc.start()
    findings = look(before, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {finding.name for finding in findings} >= {"collar", "sparse"}
    assert peak < 50e6


def test_a_source_that_is_gone_is_named(write_raster, picture_CHW, tmp_path):
    before, after = write_raster("before", picture_CHW), write_raster("after", picture_CHW)
    virtual, outer = tmp_path / "after.vrt", tmp_path / "outer.vrt"
    rasterio.shutil.copy(after, virtual, driver="VRT")
    rasterio.shutil.copy(virtual, outer, driver="VRT")
    # Not unlinked: GDAL may keep a file open that it has read.
    for path in (virtual, outer):
        path.write_text(path.read_text().replace("after.tif", "gone.tif"))
    for path in (virtual, outer):
        with pytest.raises(RasterError, match=r"gone\.tif, which does not exist") as caught:
            RasterPair(before, path, BANDS)
        assert "gdalbuildvrt" in caught.value.fix
