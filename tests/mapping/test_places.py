"""Maps of images that do not lie on the Earth, or not wholly: all verbs answer or say why not."""

import json
import math

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

import terradelta as td
from terradelta.data.synthetic import draw_pair
from terradelta.errors import RasterError
from terradelta.geo.area import find_ground
from terradelta.geo.grid import Grid, cut_window
from terradelta.viewer.result import Result
from terradelta.viewer.tiles import ChangeTiles, ImageTiles

DISC = "+proj=geos +lon_0=-75 +h=35786023 +ellps=GRS80 +units=m +no_defs +sweep=x"
SITE = 'LOCAL_CS["site grid",UNIT["metre",1]]'
PLANES = {
    "site": SITE,
    "mars": "IAU_2015:49900",
    "europa": "+proj=eqc +R=1560800 +units=m",
    "height": "EPSG:5773",
}
SIDE_PX = 192


def write_pair(folder, crs, transform, after_transform=None):
    folder.mkdir()
    scene = draw_pair(3, SIDE_PX)
    places = {"before": transform, "after": after_transform or transform}
    for date, place in places.items():
        image_CHW = getattr(scene, f"{date}_CHW")
        shape = {"count": 3, "height": SIDE_PX, "width": SIDE_PX, "dtype": "uint8"}
        options = {"driver": "GTiff", "photometric": "RGB", "crs": crs, "transform": place}
        with rasterio.open(folder / f"{date}.tif", "w", **shape, **options) as dataset:
            dataset.write(image_CHW)
    return folder / "before.tif", folder / "after.tif"


@pytest.fixture(scope="module")
def disc(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disc")
    step = 2 * 5_450_000 / SIDE_PX
    place = Affine(step, 0, -5_450_000, 0, -step, 5_450_000)
    pair = write_pair(folder / "in", CRS.from_user_input(DISC), place)
    return td.predict(
        *pair,
        folder / "out",
        maps=td.MapOptions(picture=True),
        runtime=td.Runtime(precision="fp32"),
        model=model_folder,
    )


def test_pixels_off_the_earth_are_nodata_and_all_numbers_are_finite(disc):
    with rasterio.open(disc.folder / "change.tif") as dataset:
        change_HW, grid = dataset.read(1), Grid.of(dataset)
    ground_HW = find_ground(grid, cut_window(0, 0, grid.width, grid.height))
    assert ((change_HW != 255) == ground_HW).all()
    assert 0.7 < ground_HW.mean() < 0.8
    assert (change_HW[ground_HW] > 0).any()
    summary = json.loads((disc.folder / "summary.json").read_text(), parse_constant=refuse)
    assert 1.9e10 < summary["valid_ha"] < 2.3e10
    frame = geopandas.read_file(disc.folder / "changes.gpkg", layer="changes")
    assert np.isfinite(frame.area_m2).all()
    assert (frame.area_m2 > 0).all()
    assert frame.area_m2.sum() / 10_000 == pytest.approx(summary["changed_ha"])
    assert (disc.folder / "report.html").stat().st_size > 10_000


def refuse(constant):
    raise AssertionError(f"{constant} in a JSON file")


def test_the_viewer_shows_a_disc_where_it_lies(disc):
    result = Result.load(disc.folder)
    for tiles in (ImageTiles(result, "before"), ChangeTiles(result)):
        west, south, east, north = tiles.bounds
        assert -165 < west < -140
        assert -10 < east < 15
        assert -85 < south < -60
        assert 60 < north < 85
        assert tiles.draw((1, 0, 0))


@pytest.fixture(scope="module", params=PLANES)
def plane(request, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    place = Affine(0.5, 0, 30, 0, -0.5, 80)
    after = place @ Affine.translation(7.5, -4.25)
    pair = write_pair(folder / "in", CRS.from_user_input(PLANES[request.param]), place, after)
    return td.predict(
        *pair,
        folder / "out",
        maps=td.MapOptions(picture=True),
        runtime=td.Runtime(precision="fp32"),
        model=model_folder,
    )


def test_a_map_of_another_planet_is_in_pixels_and_its_files_can_be_read(plane):
    assert plane.summary.valid_ha is None
    assert plane.summary.valid_pixels > 30_000
    with rasterio.open(plane.folder / "change.tif") as dataset:
        change_HW = dataset.read(1)
        assert dataset.crs is None
        # The coordinates stay, so that the map can be laid over the images.
        assert dataset.transform @ (0, 0) == pytest.approx((33.5, 80))
    frame = geopandas.read_file(plane.folder / "changes.gpkg", layer="changes")
    assert frame.crs is None
    assert frame.pixels.sum() == ((change_HW > 0) & (change_HW < 255)).sum()
    assert frame.area_m2.isna().all()
    headline = (plane.folder / "report.html").read_text().split("<h1")[1].split("</h1>")[0]
    assert "hectare" not in headline
    td.report(plane.folder, overwrite=True)


def test_verbs_that_need_ground_say_so(plane, tmp_path):
    with pytest.raises(RasterError, match="no coordinate reference system"):
        Result.load(plane.folder)
    with pytest.raises(RasterError, match="no coordinate reference system"):
        td.sample(plane.folder, tmp_path / "points.gpkg")
    with pytest.raises(RasterError, match="no coordinate reference system"):
        td.stats(plane.folder, tmp_path / "zones.gpkg", tmp_path / "stats")


def test_mosaics_of_another_planet_are_refused_by_name(tmp_path, model_folder):
    before, after = write_pair(tmp_path / "in", CRS.from_wkt(SITE), Affine(1, 0, 9, 0, -1, 9))
    with pytest.raises(
        RasterError, match=r"before.tif is in \"site grid\".*cannot be part of a mosaic"
    ):
        td.predict([before, before], [after, after], tmp_path / "out", model=model_folder)


@pytest.mark.parametrize("kind", ["nan", "far"])
def test_a_mosaic_with_a_raster_in_no_place_is_refused_by_name(kind, tmp_path, model_folder):
    good = write_pair(tmp_path / "good", CRS.from_epsg(32633), Affine(1, 0, 5e5, 0, -1, 5e6))
    place = Affine(1, 0, math.nan, 0, -1, 5e6) if kind == "nan" else Affine(1, 0, 1e9, 0, -1, 1e9)
    bad = write_pair(tmp_path / "bad", CRS.from_epsg(32633), place)
    with pytest.raises(RasterError, match=r"bad/before.tif"):
        td.predict([good[0], bad[0]], good[1], tmp_path / "out", model=model_folder)


def test_square_pixels_are_announced_once(model_folder, tmp_path, caplog):
    """Square degrees at 60 degrees north are twice as long as wide."""
    pair = write_pair(tmp_path / "in", "EPSG:4326", Affine(5e-6, 0, 25, 0, -5e-6, 60))
    report = td.check(*pair, model=model_folder)
    (grid,) = [finding for finding in report.findings if finding.name == "grid"]
    assert "2.00 times as long as wide" in grid.message
    with caplog.at_level("INFO", logger="terradelta"):
        td.predict(
            *pair, tmp_path / "out", runtime=td.Runtime(precision="fp32"), model=model_folder
        )
    assert caplog.text.count("times as long as wide") == 1
