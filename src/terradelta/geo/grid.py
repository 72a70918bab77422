"""The pixel grid of a map: where each pixel lies on the ground."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from terradelta.errors import RasterError


@dataclass(frozen=True)
class Grid:
    """A rectangle of pixels and its place on the ground."""

    crs: CRS | None
    """Coordinate reference system; None for a picture without georeference."""
    transform: Affine
    """From (column, row) to CRS coordinates of the pixel's upper left corner."""
    width: int
    """Columns."""
    height: int
    """Rows."""

    @classmethod
    def of(cls, dataset: DatasetReader) -> Grid:
        """Return the grid of an open raster."""
        return cls(dataset.crs, dataset.transform, dataset.width, dataset.height)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Length of a pixel's sides along columns and rows, in CRS units."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    def same_as(self, other: Grid) -> bool:
        """Whether both grids have the same pixels, to a thousandth of a pixel."""
        if (self.crs, self.width, self.height) != (other.crs, other.width, other.height):
            return False
        tolerance = 1e-3 * min(self.pixel_size)
        corners = ((0, 0), (self.width, 0), (0, self.height))
        return all(
            math.dist(self.transform @ corner, other.transform @ corner) <= tolerance
            for corner in corners
        )

    def crop(self, window: Window) -> Grid:
        """Return the grid of a window of this one."""
        shifted = self.transform @ Affine.translation(window.col_off, window.row_off)
        return Grid(self.crs, shifted, int(window.width), int(window.height))

    def intersect(self, other: Grid) -> Grid:
        """Return the part of this grid, in whole pixels, that `other` covers at least in part.

        Raises:
            RasterError: If the two do not overlap.
        """
        left, bottom, right, top = other.bounds_in(self.crs)
        inverse = ~self.transform
        columns, rows = zip(
            *(inverse @ corner for corner in _corners(left, bottom, right, top)), strict=True
        )
        # A thousandth of a pixel of overlap is rounding, not ground.
        first_column = max(0, math.floor(min(columns) + 1e-3))
        first_row = max(0, math.floor(min(rows) + 1e-3))
        last_column = min(self.width, math.ceil(max(columns) - 1e-3))
        last_row = min(self.height, math.ceil(max(rows) - 1e-3))
        if first_column >= last_column or first_row >= last_row:
            raise RasterError(
                f"the two rasters do not overlap: in {self.crs} one covers {self.bounds} "
                f"and the other {(left, bottom, right, top)}",
                fix="give two rasters of the same place",
            )
        return self.crop(
            cut_window(first_column, first_row, last_column - first_column, last_row - first_row)
        )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in CRS coordinates."""
        xs, ys = zip(
            *(self.transform @ corner for corner in _corners(0, 0, self.width, self.height)),
            strict=True,
        )
        return min(xs), min(ys), max(xs), max(ys)

    def bounds_in(self, crs: CRS | None) -> tuple[float, float, float, float]:
        """Return the bounds in another CRS, edges densified."""
        if crs == self.crs or crs is None or self.crs is None:
            return self.bounds
        return transform_bounds(self.crs, crs, *self.bounds)


def cut_window(column: int, row: int, width: int, height: int) -> Window:
    """Return the window at this offset and of this size, in pixels."""
    return Window(column, row, width, height)  # pyright: ignore[reportCallIssue]


def _corners(left: float, bottom: float, right: float, top: float) -> Iterator[tuple]:
    yield from ((left, bottom), (right, bottom), (left, top), (right, top))
