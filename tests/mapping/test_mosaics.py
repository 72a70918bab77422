"""Predictions of mosaics, on disk and in an object store, are those of the rasters they make up."""

import json
import subprocess
import sys
from functools import partial
from itertools import product

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window
from shapely.geometry import box
from tests.flat_options import predict_flat

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.errors import OutputExistsError, RasterError
from terradelta.geo.pair import RasterPair

from .. import object_store
from .small_blocks import MAPS, PROGRAM, TILE_SIZE_PX


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A pair of 330 x 420 px, as a file and as tiles for each date; a corner has no tile after."""
    folder = tmp_path_factory.mktemp("mosaics")
    write_geotiff_pair(folder, 11, (330, 420))
    for date in ("before", "after"):
        paths = _cut(folder / f"{date}.tif", 150)
        if date == "after":
            corner = paths.pop()
            _blank(folder / "after.tif", Window(300, 300, 120, 30))
            corner.unlink()
        (folder / f"{date}.txt").write_text("".join(f"{path.name}\n" for path in paths))
    return folder


def _cut(path, side):
    paths = []
    with rasterio.open(path) as source:
        for row, column in product(range(0, source.height, side), range(0, source.width, side)):
            window = Window(
                column, row, min(side, source.width - column), min(side, source.height - row)
            )
            part = path.with_name(f"{path.stem}_{row}_{column}.tif")
            profile = {
                **source.profile,
                "driver": "GTiff",
                "width": window.width,
                "height": window.height,
                "transform": source.window_transform(window),
                "tiled": False,
            }
            for key in ("blockxsize", "blockysize"):
                profile.pop(key, None)
            with rasterio.open(part, "w", **profile) as target:
                target.write(source.read(window=window))
            paths.append(part)
    return paths


def _blank(path, window):
    """Take the data of a window out of a file, by a mask."""
    with rasterio.open(path) as source:
        profile, image_CHW = {**source.profile, "driver": "GTiff"}, source.read()
    mask_HW = np.full(image_CHW.shape[1:], 255, np.uint8)
    mask_HW[window.toslices()] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as target,
    ):
        target.write(image_CHW)
        target.write_mask(mask_HW)


@pytest.fixture(scope="module")
def predict(model_folder):
    return partial(predict_flat, tile_size=TILE_SIZE_PX, precision="fp32", model=model_folder)


@pytest.fixture(scope="module")
def whole(predict, scene, tmp_path_factory):
    """The map of the two files."""
    output = tmp_path_factory.mktemp("whole") / "out"
    return predict(scene / "before.tif", scene / "after.tif", output)


def assert_same_maps(folder, other):
    for name in MAPS:
        with rasterio.open(folder / name) as one, rasterio.open(other / name) as two:
            assert one.transform == two.transform
            assert (one.read() == two.read()).all(), name
    one, two = (json.loads((path / "summary.json").read_text()) for path in (folder, other))
    # Hectares are summed block by block, so that their last digits are the blocks'.
    for name in ("valid_pixels", "nodata_pixels", "changed_pixels", "patches"):
        assert one[name] == two[name]


def test_the_map_of_a_mosaic_is_that_of_the_file_whatever_the_blocks(
    predict, scene, whole, small_blocks, tmp_path
):
    result = predict(scene / "before.txt", scene / "after.txt", tmp_path / "out")
    assert_same_maps(result.folder, whole.folder)
    assert result.summary.nodata_pixels >= 120 * 30
    run = json.loads((result.folder / "run.json").read_text())
    assert run["before"]["sources"] == 9
    assert run["after"]["sources"] == 8
    # The report reads the images again.
    page = (result.folder / "report.html").read_text()
    assert "before.txt" in page
    assert "cannot be opened" not in page


def test_blocks_without_a_raster_or_outside_of_the_area_are_seen_by_no_network(
    predict, scene, small_blocks, tmp_path
):
    """A third raster far to the right; and an area that leaves the left out."""
    with rasterio.open(scene / "before_0_0.tif") as source:
        profile, image_CHW = source.profile, source.read()
        place = source.transform @ source.transform.translation(1500, 0)
    for date in ("before", "after"):
        with rasterio.open(tmp_path / f"{date}.tif", "w", **{**profile, "transform": place}) as far:
            far.write(image_CHW)
    lists = [[scene / f"{date}_0_0.tif", tmp_path / f"{date}.tif"] for date in ("before", "after")]

    def count_views(output, **options):
        result = predict(*lists, tmp_path / output, **options)
        run = json.loads((result.folder / "run.json").read_text())
        views = [part["views"] for part in run["views_of_blocks"] for _ in _numbers(part)]
        assert len(views) == run["blocks"]
        return result, views

    whole, views = count_views("whole")
    assert views[0] == views[-1] == 1
    assert 0 in views
    # All of the right raster, and a strip of the left one.
    frame = place.c, place.f - 75, place.c + 75, place.f
    strip = place.c - 700, place.f - 75, place.c - 699, place.f
    area = geopandas.GeoSeries([box(*frame), box(*strip)], crs=profile["crs"].to_wkt())
    area.to_file(tmp_path / "area.gpkg")
    part, views = count_views("part", aoi=tmp_path / "area.gpkg")
    assert views[-1] == 1
    assert 0 in views
    with (
        rasterio.open(whole.folder / "change.tif") as one,
        rasterio.open(part.folder / "change.tif") as other,
    ):
        windows = [map_.window(*frame).round_offsets().round_lengths() for map_ in (one, other)]
        assert (one.read(1, window=windows[0]) == other.read(1, window=windows[1])).all()
        assert (one.read(1, window=windows[0]) != one.nodata).any()


def _numbers(part):
    return range(part["first"], part["last"] + 1)


def test_a_run_is_not_taken_up_by_another_list(predict, scene, whole, small_blocks, tmp_path):
    before = [scene / name for name in (scene / "before.txt").read_text().split()]
    after = [scene / name for name in (scene / "after.txt").read_text().split()]
    output = tmp_path / "out"
    predict(before, after, output, shard="1/2")
    with pytest.raises(OutputExistsError, match=r"header_sha256"):
        predict(before[::-1], after, output, shard="2/2")
    predict(before, after, output, shard="2/2")
    assert_same_maps(td.merge(output).folder, whole.folder)


def test_a_mosaic_in_an_object_store_that_fails_gives_the_same_map(
    predict, scene, whole, tmp_path, monkeypatch
):
    """Each third answer fails or comes late, none is lost."""
    with object_store.serve(tmp_path / "store") as store:
        listings = _upload(store, scene, tmp_path)
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.1")
        store.fail(["busy", "slow"])
        result = predict(*listings, tmp_path / "out")
        assert store.failures >= 3
    assert_same_maps(result.folder, whole.folder)


@pytest.mark.slow
def test_an_object_that_cannot_be_read_is_named_and_a_later_run_resumes(
    scene, whole, model_folder, tmp_path, monkeypatch
):
    """Connections dropped and broken off, then a store that is down for one object."""
    with object_store.serve(tmp_path / "store") as store:
        before, after = _upload(store, scene, tmp_path)
        for name, value in {**store.environment, "GDAL_HTTP_RETRY_DELAY": "0.1"}.items():
            monkeypatch.setenv(name, value)
        line = [sys.executable, "-c", PROGRAM, "predict", str(before), str(after)]
        line += ["-o", str(tmp_path / "out"), "-m", str(model_folder), "--precision", "fp32"]
        line += ["--tile-size", str(TILE_SIZE_PX)]
        store.fail(["busy"], every=1, key="after_150_300")
        down = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert down.returncode == 2, down.stderr
        assert "after_150_300.tif" in down.stderr
        assert "run the same command again" in down.stderr
        store.fail(["drop", "short", "busy", "slow"], every=4)
        for _ in range(8):
            again = subprocess.run(line, capture_output=True, text=True, timeout=300)
            if again.returncode == 0:
                break
            assert again.returncode == 2, again.stderr
            assert "s3://" in again.stderr or "/vsis3/" in again.stderr
        assert again.returncode == 0, again.stderr
        assert store.failures > 4
    assert_same_maps(tmp_path / "out", whole.folder)


def test_an_object_for_each_band_is_read_again_where_its_line_broke(scene, tmp_path, monkeypatch):
    """One raster of three objects, window by window: each fourth answer breaks off."""
    with rasterio.open(scene / "after.tif") as dataset:
        image_CHW, valid_HW = dataset.read(), dataset.dataset_mask() > 0
        profile = {**dataset.profile, "driver": "COG", "count": 1, "blocksize": 128}
    with object_store.serve(tmp_path / "store") as store:
        files = []
        for number, band_HW in enumerate(image_CHW):
            file = tmp_path / f"band{number}.tif"
            with rasterio.open(file, "w", **_choose(profile)) as target:
                target.write(band_HW, 1)
                target.write_mask(valid_HW)
            store.put(file, file.name)
            files.append(f"s3://{object_store.BUCKET}/{file.name}")
        for name, value in {**store.environment, "GDAL_HTTP_RETRY_DELAY": "0.1"}.items():
            monkeypatch.setenv(name, value)
        with RasterPair(scene / "before.tif", " + ".join(files), ("red", "green", "blue")) as pair:
            store.fail(["short"], every=4)
            for row in range(0, 330, 110):
                part = pair.read(Window(0, row, 420, 110))
                expected_HW = valid_HW[row : row + 110]
                assert (part.valid_HW == expected_HW).all()
                wrong_CHW = part.after_CHW != image_CHW[:, row : row + 110]
                assert not (wrong_CHW & expected_HW).any()
        assert store.failures


def _choose(profile):
    """Return what a COG of one band takes of a profile."""
    kept = ("driver", "count", "blocksize", "width", "height", "dtype", "crs", "transform")
    return {name: profile[name] for name in kept}


def test_an_absent_object_is_named(predict, scene, tmp_path, monkeypatch):
    with object_store.serve(tmp_path / "store") as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        absent = f"s3://{object_store.BUCKET}/absent.tif"
        with pytest.raises(RasterError, match=r"absent\.tif"):
            predict(scene / "before.tif", [absent], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _upload(store, scene, folder):
    """Store the tiles as COGs; return the lists of them, one spelled s3:// and one /vsis3/."""
    listings = []
    for date, start in (("before", "s3://"), ("after", "/vsis3/")):
        names = (scene / f"{date}.txt").read_text().split()
        for name in names:
            copy_raster(scene / name, folder / name, driver="COG")
            store.put(folder / name, name)
        listing = folder / f"{date}.txt"
        listing.write_text("".join(f"{start}{object_store.BUCKET}/{name}\n" for name in names))
        listings.append(listing)
    return listings
