"""Where a raster lies: on the Earth, in a plane with a notice, or nowhere, which is an error."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.area import find_ground, measure_pixels
from terradelta.geo.grid import Grid
from terradelta.geo.map_grid import choose_grid, name_metric_grid, parse_grid, span_grid
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import PairOptions
from terradelta.geo.placement import place_raster, reaches_off_earth
from terradelta.geo.scale import find_scale_caution, measure_pixel_size
from terradelta.geo.source import open_source

CASES = Path(__file__).parents[2].resolve().parent / "shared" / "cases" / "rasters"
GOES = "+proj=geos +lon_0=-75 +h=35786023 +ellps=GRS80 +units=m +no_defs +sweep=x"
RGB = ("red", "green", "blue")
EARTH_M2 = 5.1007e14


def list_codes():
    """Codes of the PROJ database, a few of each authority and kind."""
    random = np.random.default_rng(0)
    codes = []
    for authority in ("EPSG", "ESRI", "IAU_2015"):
        for kind in pyproj.enums.PJType:
            try:
                found = sorted(pyproj.get_codes(authority, kind))
            except pyproj.exceptions.ProjError:
                continue
            picked = random.permutation(found)[:25].tolist() if kind.name.endswith("CRS") else []
            codes += [f"{authority}:{code}" for code in picked]
    return sorted(set(codes))


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-12, 1e300, -1e300, float("nan"), float("inf"), 90, 180]),
    st.floats(-1e9, 1e9),
    st.floats(-100, 100),
)
TRANSFORMS = st.one_of(
    st.builds(Affine, *[NUMBERS] * 6),
    st.builds(
        lambda x, y, size, up: Affine(size, 0, x, 0, up * size, y),
        st.floats(-1e7, 1e7),
        st.floats(-1e7, 1e7),
        st.floats(1e-6, 1e5),
        st.sampled_from([1, -1]),
    ),
    st.builds(
        lambda x, y, size: Affine(size, 0, x, 0, -size, y),
        st.floats(-180, 180),
        st.floats(-90, 90),
        st.floats(1e-6, 2),
    ),
)


@settings(max_examples=50, deadline=None)
@given(
    code=st.sampled_from(list_codes()),
    transform=TRANSFORMS,
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
@example(code="EPSG:10172", transform=Affine(1, 0, 0, 0, 1e-12, 16384), size=(1, 1))
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_any_raster_is_placed_with_finite_numbers_or_refused(code, transform, size):
    try:
        crs = CRS.from_user_input(code)
    except CRSError:
        return
    raster = SimpleNamespace(
        name="file.tif", crs=crs, transform=transform, width=size[0], height=size[1]
    )
    refused = None
    try:
        placement = place_raster(raster)
        chosen = choose_grid(raster, raster, "before")
    except RasterError as error:
        refused = error
    if refused is not None:
        assert "file.tif" in refused.problem
        assert refused.fix
        return
    assert np.isfinite(chosen.grid.bounds).all()
    grid = placement.grid
    assert np.isfinite(grid.bounds).all()
    assert all(np.isfinite(side) and side > 0 for side in grid.pixel_size)
    if grid.crs is None:
        assert placement.plane == crs
        assert placement.caution is not None
        return
    corner = Window(max(0, grid.width - 3), max(0, grid.height - 3), 3, 3)
    areas_HW = measure_pixels(grid, corner)
    assert np.isfinite(areas_HW).all()
    assert (areas_HW >= 0).all()
    size_m = measure_pixel_size(grid)
    assert size_m is None or 0 < size_m < 1e8
    assert parse_grid(name_metric_grid(grid) or "before")


def test_pixels_off_the_earth_have_no_area_and_the_others_sum_to_what_a_satellite_sees():
    side = 20_054.962950561665
    grid = Grid(
        CRS.from_user_input(GOES), Affine(side, 0, -271 * side, 0, -side, 271 * side), 542, 542
    )
    assert reaches_off_earth(grid)
    whole = Window(0, 0, 542, 542)
    ground_HW, areas_HW = find_ground(grid, whole), measure_pixels(grid, whole)
    assert np.isfinite(areas_HW).all()
    assert (areas_HW[ground_HW] > 0).all()
    assert 0.7 < ground_HW.mean() < 0.8
    # A sphere's part that is seen from a distance d of its middle: half of (1 - R / d).
    seen = EARTH_M2 * (1 - 6.371e6 / (6.371e6 + 3.5786e7)) / 2
    assert areas_HW.sum() == pytest.approx(seen, rel=0.02)
    part = Window(0, 200, 60, 50)
    assert (measure_pixels(grid, part) == areas_HW[200:250, :60]).all()
    assert (find_ground(grid, part) == ground_HW[200:250, :60]).all()


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3857", "EPSG:4326", "EPSG:3413"])
def test_usual_grids_do_not_reach_off_the_earth(crs):
    crs = CRS.from_user_input(crs)
    t = Affine(0.01, 0, 12, 0, -0.01, 80) if crs.is_geographic else Affine(10, 0, 5e5, 0, -10, 5e6)
    assert not reaches_off_earth(Grid(crs, t, 500, 400))


@pytest.mark.parametrize(
    ("crs", "pixel", "origin"),
    [
        ("EPSG:2053", (-10, 10), (-50_000, 3_500_000)),  # west and south
        ("EPSG:5513", (-10, 10), (760_000, 1_040_000)),
        ("EPSG:3413", (100, -100), (0, 1e6)),  # beyond the pole: south is up
        ("EPSG:3031", (100, -100), (0, -1e6)),
    ],
)
def test_axes_that_point_elsewhere_are_no_mirrors(tmp_path, crs, pixel, origin):
    place = Affine(pixel[0], 0, origin[0], 0, pixel[1], origin[1])
    path = write(tmp_path / "a.tif", crs, place)
    with RasterPair(path, path, RGB) as pair:
        grid = pair.grid
        shown_CHW = pair.read(Window(0, 0, grid.width, grid.height)).before_CHW
    points = grid.transform @ (np.array([5, 9, 5]), np.array([5, 5, 9]))
    longitude, latitude = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*points)
    across, down = (
        (((longitude[i] - longitude[0]) + 180) % 360 - 180, latitude[i] - latitude[0])
        for i in (1, 2)
    )
    # Seen from above, rows turn to the right of columns: the image is no mirror image.
    assert across[0] * down[1] - across[1] * down[0] < 0
    with rasterio.open(path) as dataset:
        own_CHW = dataset.read()
    if crs != "EPSG:5513":
        assert (shown_CHW == own_CHW).all()


def write(path, crs, transform, size=(12, 10), **profile):
    width, height = size
    image_CHW = np.random.default_rng(1).integers(1, 255, (3, height, width), np.uint8)
    options = {"driver": "GTiff", "photometric": "RGB", "dtype": "uint8", "count": 3, **profile}
    with rasterio.open(
        path, "w", crs=crs, transform=transform, width=width, height=height, **options
    ) as dataset:
        dataset.write(image_CHW)
    return path


def test_two_notices_of_one_planet_are_one_and_the_pair_has_it(tmp_path):
    place = Affine(10, 0, 100, 0, -10, 100)
    paths = [write(tmp_path / f"{name}.tif", "IAU_2015:49900", place) for name in "ab"]
    with RasterPair(*paths, RGB) as pair:
        (caution,) = pair.cautions
    assert "IAU_2015:49900" in caution.message
    assert "no hectares" in caution.message


def test_a_squeezed_grid_that_was_asked_for_is_doubtful_and_the_fix_is_square(tmp_path):
    place = Affine(1e-5, 0, 18, 0, -1e-5, 60)
    path = write(tmp_path / "a.tif", "EPSG:4326", place, (90, 70))
    with RasterPair(path, path, RGB, PairOptions(grid=1e-5)) as pair:
        (caution,) = pair.cautions
    with RasterPair(path, path, RGB, PairOptions(grid=caution.fix.split()[-1])) as pair:
        assert pair.cautions == ()
        assert pair.grid.crs == CRS.from_epsg(32634)
    with RasterPair(path, path, RGB) as pair:
        assert pair.cautions == ()
        sides = pair.grid.pixel_size
        assert sides[0] / sides[1] == pytest.approx(2, rel=0.05)
        assert pair.grid.width * pair.grid.height == pytest.approx(90 * 70, rel=0.05)


def test_what_is_asked_for_twice_is_done_and_what_cannot_be_is_not():
    utm, bounds = CRS.from_epsg(32633), (4e5, 5e6, 4.01e5, 5.001e6)
    source = Grid(utm, Affine(10, 0, 4e5, 0, -10, 5.001e6), 100, 100)
    with pytest.raises(ArgumentError, match=r"--grid 0.1 .*16 times finer.*10 m") as caught:
        span_grid(utm, bounds, parse_grid("0.1"), [source], "--grid 0.1")
    assert "--grid 0.1!" in caught.value.fix
    assert span_grid(utm, bounds, parse_grid("0.1!"), [source], "--grid 0.1!").width == 10_000
    with pytest.raises(ArgumentError, match="more than a raster can have"):
        span_grid(utm, bounds, parse_grid("1e-7!"), [source], "--grid 1e-7!")


def test_an_unknown_pixel_size_is_a_caution():
    plane = Grid(None, Affine.identity(), 9, 9)
    caution = find_scale_caution(plane, (0.3, 0.8))
    assert caution is not None
    assert "unknown" in caution.message
    assert find_scale_caution(plane, None) is None
    fitting = Grid(CRS.from_epsg(32633), Affine(0.5, 0, 4e5, 0, -0.5, 5e6), 9, 9)
    assert find_scale_caution(fitting, (0.3, 0.8)) is None
    coarse = find_scale_caution(fitting, (0.1, 0.2))
    assert coarse is not None
    assert coarse.name == "scale"
    # Finer pixels are averaged, up to a number.
    assert find_scale_caution(fitting, (1, 4)) is None
    far_finer = find_scale_caution(fitting, (3, 8))
    assert far_finer is not None
    assert "--grid" in far_finer.fix


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is absent")
def test_the_files_that_went_wrong_are_placed():
    with open_source(CASES / "rioxarray_rpcs.tif") as dataset:
        left, bottom, right, top = place_raster(dataset).grid.bounds
        assert dataset.crs == CRS.from_epsg(4326)
    assert 46.7 < left < right < 46.75
    assert 39.85 < bottom < top < 39.9
    with open_source(CASES / "riotiler_nonearth.tif") as dataset:
        assert place_raster(dataset).grid.crs is None
        assert place_raster(dataset).caution is not None
    with open_source(CASES / "rasterio_goes.tif") as dataset:
        assert reaches_off_earth(place_raster(dataset).grid)
    with open_source(CASES / "mapserver_rotated_pole.tif") as dataset:
        assert place_raster(dataset).grid.crs is None
