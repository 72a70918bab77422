"""Places the pixels of a map among those of a raster: shifted, and perhaps flipped.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from terradelta.geo.grid import Grid, cut_window, shift_window
from terradelta.geo.mosaic import list_edges


@dataclass(frozen=True)
class Lattice:
    """How the pixels of a grid lie among a raster's own: shifted, and perhaps flipped.

    A raster whose rows run to the north is read without resampling onto a grid that has north up.
    """

    own: Grid
    """The raster's pixels."""
    column: int
    """First column of the grid on the raster, flipped like the grid."""
    row: int
    """First row."""
    flips_columns: bool = False
    """Whether the raster's columns run in the opposite direction."""
    flips_rows: bool = False
    """Whether its rows do."""

    def contains(self, grid: Grid) -> bool:
        """Return whether the raster has all pixels of the grid."""
        has_columns = self.column >= 0 and self.column + grid.width <= self.own.width
        return has_columns and self.row >= 0 and self.row + grid.height <= self.own.height

    def find(self, window: Window) -> Window:
        """Return the raster's window with the pixels of a window of the grid."""
        left, top, right, bottom = list_edges(shift_window(window, self.column, self.row))
        if self.flips_columns:
            left, right = self.own.width - right, self.own.width - left
        if self.flips_rows:
            top, bottom = self.own.height - bottom, self.own.height - top
        return cut_window(left, top, right - left, bottom - top)

    def turn(self, image_CHW: np.ndarray, valid_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels read from the raster in the order of the grid."""
        rows = slice(None, None, -1 if self.flips_rows else 1)
        columns = slice(None, None, -1 if self.flips_columns else 1)
        turned_CHW, turned_HW = image_CHW[:, rows, columns], valid_HW[rows, columns]
        return np.ascontiguousarray(turned_CHW), np.ascontiguousarray(turned_HW)


def find_lattice(own: Grid, grid: Grid) -> Lattice | None:
    """Return how a grid lies on a raster's pixels, None if their pixels do not coincide."""
    for flips_columns, flips_rows in itertools.product((False, True), repeat=2):
        turned = own.flip(columns=flips_columns, rows=flips_rows)
        column, row = ~turned.transform @ (grid.transform @ (0, 0))
        if not (np.isfinite(column) and np.isfinite(row)):
            continue
        window = cut_window(round(column), round(row), grid.width, grid.height)
        if turned.crop(window).same_as(grid):
            return Lattice(own, round(column), round(row), flips_columns, flips_rows)
    return None
