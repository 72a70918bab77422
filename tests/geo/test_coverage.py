"""Shares of pixels against polygons cut with each pixel's outline."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.geo.coverage import Coverage
from terradelta.geo.grid import Grid

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
ROTATED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(25) @ Affine.scale(10, -8)


def draw_polygons(grid):
    """A triangle, a ring with a hole, two parts of one, one that is outside."""

    def place(points):
        return [grid.transform @ point for point in points]

    ring = shapely.Polygon(
        place([(2, 1), (11.5, 1.5), (12, 8), (3, 9)]), [place([(5, 3), (8, 3.2), (7, 6)])]
    )
    parts = [place([(12.2, 0), (14, 0), (14, 2)]), place([(1, 7), (3, 7.5), (0, 9)])]
    polygons = [
        shapely.Polygon(place([(0.3, 0.2), (6.7, 4.1), (1.1, 7.9)])),
        ring,
        shapely.MultiPolygon([shapely.Polygon(part) for part in parts]),
        shapely.Polygon(place([(50, 50), (60, 50), (60, 60)])),
    ]
    return geopandas.GeoSeries(polygons, crs=grid.crs)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north up", "rotated"])
@pytest.mark.parametrize("window", [Window(0, 0, 14, 9), Window(3, 2, 7, 5), Window(4, 3, 1, 1)])
def test_shares_are_those_of_each_pixels_square(transform, window):
    grid = Grid(CRS.from_epsg(32632), transform, 14, 9)
    polygons = draw_polygons(grid)
    numbers_HW = np.arange(14 * 9, dtype=np.uint32).reshape(9, 14)
    sizes_HW = np.random.default_rng(0).uniform(1, 2, (9, 14))
    rows, columns = window.toslices()
    found_PM = np.zeros((4, 14 * 9))
    for covered in Coverage(polygons, grid).measure(
        window, numbers_HW[rows, columns], sizes_HW[rows, columns]
    ):
        np.add.at(found_PM[covered.polygon], covered.values_M, covered.area_m2_M)
    for index, polygon in enumerate(polygons):
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
                square = shapely.Polygon(transform @ (column + x, row + y) for x, y in corners)
                share = polygon.intersection(square).area / square.area
                expected = share * sizes_HW[row, column]
                assert found_PM[index, numbers_HW[row, column]] == pytest.approx(expected, abs=1e-6)
    assert found_PM.sum() > 0
