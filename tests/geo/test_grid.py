import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid

UTM = CRS.from_epsg(32632)


def make_grid(left=500_000.0, top=5_000_000.0, width=100, height=80, pixel=2.0, crs=UTM):
    return Grid(crs, Affine(pixel, 0, left, 0, -pixel, top), width, height)


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
def test_a_flipped_grid_has_each_pixel_where_it_was(rows, columns):
    grid = make_grid()
    flipped = grid.flip(rows=rows, columns=columns)
    assert (flipped.width, flipped.height) == (grid.width, grid.height)
    for column, row in ((0, 0), (99, 79), (30, 7)):
        turned = 99 - column if columns else column, 79 - row if rows else row
        centre = flipped.transform @ (turned[0] + 0.5, turned[1] + 0.5)
        assert centre == pytest.approx(grid.transform @ (column + 0.5, row + 0.5))
    assert flipped.flip(rows=rows, columns=columns).transform.almost_equals(grid.transform)


def test_the_intersection_of_shifted_grids_is_where_their_bounds_meet():
    grid, other = make_grid(), make_grid(left=500_030.0, top=4_999_980.0)
    common = grid.intersect(other)
    assert (common.width, common.height) == (85, 70)
    assert common.transform @ (0, 0) == (500_030.0, 4_999_980.0)


def test_a_part_of_a_pixel_counts_as_overlap_and_rounding_does_not():
    grid = make_grid()
    assert grid.intersect(make_grid(left=500_031.0)).width == 85
    assert grid.intersect(make_grid(left=500_030.0 - 1e-6)).width == 85


def test_rasters_of_two_places_are_refused_with_both_places():
    with pytest.raises(RasterError, match=r"do not overlap.*500000.*700000"):
        make_grid().intersect(make_grid(left=700_000.0))


def test_crop_keeps_the_ground():
    grid = make_grid()
    cropped = grid.crop(Window(10, 20, 30, 40))
    assert np.allclose(cropped.transform @ (0, 0), grid.transform @ (10, 20))
    assert (cropped.width, cropped.height) == (30, 40)


def test_same_grids_may_differ_by_rounding_only():
    grid = make_grid()
    assert grid.same_as(make_grid(left=500_000.0 + 1e-4))
    assert not grid.same_as(make_grid(left=500_000.0 + 0.1))
    assert not grid.same_as(make_grid(crs=CRS.from_epsg(32633)))


def test_a_rotated_grid_has_the_bounds_of_its_corners():
    turned = Grid(UTM, Affine.rotation(45) @ Affine.scale(1, -1), 10, 10)
    assert np.allclose(turned.bounds, (0, -(50**0.5), 200**0.5, 50**0.5))


def test_covering_takes_every_pixel_that_is_touched_and_rounding_touches_none():
    grid = make_grid()
    for noise_m in (0.0, 1e-4, -1e-4):
        left, bottom, right, top = grid.bounds
        noisy = left + noise_m, bottom + noise_m, right - noise_m, top - noise_m
        covered = grid.cover(noisy)
        assert covered.same_as(grid)
        assert (covered.width, covered.height) == (100, 80)
        beyond = grid.cover((left - 4 + noise_m, bottom - 6, right + 8 - noise_m, top + 2))
        assert (beyond.width, beyond.height) == (100 + 2 + 4, 80 + 3 + 1)
        assert beyond.crop(Window(2, 1, 100, 80)).same_as(grid)
    more = grid.cover((left - 0.1, bottom - 0.1, right + 0.1, top + 0.1))
    assert (more.width, more.height) == (102, 82)


@pytest.mark.parametrize("left", [-179.0, -10.0, 100.0, 190.0, 350.0])
@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_degrees_of_another_turn_of_the_globe_are_the_same_ground(left, turn):
    degrees = CRS.from_epsg(4326)
    grid = make_grid(left, 50.0, 100, 80, 0.01, degrees)
    other = make_grid(left + 0.3 + turn, 49.9, 100, 80, 0.01, degrees)
    window = grid.find_window(other)
    assert window is not None
    assert window.flatten() == (30, 10, 70, 70)
    assert grid.find_window(make_grid(left + 90 + turn, 50.0, crs=degrees, pixel=0.01)) is None


@pytest.mark.parametrize("west", [-180.0, 0.0])
@pytest.mark.parametrize(
    ("crs", "corner"),
    [(32632, (500_000, 5_000_000)), (32618, (500_000, 5_000_000)), (3413, (-100_000, 100_000))],
)
def test_the_whole_globe_covers_every_grid_however_a_projection_bends_its_outline(
    west, crs, corner
):
    grid = make_grid(*corner, 100, 80, 1000.0, CRS.from_epsg(crs))
    globe = make_grid(west, 90.0, 360, 180, 1.0, CRS.from_epsg(4326))
    window = grid.find_window(globe)
    assert window is not None
    assert window.flatten() == (0, 0, 100, 80)


@given(st.floats(0, 360), st.floats(-8, 18), st.floats(-8, 15), st.floats(0.5, 3))
def test_a_window_spans_the_pixels_that_a_turned_raster_touches(degrees, column, row, scale):
    grid = Grid(None, Affine.identity(), 12, 9)
    turned = Affine.translation(column, row) @ Affine.rotation(degrees) @ Affine.scale(scale)
    other = Grid(None, turned, 5, 3)
    outline = shapely.Polygon([turned @ corner for corner in ((0, 0), (5, 0), (5, 3), (0, 3))])
    edges = outline.intersection(shapely.box(0, 0, 12, 9)).bounds
    # What is nearer to a pixel's edge than the tolerance may count or not.
    assume(all(0.002 < edge % 1 < 0.998 or edge in (0, 9, 12) for edge in edges))
    touched_HW = np.array(
        [
            [outline.intersection(shapely.box(x, y, x + 1, y + 1)).area > 0 for x in range(12)]
            for y in range(9)
        ]
    )
    window = grid.find_window(other)
    rows, columns = np.flatnonzero(touched_HW.any(1)), np.flatnonzero(touched_HW.any(0))
    if window is None:
        assert not touched_HW.any()
    else:
        (top, bottom), (left, right) = window.toranges()
        assert (top, bottom) == (rows[0], rows[-1] + 1)
        assert (left, right) == (columns[0], columns[-1] + 1)
