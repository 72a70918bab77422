import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid

UTM = CRS.from_epsg(32632)


def make_grid(left=500_000.0, top=5_000_000.0, width=100, height=80, pixel=2.0, crs=UTM):
    return Grid(crs, Affine(pixel, 0, left, 0, -pixel, top), width, height)


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
