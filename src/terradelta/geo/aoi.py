"""An area of interest: polygons of any CRS that limit the work.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pyproj
import shapely
from rasterio import features
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, cut_window, make_transformer
from terradelta.geo.polygons import load_polygons
from terradelta.geo.reprojection import cut_polygons


class AreaOfInterest:
    """Polygons on a grid; a pixel is inside where its centre is.

    Args:
        path: Any vector file that GDAL opens, in any CRS, or FILE#LAYER; without a
            layer, all polygons of the only layer that holds some.
        grid: The grid of the pixels.

    Raises:
        RasterError: If it cannot be read, has no CRS or no polygon, has them in several layers,
            or lies outside the grid.
    """

    def __init__(self, path: str | Path, grid: Grid):
        frame = load_polygons(path, grid, "--aoi")
        assert frame.crs is not None
        assert grid.crs is not None
        own = frame.geometry.union_all()
        is_same = frame.crs.equals(pyproj.CRS(grid.crs.to_wkt()), ignore_axis_order=True)
        if is_same and not grid.crs.is_geographic:
            polygons = own
        else:
            (polygons,) = cut_polygons(np.array([own]), frame.crs, grid)
        self.sha256 = hashlib.sha256(shapely.to_wkb(polygons or own, byte_order=1)).hexdigest()
        self._grid = grid
        self._crs = None
        if polygons is None:
            # The grid's CRS cannot represent them: pixels are looked up in their CRS, one by one.
            self._own, self._crs = own, frame.crs
            shapely.prepare(own)
            polygons = shapely.Polygon(np.stack(grid.walk_around(1), axis=1))
        self._parts = shapely.get_parts(polygons)
        self._tree = shapely.STRtree(self._parts)
        self.area = self._cut_area(path, frame.total_bounds.tolist(), frame.crs)

    sha256: str
    """Hash of the polygons as WKB, in the grid's CRS, or in their own if that CRS cannot represent
    them."""
    area: Window
    """The part of the grid that the polygons' bounds cover, in whole pixels."""

    @property
    def polygons(self) -> np.ndarray:
        """The parts of the area in the grid's CRS, (N,) of polygons; more if it is unknown."""
        return self._parts

    def touches(self, window: Window) -> bool:
        """Return whether a polygon reaches into a window of the grid."""
        return len(self._find(self._grid.crop(window))) > 0

    def mask(self, window: Window) -> np.ndarray:
        """Return where a window of the grid lies inside, (H, W) bool."""
        part = self._grid.crop(window)
        if self._crs is not None:
            return _look_up(self._own, self._crs, part)
        touched = self._find(part)
        if len(touched) == 0:
            return np.zeros((part.height, part.width), dtype=bool)
        return features.geometry_mask(
            list(self._parts[touched]),
            out_shape=(part.height, part.width),
            transform=part.transform,
            invert=True,
        )

    def _find(self, part: Grid) -> np.ndarray:
        """Return which of the polygons reach into a part of the grid."""
        # For a grid rotated against its CRS, test the pixels themselves.
        frame = shapely.Polygon(np.stack(part.walk_around(1), axis=1))
        return self._tree.query(frame, predicate="intersects")

    def _cut_area(self, path: str | Path, bounds: list[float], crs: pyproj.CRS) -> Window:
        frame = shapely.box(0, 0, self._grid.width, self._grid.height)
        inverse = ~self._grid.transform
        shapes = shapely.transform(
            self._parts,
            lambda points: np.stack(inverse @ tuple(points.T), axis=1),  # pyright: ignore[reportOperatorIssue]
        )
        inside = shapely.intersection(shapely.make_valid(shapes), frame)
        columns, rows = shapely.get_coordinates(inside[shapely.area(inside) > 0]).T
        if len(columns) == 0:
            raise RasterError(
                f"{path} lies outside of the two rasters: in {crs.name} it covers {bounds}, and "
                f"they share {self._grid.bounds} in {self._grid.crs}",
                fix="give an --aoi that overlaps them",
            )
        # A thousandth of a pixel is rounding.
        left, top = math.floor(columns.min() + 1e-3), math.floor(rows.min() + 1e-3)
        right, bottom = math.ceil(columns.max() - 1e-3), math.ceil(rows.max() - 1e-3)
        left, top = min(left, self._grid.width - 1), min(top, self._grid.height - 1)
        return cut_window(left, top, max(1, right - left), max(1, bottom - top))


def _look_up(polygons: shapely.Geometry, crs: pyproj.CRS, part: Grid) -> np.ndarray:
    """Return which pixels' centres lie in polygons of another CRS, (H, W) bool."""
    assert part.crs is not None
    columns, rows = np.meshgrid(np.arange(part.width) + 0.5, np.arange(part.height) + 0.5)
    x, y = part.transform @ (columns, rows)  # pyright: ignore[reportOperatorIssue]
    x, y = make_transformer(part.crs.to_wkt(), crs.to_wkt()).transform(x, y)
    inside_HW = np.zeros(x.shape, bool)
    for turn in (0, 360, -360) if crs.is_geographic else (0,):
        inside_HW |= shapely.contains_xy(polygons, x + turn, y)
    return inside_HW
