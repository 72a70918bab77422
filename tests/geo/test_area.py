import itertools

import numpy as np
import pytest
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid

GRIDS = {
    "utm": Grid(CRS.from_epsg(32632), Affine(10, 0, 691_000, 0, -10, 5_335_000), 150, 90),
    "degrees": Grid(CRS.from_epsg(4326), Affine(0.01, 0, 11.0, 0, -0.01, 61.0), 150, 90),
    "pixels of a tenth of a degree": Grid(
        CRS.from_epsg(4326), Affine(0.1, 0, 11.0, 0, -0.1, 61.0), 150, 90
    ),
    "web mercator at 60 N": Grid(
        CRS.from_epsg(3857), Affine(20, 0, 1_200_000, 0, -20, 8_400_000), 150, 90
    ),
    "rotated": Grid(
        CRS.from_epsg(32632),
        Affine.translation(691_000, 5_335_000) @ Affine.rotation(30) @ Affine.scale(10, -10),
        150,
        90,
    ),
    "across the antimeridian": Grid(
        CRS.from_epsg(3832), Affine(100, 0, 3_330_000, 0, -100, -1_900_000), 150, 90
    ),
    "the pole in a pixel's centre": Grid(
        CRS.from_epsg(3413), Affine(25, 0, -64 * 25 - 12.5, 0, -25, 12.5), 150, 90
    ),
    "the pole in a pixel's corner": Grid(
        CRS.from_epsg(3031), Affine(1000, 0, -75_000, 0, -1000, 45_000), 150, 90
    ),
}


def measure_polygon(grid: Grid, window: Window) -> float:
    """The geodesic area of the window's outline, densified: an independent computation."""
    transformer = Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
    right, bottom = window.width, window.height
    corners = [(0, 0), (right, 0), (right, bottom), (0, bottom), (0, 0)]
    outline = [
        (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)
        for a, b in itertools.pairwise(corners)
        for t in np.linspace(0, 1, 200, endpoint=False)
    ]
    xs, ys = zip(
        *(grid.transform @ (window.col_off + c, window.row_off + r) for c, r in outline),
        strict=True,
    )
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(*transformer.transform(xs, ys))
    return abs(area)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("window", [Window(0, 0, 150, 90), Window(37, 11, 64, 1)])
def test_pixel_areas_sum_to_the_geodesic_area_of_the_window(name, window):
    grid = GRIDS[name]
    areas = measure_pixels(grid, window)
    assert areas.shape == (window.height, window.width)
    assert areas.sum() == pytest.approx(measure_polygon(grid, window), rel=1e-6)


def test_web_mercator_is_four_times_too_large_at_60_north():
    grid = GRIDS["web mercator at 60 N"]
    true_share = measure_pixels(grid, Window(0, 0, 10, 10)).mean() / 400
    assert true_share == pytest.approx(np.cos(np.radians(60)) ** 2, rel=0.03)


def test_a_window_has_the_areas_of_the_whole():
    grid = GRIDS["degrees"]
    whole = measure_pixels(grid, Window(0, 0, 150, 90))
    part = measure_pixels(grid, Window(40, 30, 50, 41))
    assert np.allclose(part, whole[30:71, 40:90], rtol=1e-7)


@pytest.mark.parametrize("inside_px", [70, 250, 391])
def test_only_pixels_near_the_end_of_a_projection_have_no_area(inside_px):
    """Mollweide ends at the antimeridian: a lattice that reached far beyond would lose the land."""
    crs = CRS.from_string("ESRI:54009")
    end, _ = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(180, 0)
    grid = Grid(crs, Affine(10, 0, end - 10 * inside_px, 0, -10, 450), 450, 90)
    areas = measure_pixels(grid, Window(0, 0, 450, 90))
    assert (areas[:, inside_px + 1 :] == 0).all()
    sure_px = max(inside_px - 65, 1)
    assert np.isfinite(areas[:, :sure_px]).all()
    part = Window(0, 0, sure_px, 90)
    assert areas[:, :sure_px].sum() == pytest.approx(measure_polygon(grid, part), rel=1e-6)


@pytest.mark.parametrize("width", [1000, 1013, 1040, 1100])
def test_towards_the_horizon_of_a_view_from_space_pixels_hold_ever_more_ground(width):
    """Without bound at the horizon itself, so a lattice with long steps is far off before it."""
    crs = CRS.from_string("+proj=ortho +ellps=WGS84")
    grid = Grid(crs, Affine(10, 0, 6_378_137 - 10 * width, 0, -10, 450), width, 90)
    areas = measure_pixels(grid, Window(0, 0, width, 90))
    for horizon_px in range(800, 240, -16):
        strip = Window(width - horizon_px, 0, 16, 90)
        measured_m2 = areas[:, width - horizon_px :][:, :16].sum()
        assert measured_m2 == pytest.approx(measure_polygon(grid, strip), rel=0.01)
