"""An area of interest: polygons of any CRS that cut the work down.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import shapely
from rasterio import features
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.polygons import read_polygons


class AreaOfInterest:
    """Polygons on a grid; a pixel is inside where its centre is.

    Args:
        path: Any vector file that GDAL opens, in any CRS; all polygons of its first layer count.
        grid: The grid it is laid on.

    Raises:
        RasterError: If it cannot be read, has no CRS or no polygon, or lies outside the grid.
    """

    def __init__(self, path: str | Path, grid: Grid):
        polygons = read_polygons(path, grid, "--aoi").union_all()
        self.sha256 = hashlib.sha256(shapely.to_wkb(polygons, byte_order=1)).hexdigest()
        self._grid = grid
        self._parts = shapely.get_parts(polygons)
        self._tree = shapely.STRtree(self._parts)
        self.area = self._cut_area(path)

    sha256: str
    """Of the polygons on the grid's CRS, as WKB."""
    area: Window
    """The part of the grid that the polygons' bounds cover, in whole pixels."""

    @property
    def polygons(self) -> np.ndarray:
        """The parts of the area in the grid's CRS, (N,) of polygons."""
        return self._parts

    def touches(self, window: Window) -> bool:
        """Return whether a polygon reaches into a window of the grid."""
        return len(self._find(self._grid.crop(window))) > 0

    def mask(self, window: Window) -> np.ndarray:
        """Return where a window of the grid lies inside, (H, W) bool."""
        part = self._grid.crop(window)
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
        # Of a grid that is turned against its CRS, the pixels themselves.
        frame = shapely.Polygon(np.stack(part.walk_around(1), axis=1))
        return self._tree.query(frame, predicate="intersects")

    def _cut_area(self, path: str | Path) -> Window:
        inverse = ~self._grid.transform
        columns, rows = inverse @ shapely.get_coordinates(self._parts).T  # pyright: ignore[reportOperatorIssue]
        left, top = max(0, math.floor(columns.min())), max(0, math.floor(rows.min()))
        right = min(self._grid.width, math.ceil(columns.max()))
        bottom = min(self._grid.height, math.ceil(rows.max()))
        if left >= right or top >= bottom:
            raise RasterError(
                f"{path} lies outside of the two rasters: in {self._grid.crs} it covers "
                f"{shapely.total_bounds(self._parts).tolist()} and they share {self._grid.bounds}",
                fix="give an --aoi that overlaps them",
            )
        return cut_window(left, top, right - left, bottom - top)
