"""The pixel grid of a map: where each pixel lies on the ground."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.gdal_errors import is_gdal_error

LATTICE_PARTS = 16
"""Points per side of a grid that are looked up on another grid."""
OPEN_ERRORS = (RasterioError, UnicodeError)
"""Errors of rasterio for a damaged file, whose message or name may not be valid text."""
OUTLINE_POINTS = 1000
"""Points per side of a raster whose outline is transformed."""


class Placed(Protocol):
    """An object with georeferenced pixels."""

    @property
    def crs(self) -> CRS | None: ...  # noqa: D102
    @property
    def transform(self) -> Affine: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Grid:
    """A rectangle of pixels and its place on the ground."""

    crs: CRS | None
    """Coordinate reference system; None for a picture without georeference."""
    transform: Affine
    """Maps (column, row) to CRS coordinates of the pixel's upper left corner."""
    width: int
    """Columns."""
    height: int
    """Rows."""

    @classmethod
    def of(cls, dataset: Placed) -> Grid:
        """Return the grid of an open raster."""
        return cls(dataset.crs, dataset.transform, dataset.width, dataset.height)

    @classmethod
    def spanning(
        cls, crs: CRS, pixel_size: float, bounds: tuple[float, float, float, float]
    ) -> Grid:
        """Return a north-up grid over CRS bounds, its pixels' edges at multiples of their size."""
        left, bottom, right, top = (edge / pixel_size for edge in bounds)
        # An overlap of a thousandth of a pixel is rounding.
        first_column, first_row = math.floor(left + 1e-3), math.ceil(top - 1e-3)
        width = max(1, math.ceil(right - 1e-3) - first_column)
        height = max(1, first_row - math.floor(bottom + 1e-3))
        origin = Affine.translation(first_column * pixel_size, first_row * pixel_size)
        return cls(crs, origin @ Affine.scale(pixel_size, -pixel_size), width, height)

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

    def redivide(self, height: int, width: int) -> Grid:
        """Return the grid of this number of rows and columns on the same ground."""
        scale = Affine.scale(self.width / width, self.height / height)
        return Grid(self.crs, self.transform @ scale, width, height)

    def flip(self, *, rows: bool = False, columns: bool = False) -> Grid:
        """Return the same pixels with the order of rows or columns reversed."""
        turned = self.transform
        if rows:
            turned = turned @ Affine.translation(0, self.height) @ Affine.scale(1, -1)
        if columns:
            turned = turned @ Affine.translation(self.width, 0) @ Affine.scale(-1, 1)
        return Grid(self.crs, turned, self.width, self.height)

    def intersect(self, other: Grid) -> Grid:
        """Return the part of this grid, in whole pixels, that `other` covers at least partly.

        Raises:
            RasterError: If the two do not overlap.
        """
        window = self.find_window(other)
        if window is None:
            raise RasterError(
                f"the two rasters do not overlap: in {self.crs} one covers {self.bounds} "
                f"and the other {other.bounds_in(self.crs)}",
                fix="give two rasters of the same place",
            )
        return self.crop(window)

    def find_window(self, other: Grid) -> Window | None:
        """Return the whole pixels that `other` covers at least partly, or None."""
        outline_N2 = self._draw_outline(other)
        if outline_N2 is None:
            return self.window_of(self.find_bounds(other))
        frame = shapely.box(0, 0, self.width, self.height)
        shared = shapely.intersection(shapely.make_valid(shapely.Polygon(outline_N2)), frame)
        found_N2 = shapely.get_coordinates(shared)
        if self.crs != other.crs and self.crs is not None:
            # A raster of half the world may have no valid outline in a regional projection.
            inside = [
                ~self.transform @ point
                for point in zip(*self._find_points_within(other), strict=True)
            ]
            found_N2 = np.concatenate([found_N2, np.reshape(inside, (-1, 2))])
        if len(found_N2) == 0:
            return None
        # An overlap of a thousandth of a pixel is rounding.
        left, top = np.floor(np.maximum(found_N2.min(axis=0), 0) + 1e-3).astype(int).tolist()
        right, bottom = np.ceil(found_N2.max(axis=0) - 1e-3).astype(int).tolist()
        right, bottom = min(right, self.width), min(bottom, self.height)
        return (
            cut_window(left, top, right - left, bottom - top)
            if left < right and top < bottom
            else None
        )

    def walk_around(self, points_per_side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return CRS coordinates of points along the edge, starting along the first row."""
        steps = np.linspace(0, 1, points_per_side, endpoint=False)
        ahead, back, none = steps, 1 - steps, np.zeros(points_per_side)
        columns = np.concatenate([ahead, none + 1, back, none]) * self.width
        rows = np.concatenate([none, ahead, none + 1, back]) * self.height
        return self.transform @ (columns, rows)  # pyright: ignore[reportOperatorIssue]

    def _draw_outline(self, other: Grid) -> np.ndarray | None:
        """Return the outline of another grid in pixels of this one, (N, 2), if it is valid."""
        x, y = other.walk_around(OUTLINE_POINTS)
        if self.crs != other.crs and self.crs is not None and other.crs is not None:
            try:
                x, y = map(np.array, transform(other.crs, self.crs, x, y))
            except Exception as error:
                if not is_gdal_error(error):
                    raise
                return None
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        if self.crs is not None and self.crs.is_geographic:
            x = np.unwrap(x, period=360)
            if abs(x[-1] - x[0]) > 180:
                # It goes around a pole.
                return None
            middle = (self.bounds[0] + self.bounds[2]) / 2
            x = x + 360 * np.round((middle - (x.min() + x.max()) / 2) / 360)
        return np.stack(~self.transform @ (x, y), axis=1)  # pyright: ignore[reportOperatorIssue]

    def window_of(self, bounds: tuple[float, float, float, float]) -> Window | None:
        """Return the whole pixels that CRS bounds touch, or None."""
        inverse = ~self.transform
        columns, rows = zip(*(inverse @ corner for corner in _corners(*bounds)), strict=True)
        if not np.isfinite((columns, rows)).all():
            return None
        # An overlap of a thousandth of a pixel is rounding.
        first_column = max(0, math.floor(min(columns) + 1e-3))
        first_row = max(0, math.floor(min(rows) + 1e-3))
        last_column = min(self.width, math.ceil(max(columns) - 1e-3))
        last_row = min(self.height, math.ceil(max(rows) - 1e-3))
        if first_column >= last_column or first_row >= last_row:
            return None
        return cut_window(first_column, first_row, last_column - first_column, last_row - first_row)

    def find_bounds(self, other: Grid) -> tuple[float, float, float, float]:
        """Return the bounds of `other` in this grid's CRS, near this grid if possible.

        On a geographic CRS the same ground has longitudes 360 degrees apart. Projections cannot
        represent a raster of half the world, so points of this grid that lie in it count too.
        """
        bounds = other.bounds_in(self.crs)
        if self.crs is None:
            return bounds
        if self.crs.is_geographic:
            left, bottom, right, top = bounds
            right += 360 if left > right else 0
            turned = [(left + turn, bottom, right + turn, top) for turn in (0, 360, -360)]
            bounds = next((part for part in turned if self.window_of(part)), turned[0])
        if self.crs == other.crs:
            return bounds
        xs, ys = self._find_points_within(other)
        xs, ys = [*xs, *bounds[::2]], [*ys, *bounds[1::2]]
        finite = [list(filter(math.isfinite, numbers)) for numbers in (xs, ys)]
        if not all(finite):
            return bounds
        return min(finite[0]), min(finite[1]), max(finite[0]), max(finite[1])

    def _find_points_within(self, other: Grid) -> tuple[list[float], list[float]]:
        """Return CRS coordinates of the points of a lattice on this grid that lie on `other`."""
        assert self.crs is not None
        assert other.crs is not None
        steps = np.linspace(0, 1, LATTICE_PARTS + 1)
        columns, rows = np.meshgrid(steps * self.width, steps * self.height)
        points_2N = np.array(self.transform @ (columns.ravel(), rows.ravel()))  # pyright: ignore[reportOperatorIssue]
        placed_2N = np.array(transform(self.crs, other.crs, *points_2N)[:2])
        # Off the Earth is outside.
        x, y = np.where(np.isfinite(placed_2N).all(axis=0), placed_2N, np.nan)
        is_inside = np.zeros(len(x), bool)
        for turn in (0, 360, -360) if other.crs.is_geographic else (0,):
            column, row = ~other.transform @ (x + turn, y)  # pyright: ignore[reportOperatorIssue]
            is_inside |= (
                (column >= 0) & (column <= other.width) & (row >= 0) & (row <= other.height)
            )
        inside_x, inside_y = points_2N[:, is_inside].tolist()
        return inside_x, inside_y

    def resample(self, pixel_size: float) -> Grid:
        """Return a north-up grid over this one, its pixels' edges at multiples of their size.

        Args:
            pixel_size: Side of a pixel in CRS units.
        """
        assert self.crs is not None
        return Grid.spanning(self.crs, pixel_size, self.bounds)

    def cover(self, bounds: tuple[float, float, float, float]) -> Grid:
        """Return this grid extended over all pixels that CRS bounds touch."""
        inverse = ~self.transform
        columns, rows = zip(*(inverse @ corner for corner in _corners(*bounds)), strict=True)
        # An overlap of a thousandth of a pixel is rounding.
        left, top = math.floor(min(columns) + 1e-3), math.floor(min(rows) + 1e-3)
        right, bottom = math.ceil(max(columns) - 1e-3), math.ceil(max(rows) - 1e-3)
        return self.crop(cut_window(left, top, right - left, bottom - top))

    def shift(self, columns_px: float, rows_px: float) -> Grid:
        """Return this grid moved by a number of its own pixels."""
        moved = self.transform @ Affine.translation(columns_px, rows_px)
        return Grid(self.crs, moved, self.width, self.height)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in CRS coordinates."""
        xs, ys = zip(
            *(self.transform @ corner for corner in _corners(0, 0, self.width, self.height)),
            strict=True,
        )
        return min(xs), min(ys), max(xs), max(ys)

    def bounds_in(self, crs: CRS | None) -> tuple[float, float, float, float]:
        """Return the bounds in another CRS, edges densified; infinite if that fails."""
        if crs == self.crs or crs is None or self.crs is None:
            return self.bounds
        try:
            return _transform_bounds(self.crs, crs, *self.bounds)
        except Exception as error:
            if not is_gdal_error(error):
                raise
            return -math.inf, -math.inf, math.inf, math.inf


@lru_cache(256)
def make_transformer(source: str, target: str) -> pyproj.Transformer:
    """Return the transformer from one CRS to another, cached for each two.

    PROJ takes up to a tenth of a second to choose an operation.
    """
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


# Each sheet of a mosaic asks several times.
_transform_bounds = lru_cache(65_536)(transform_bounds)


@contextmanager
def allow_no_place() -> Iterator[None]:
    """Suppress rasterio's warning about pictures without georeference, which are allowed here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def cut_window(column: int, row: int, width: int, height: int) -> Window:
    """Return the window at this offset and of this size, in pixels."""
    return Window(column, row, width, height)  # pyright: ignore[reportCallIssue]


def shift_window(window: Window, columns: float, rows: float) -> Window:
    """Return a window moved right and down, with its corner at whole pixels."""
    return cut_window(
        int(window.col_off + columns),
        int(window.row_off + rows),
        int(window.width),
        int(window.height),
    )


def _corners(left: float, bottom: float, right: float, top: float) -> Iterator[tuple]:
    yield from ((left, bottom), (right, bottom), (left, top), (right, top))
