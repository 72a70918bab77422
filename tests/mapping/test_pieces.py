"""A map cut into COGs with VRTs and STAC items is the map in one file."""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from functools import partial
from io import BytesIO

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from pystac.validation import validate_dict
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from tests.flat_options import predict_flat, sort_options

import terradelta as td
from terradelta.areas.map_census import ChangeMap
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.errors import ArgumentError
from terradelta.geo.grid import Grid
from terradelta.geo.listing import list_rasters
from terradelta.geo.stac import describe_item
from terradelta.outputs import write_json
from terradelta.viewer.result import Result
from terradelta.viewer.tiles import MERCATOR_TILES, ChangeTiles

from .small_blocks import OUTPUTS, assert_same_bytes

NAMES = ("before_class", "after_class", "change", "confidence")
SIZE_PX = 512
EMPTY = np.s_[0:SIZE_PX, SIZE_PX : 2 * SIZE_PX]
"""Of the before image: the second piece of the first row."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A pair of 530 x 1,040 px whose before image holds no data where one of the pieces is."""
    folder = tmp_path_factory.mktemp("pieces") / "scene"
    write_geotiff_pair(folder, 11, (530, 1040))
    with rasterio.open(folder / "before.tif") as source:
        profile, image_CHW = {**source.profile, "driver": "GTiff"}, source.read()
    mask_HW = np.full(image_CHW.shape[1:], 255, np.uint8)
    mask_HW[EMPTY] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(folder / "before.tif", "w", **profile) as target,
    ):
        target.write(image_CHW)
        target.write_mask(mask_HW)
    return folder


@pytest.fixture(scope="module")
def predict(scene):
    return partial(
        predict_flat,
        scene / "before.tif",
        scene / "after.tif",
        precision="fp32",
    )


@pytest.fixture(scope="module")
def whole(predict, tmp_path_factory):
    return predict(tmp_path_factory.mktemp("whole") / "out").folder


@pytest.fixture(scope="module")
def cut(predict, tmp_path_factory):
    # Moved: what it holds is named relative to it.
    made = predict(tmp_path_factory.mktemp("cut") / "out", cog_size=SIZE_PX).folder
    return made.rename(made.with_name("moved"))


@pytest.mark.parametrize("name", NAMES)
def test_the_virtual_map_reads_as_the_whole_one(whole, cut, name):
    assert not (cut / f"{name}.tif").exists()
    with rasterio.open(whole / f"{name}.tif") as one, rasterio.open(cut / f"{name}.vrt") as other:
        assert Grid.of(one) == Grid.of(other)
        assert (one.nodata, one.dtypes, one.tags(1)) == (other.nodata, other.dtypes, other.tags(1))
        assert (one.read() == other.read()).all()
        if name != "confidence":
            colours = other.colormap(1)
            assert colours == {value: one.colormap(1)[value] for value in colours}
            assert len(colours) > int(one.read(1, masked=True).max())


def test_overviews_of_the_virtual_map_are_those_of_its_pieces(predict, whole, tmp_path):
    folder = predict(tmp_path / "out", cog_size=1024).folder
    with rasterio.open(folder / "change.vrt") as other, rasterio.open(whole / "change.tif") as one:
        assert other.overviews(1) == [2]
        half = other.read(1, out_shape=(265, 520))
        assert (half == one.read(1, out_shape=(265, 520))).mean() > 0.99
    with rasterio.open(folder / "cogs" / "r00000_c00000" / "change.tif", overview_level=0) as piece:
        assert (half[:, :512] == piece.read(1)).all()


def test_everything_else_is_the_same(whole, cut):
    assert_same_bytes(cut, whole, [name for name in OUTPUTS if not name.endswith(".tif")])
    assert (cut / "change.qml").read_bytes() == (whole / "change.qml").read_bytes()
    # GDAL reads no .aux.xml of a VRT, whose attribute table is its own.
    assert not list(cut.glob("*.aux.xml"))
    tables = [
        [[cell.text for cell in row] for row in ElementTree.parse(path).iter("Row")]
        for path in (whole / "change.tif.aux.xml", cut / "change.vrt")
    ]
    assert len(tables[0]) > 3
    assert tables[0] == tables[1]


def test_a_killed_assembly_resumes_after_the_pieces_it_had_finished(scene, cut, tmp_path):
    output = tmp_path / "out"
    assembled = tmp_path / "out.partial" / "assembled"
    line = [sys.executable, "-m", "terradelta.cli", "predict", str(scene / "before.tif")]
    line += [str(scene / "after.tif"), "-o", str(output), "--precision", "fp32"]
    line += ["--cog-size", str(SIZE_PX)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while len(_list_pieces(assembled)) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
    kept = _list_pieces(assembled)
    assert kept
    leftover = assembled / "cogs" / "r00000_c00000" / "change.unfinished.tif"
    leftover.write_bytes(b"half")
    (assembled / "summary.json").write_text("half")
    subprocess.run(line, check=True, capture_output=True)
    assert kept.items() <= _list_pieces(output).items()
    files = [path.relative_to(cut) for path in cut.rglob("*.tif")]
    assert sorted(files) == sorted(path.relative_to(output) for path in output.rglob("*.tif"))
    assert_same_bytes(output, cut, [*files, "summary.json", "changes.gpkg"])


def _list_pieces(folder):
    """Return which file is which piece: writing one again makes another file."""
    pieces = (folder / "cogs").glob("*/*.tif")
    return {
        str(path.relative_to(folder)): path.stat().st_ino for path in pieces if path.stem in NAMES
    }


def test_pieces_without_data_are_left_out(cut):
    pieces = sorted(path.name for path in (cut / "cogs").iterdir())
    assert pieces == [
        "r00000_c00000",
        "r00000_c00002",
        "r00001_c00000",
        "r00001_c00001",
        "r00001_c00002",
    ]
    with rasterio.open(cut / "change.vrt") as dataset:
        assert (dataset.read(1)[EMPTY] == dataset.nodata).all()


def test_the_items_are_valid_and_say_where_what_lies(cut):
    content = json.loads((cut / "items.json").read_text())
    items = pystac.ItemCollection.from_file(str(cut / "items.json"))
    pieces = sorted(path.name for path in (cut / "cogs").iterdir())
    assert [item.id for item in items] == [f"out_{name}" for name in pieces]
    for feature, item in zip(content["features"], items, strict=True):
        # Extensions' schemas are on the web.
        validate_dict(feature, extensions=[])
        assert set(item.assets) == set(NAMES)
        for name, asset in item.assets.items():
            with rasterio.open(cut / asset.href) as dataset:
                assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert CRS.from_string(item.properties["proj:code"]) == dataset.crs
                assert Affine(*item.properties["proj:transform"]) == dataset.transform
                assert tuple(item.properties["proj:shape"]) == dataset.shape
                extra = asset.extra_fields
                assert (extra["data_type"], extra["nodata"]) == (dataset.dtypes[0], dataset.nodata)
                box = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
                if name != "confidence":
                    legend = {row["value"]: row for row in extra["classification:classes"]}
                    occurring = set(np.unique(dataset.read())) - {dataset.nodata}
                    assert occurring <= set(legend)
                    assert legend[0]["color_hint"] == "{:02X}{:02X}{:02X}".format(
                        *dataset.colormap(1)[0][:3]
                    )
        assert item.bbox == pytest.approx(box, abs=1e-6)
        assert shapely.geometry.shape(item.geometry).bounds == pytest.approx(box, abs=1e-6)
        assert item.geometry["coordinates"][0][0] == item.geometry["coordinates"][0][-1]
        # No image says when it was taken, so the items say when they were made.
        age = datetime.now(UTC) - item.datetime
        assert 0 <= age.total_seconds() < 3600


def test_the_items_are_a_mosaic_to_the_next_run(cut, whole):
    paths = list_rasters(f"{cut / 'items.json'}#change")
    assert paths is not None
    assert len(paths) == 5
    with rasterio.open(whole / "change.tif") as one:
        change_HW = one.read(1)
        for path in paths:
            with rasterio.open(path) as piece:
                window = one.window(*piece.bounds).round_offsets().round_lengths()
                assert (change_HW[window.toslices()] == piece.read(1)).all()


def test_dates_are_those_of_the_images_where_they_say(predict, scene, tmp_path):
    for date, taken in (("before", "2019-05-01T10:00:00Z"), ("after", "2024-06-02T10:00:00Z")):
        with rasterio.open(scene / f"{date}.tif") as dataset:
            period = [datetime.fromisoformat(taken)]
            assets = {"visual": {"href": str(scene / f"{date}.tif")}}
            item = describe_item(date, Grid.of(dataset), period, assets)
        write_json(tmp_path / f"{date}.json", item)
    result = td.predict(
        tmp_path / "before.json",
        tmp_path / "after.json",
        tmp_path / "out",
        **sort_options(predict.keywords, cog_size=SIZE_PX),
    )
    for item in pystac.ItemCollection.from_file(str(result.folder / "items.json")):
        assert item.datetime is None
        assert item.common_metadata.start_datetime == datetime(2019, 5, 1, 10, tzinfo=UTC)
        assert item.common_metadata.end_datetime == datetime(2024, 6, 2, 10, tzinfo=UTC)


def test_an_item_across_the_antimeridian_has_two_parts():
    crs = CRS.from_epsg(32601)
    grid = Grid(crs, Affine(10, 0, 300_000, 0, -10, 7_000_000), 10_000, 2_000)
    item = describe_item("fiji", grid, [datetime(2024, 1, 1, tzinfo=UTC)], {})
    validate_dict(item, extensions=[])
    west, _, east, _ = item["bbox"]
    assert west > 170
    assert east < -170
    area = shapely.geometry.shape(item["geometry"]).area
    assert 0 < area < 2 * 360 / 40_000 * 100 * 360 / 40_000 * 20 / np.cos(np.radians(63))


def test_what_reads_a_prediction_reads_this_one(whole, cut, tmp_path):
    """Samples, zones, report, viewer and the picture of a notebook."""
    with ChangeMap(whole) as one, ChangeMap(cut) as other:
        assert other.path.name == "change.vrt"
        assert one.grid == other.grid
    td.report(cut, overwrite=True)
    td.sample(cut, tmp_path / "points.gpkg")
    page = (cut / "report.html").read_text()
    assert "cannot be" not in page
    tiles = [ChangeTiles(Result.load(folder)) for folder in (whole, cut)]
    zoom = tiles[0].max_zoom
    west, south, east, north = tiles[0].bounds
    middle = MERCATOR_TILES.tile((west + east) / 2, (south + north) / 2, zoom)
    drawn = [tile.draw((zoom, middle.x, middle.y)) for tile in tiles]
    one, other = (np.asarray(Image.open(BytesIO(png)).convert("RGBA")) for png in drawn)
    assert (one == other).all()
    assert one[..., 3].any()
    assert td.open_prediction(cut)._repr_html_() == td.open_prediction(whole)._repr_html_().replace(
        str(whole), str(cut)
    )


def test_sieved_patches_are_gone_from_the_pieces_too(predict, tmp_path):
    one = predict(tmp_path / "one", min_area="30m2").folder
    other = predict(tmp_path / "other", min_area="30m2", cog_size=SIZE_PX).folder
    for name in NAMES:
        with (
            rasterio.open(one / f"{name}.tif") as whole_map,
            rasterio.open(other / f"{name}.vrt") as virtual,
        ):
            assert (whole_map.read() == virtual.read()).all()


@pytest.mark.parametrize("size", [0, 256, 1000])
def test_sizes_that_do_not_fit_overviews_are_refused(predict, tmp_path, size):
    with pytest.raises(ArgumentError, match=f"{size} x {size}"):
        predict(tmp_path / "out", cog_size=size)
    assert not (tmp_path / "out.partial").exists()


def test_pictures_without_place_are_refused(scene, predict, tmp_path):
    paths = []
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as source:
            paths.append(tmp_path / f"{date}.tif")
            shape = {"count": 3, "height": 530, "width": 1040, "dtype": "uint8"}
            with (
                pytest.warns(rasterio.errors.NotGeoreferencedWarning),
                rasterio.open(paths[-1], "w", driver="GTiff", **shape) as target,
            ):
                target.write(source.read([1, 2, 3]))
    with pytest.raises(ArgumentError, match="no coordinate reference system"):
        td.predict(
            *paths,
            tmp_path / "out",
            **sort_options(predict.keywords, cog_size=SIZE_PX),
        )
    assert not (tmp_path / "out").exists()
