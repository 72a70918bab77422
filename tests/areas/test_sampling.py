"""Points drawn from a map: each pixel of a stratum as likely, what is written, what is hidden."""

import json
import shutil

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from scipy.stats import chisquare

from terradelta.areas import map_census as census_module
from terradelta.areas.design import SampleDesign
from terradelta.areas.map_census import ChangeMap, draw_pixels, take_census
from terradelta.areas.sampling import sample
from terradelta.areas.stratification import NEAR, UNCHANGED, stratify
from terradelta.areas.stratification import RARE as RARE_STRATUM
from terradelta.areas.survey import POINTS, read_survey
from terradelta.classes import BINARY, SENSEEARTH
from terradelta.errors import ArgumentError, OutputExistsError, RasterError
from terradelta.geo.grid import Grid
from tests.areas.maps import DEGREES, FREQUENT, RARE, write_prediction

SMALL = Grid(CRS.from_epsg(32632), Affine(10, 0, 500_000, 0, -10, 5_000_000), 23, 17)


@pytest.fixture
def small(tmp_path):
    """A map of a few hundred pixels: two transitions, nodata along the top."""
    change_HW = np.zeros((17, 23), np.uint8)
    change_HW[6:11, 4:15] = FREQUENT
    change_HW[14, 20:22] = RARE
    change_HW[:2] = 255
    return write_prediction(tmp_path / "small", change_HW, SMALL), change_HW


@pytest.fixture
def tiny_blocks(monkeypatch):
    monkeypatch.setattr(census_module, "BLOCK_SIZE_PX", 12)


def test_a_census_has_the_maps_pixels_and_hectares(drawn):
    with ChangeMap(drawn) as change_map:
        census = take_census(change_map)
    with rasterio.open(drawn / "change.tif") as dataset:
        counts = np.bincount(dataset.read(1).ravel(), minlength=50)[:50]
    assert census.pixels_C.tolist() == counts.tolist()
    # Pixels of 10 m, on a meridian that UTM shows at 0.9996 of its size.
    assert census.area_m2_C == pytest.approx(counts * 100 / 0.9996**2, rel=1e-4)


def test_ground_near_change_is_found_across_blocks(small, tiny_blocks):
    folder, change_HW = small
    near_HW = np.zeros_like(change_HW, dtype=bool)
    rows, columns = np.nonzero((change_HW > 0) & (change_HW < 255))
    for row, column in np.ndindex(change_HW.shape):
        distances = np.hypot(rows - row, columns - column)
        near_HW[row, column] = distances.min() <= 3 and change_HW[row, column] == 0
    with ChangeMap(folder, buffer_px=3) as change_map:
        assert len(change_map.windows) == 4
        for window in change_map.windows:
            here = window.toslices()
            assert ((change_map.read(window) == change_map.near_code) == near_HW[here]).all()


@pytest.mark.usefixtures("tiny_blocks")
def test_every_pixel_of_a_stratum_is_as_likely_and_none_is_drawn_twice(small):
    folder, change_HW = small
    drawn_HW = np.zeros(change_HW.shape, int)
    with ChangeMap(folder) as change_map:
        census = take_census(change_map)
        stratum_C = stratify(census, SENSEEARTH, SampleDesign()).stratum_C
        for seed in range(60):
            pixels = draw_pixels(change_map, census, stratum_C, np.array([40, 11, 1]), seed)
            places = pixels.row_N, pixels.column_N
            assert len(set(zip(*places, strict=True))) == 52
            assert (pixels.code_N == change_HW[places]).all()
            assert (stratum_C[pixels.code_N] == pixels.stratum_N).all()
            drawn_HW[places] += 1
    assert drawn_HW[change_HW == 255].sum() == 0
    for transition, points in ((0, 40), (FREQUENT, 11), (RARE, 1)):
        counts = drawn_HW[change_HW == transition]
        assert counts.sum() == 60 * points
        # Of draws without replacement, counts spread a little less than the test expects.
        assert chisquare(counts).pvalue > 1e-3


def test_where_a_point_lies_is_where_its_pixel_is(drawn_points, drawn):
    survey = read_survey(drawn_points)
    points = geopandas.read_file(drawn_points, layer=POINTS)
    with rasterio.open(drawn / "change.tif") as dataset:
        assert points.crs == dataset.crs
        found = [int(v[0]) for v in dataset.sample(points.get_coordinates().to_numpy())]
    assert found == survey.pixels.code_N.tolist()
    assert points["point"].tolist() == list(range(1, 241))


def test_strata_are_unchanged_near_change_frequent_and_rare(drawn_points):
    survey = read_survey(drawn_points)
    names = survey.strata.names
    assert names[:2] == (UNCHANGED, NEAR)
    assert names[-1] == RARE_STRATUM
    assert set(names[2:-1]) == {"tree → building", "ground → low vegetation"}
    rare = survey.pixels.code_N[survey.pixels.stratum_N == len(names) - 1]
    assert set(rare.tolist()) == {RARE}
    assert np.bincount(survey.pixels.stratum_N).min() == 20
    assert survey.strata.area_m2_H.sum() == pytest.approx(survey.mapped_area_m2_T.sum())


def test_a_larger_share_pools_more_transitions(drawn, tmp_path):
    design = SampleDesign(points=150, stratum_share=0.4)
    names = sample(drawn, tmp_path / "p.gpkg", design, chip_size_px=0).strata.names
    assert names == (UNCHANGED, "tree → building", RARE_STRATUM)


def test_the_standard_error_sets_the_points_and_the_floor_adds_to_them(drawn, tmp_path):
    def count(**options):
        design = SampleDesign(**options)
        survey = sample(drawn, tmp_path / "p.gpkg", design, chip_size_px=0, overwrite=True)
        return np.bincount(survey.pixels.stratum_N)

    few, many = count(standard_error=0.02, floor=2), count(standard_error=0.01, floor=2)
    assert many.sum() / few.sum() == pytest.approx(4, rel=0.1)
    lifted = count(standard_error=0.01, floor=60)
    assert lifted.tolist() == np.maximum(many, 60).tolist()


def test_a_seed_gives_the_same_file_and_another_one_other_points(drawn, drawn_points, tmp_path):
    design = SampleDesign(points=240, floor=20, buffer_px=2, seed=3)
    again = drawn_points.with_name("again.gpkg")
    sample(drawn, again, design, chip_size_px=0)
    assert again.read_bytes() == drawn_points.read_bytes()
    other = SampleDesign(points=240, floor=20, buffer_px=2, seed=4)
    pixels = sample(drawn, tmp_path / "p.gpkg", other, chip_size_px=0).pixels
    mine = set(zip(*read_survey(drawn_points).pixels[2:4], strict=True))
    assert len(mine & set(zip(pixels.row_N, pixels.column_N, strict=True))) < 30


def test_labellers_see_nothing_of_the_maps_answer(drawn_points):
    assert pyogrio.read_info(drawn_points, layer=0)["layer_name"] == POINTS
    points = geopandas.read_file(drawn_points, layer=POINTS)
    assert points.columns.tolist() == ["point", "changed", "from", "to", "note", "geometry"]
    assert points[["changed", "from", "to", "note"]].isna().all(axis=None)
    # Nor does the order of the points tell: strata are spread evenly over it.
    survey = read_survey(drawn_points)
    for stratum in range(len(survey.strata)):
        places = np.flatnonzero(survey.pixels.stratum_N == stratum)
        error = 240 / np.sqrt(12 * len(places))
        assert abs(places.mean() - 119.5) < 4 * error


def test_chips_show_the_point_in_the_middle_of_both_dates(small, tmp_path):
    folder, change_HW = small
    path = tmp_path / "points.gpkg"
    survey = sample(folder, path, SampleDesign(points=12, floor=2), chip_size_px=8)
    table = geopandas.read_file(path, layer=POINTS)
    assert sorted(p.name for p in (tmp_path / "points_chips").glob("*.png")) == sorted(
        f"{number:02}_{date}.png" for number in range(1, 13) for date in ("before", "after")
    )
    for number, row, column in zip(
        table["point"], survey.pixels.row_N, survey.pixels.column_N, strict=True
    ):
        chip_names = table.loc[number - 1, ["before_chip", "after_chip"]]
        for class_id, name in zip(
            SENSEEARTH.decode_transition(int(change_HW[row, column])), chip_names, strict=True
        ):
            with Image.open(tmp_path / name) as picture:
                # 60 px a pixel: the middle of the framed one, and what lies above the map.
                assert picture.size == (480, 480)
                shade = 40 + 4 * class_id
                assert picture.getpixel((4 * 60 + 30, 4 * 60 + 30)) == (
                    shade,
                    shade + 40,
                    255 - shade,
                )
                assert picture.getpixel((4 * 60 + 30, 4 * 60 - 1)) == (255, 0, 255)
                outside = picture.getpixel((30, 30))
                assert (outside == (90, 90, 90)) == (row < 4 or column < 4)


def test_pixels_of_a_geographic_grid_are_as_large_as_they_are(truth_HW, tmp_path):
    folder = write_prediction(tmp_path / "out", truth_HW, DEGREES)
    survey = sample(folder, tmp_path / "p.gpkg", SampleDesign(points=300), chip_size_px=0)
    areas_m2, rows = survey.pixels.area_m2_N, survey.pixels.row_N
    latitude = np.radians(70 - 0.35 * (rows + 0.5))
    assert areas_m2 / np.cos(latitude) == pytest.approx(0.25 * 0.35 * 111_200**2, rel=0.015)
    assert areas_m2.max() / areas_m2.min() > 2.5


def test_a_map_of_changed_or_not_has_no_land_cover_to_label(tmp_path):
    change_HW = np.zeros((17, 23), np.uint8)
    change_HW[5:9, 5:9] = 3
    folder = write_prediction(tmp_path / "out", change_HW, SMALL, BINARY)
    sample(folder, tmp_path / "p.gpkg", SampleDesign(points=40, floor=5), chip_size_px=0)
    points = geopandas.read_file(tmp_path / "p.gpkg", layer=POINTS)
    assert points.columns.tolist() == ["point", "changed", "note", "geometry"]


def test_a_map_without_change_has_one_stratum(tmp_path):
    folder = write_prediction(tmp_path / "out", np.zeros((17, 23), np.uint8), SMALL)
    design = SampleDesign(points=60, buffer_px=3)
    assert sample(folder, tmp_path / "p.gpkg", design, chip_size_px=0).strata.names == (UNCHANGED,)


def test_what_cannot_be_sampled_is_refused(small, points, tmp_path):
    folder, change_HW = small
    out = tmp_path / "p.gpkg"
    with pytest.raises(OutputExistsError):
        sample(folder, points, chip_size_px=0)
    with pytest.raises(ArgumentError, match=r"p\.shp is not a GeoPackage"):
        sample(folder, tmp_path / "p.shp")
    with pytest.raises(ArgumentError, match="3 strata of at least 50"):
        sample(folder, out, SampleDesign(points=100, stratum_share=0.001), chip_size_px=0)
    with pytest.raises(RasterError, match="cannot be read as a map of classes"):
        sample(tmp_path / "missing", out)
    empty = write_prediction(tmp_path / "empty", np.full((17, 23), 255, np.uint8), SMALL)
    with pytest.raises(RasterError, match="holds no data"):
        sample(empty, out, chip_size_px=0)
    nowhere = Grid(None, Affine.scale(10, -10), 23, 17)
    flat = write_prediction(tmp_path / "flat", change_HW, nowhere)
    with pytest.raises(RasterError, match="no coordinate reference system"):
        sample(flat, out, chip_size_px=0)
    assert not out.exists()


def test_images_that_were_moved_are_asked_for(small, tmp_path):
    folder, _ = small
    run = json.loads((folder / "run.json").read_text())
    run["before"]["path"] = str(tmp_path / "gone.tif")
    (folder / "run.json").write_text(json.dumps(run))
    design = SampleDesign(points=12, floor=2)
    with pytest.raises(RasterError, match=r"gone\.tif") as caught:
        sample(folder, tmp_path / "p.gpkg", design)
    assert "--before" in caught.value.fix
    assert not list(tmp_path.glob("p*"))
    shutil.copy(folder / "before.tif", tmp_path / "here.tif")
    sample(folder, tmp_path / "p.gpkg", design, before=tmp_path / "here.tif")
    assert len(list((tmp_path / "p_chips").glob("*.png"))) == 24


def test_images_that_were_replaced_are_not_drawn(small, tmp_path):
    folder, _ = small
    for name in ("before.tif", "after.tif"):
        with rasterio.open(folder / name) as dataset:
            image_CHW, profile = dataset.read(), dataset.profile
        profile["height"] -= 5
        with rasterio.open(folder / name, "w", **profile) as dataset:
            dataset.write(image_CHW[:, :-5])
    with pytest.raises(RasterError, match=r"the images now share .* they were replaced"):
        sample(folder, tmp_path / "p.gpkg", SampleDesign(points=12, floor=2))
    assert not list(tmp_path.glob("p*"))
