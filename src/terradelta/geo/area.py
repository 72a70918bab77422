"""Ground area of pixels and polygons on the WGS 84 ellipsoid, whatever the map projection.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math
import re

import numpy as np
from rasterio.windows import Window

from terradelta.errors import ArgumentError
from terradelta.geo.grid import Grid, make_transformer

SEMI_MAJOR_M = 6378137.0
ECCENTRICITY_SQUARED = 0.0066943799901413165
LATTICE_STEP_DEGREES = 0.03
MAX_LATTICE_STEP_PX = 64
MAX_SHIFT_DEGREES = 0.0005
"""Short enough for a chord, long enough for float64."""
METRES_PER_DEGREE = 111_320
M2_PER_UNIT = {"m2": 1.0, "ha": 10_000.0, "km2": 1_000_000.0}


def parse_area(text: str | float) -> float:
    """Return the square metres of an area such as "100m2", "0.5 ha" or a number of m2.

    Raises:
        ArgumentError: If it is no area.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(m2|m²|ha|km2|km²)?\s*", str(text).lower())
    if match is None:
        raise ArgumentError(f"{text!r} is no area", fix="write it like 100m2, 0.5ha or 1km2")
    return float(match[1]) * M2_PER_UNIT[(match[2] or "m2").replace("²", "2")]


def measure_pixels(grid: Grid, window: Window) -> np.ndarray:
    """Return the ground area of each pixel of a window, (H, W) float64, in m2.

    The area element, the cross product of the tangents of the ellipsoid along a row and along a
    column, is taken on a lattice and interpolated bilinearly in between. The lattice is the grid's,
    so that every window gives a pixel the same area; its steps are short enough for a relative
    error of about 1e-7.

    Raises:
        ValueError: If the grid has no CRS.
    """
    if grid.crs is None:
        raise ValueError("a grid without CRS has no ground area")
    step = _choose_step(grid)
    rows = _lattice(int(window.row_off), int(window.height), step)
    columns = _lattice(int(window.col_off), int(window.width), step)
    elements_m2 = _measure_elements(grid, *np.meshgrid(rows, columns, indexing="ij"))
    every_row = window.row_off + np.arange(int(window.height))
    every_column = window.col_off + np.arange(int(window.width))
    across = np.stack([np.interp(every_column, columns, line) for line in elements_m2])
    upper = np.searchsorted(rows, every_row, side="right") - 1
    share = ((every_row - rows[upper]) / step)[:, None]
    areas_HW = across[upper + 1]
    areas_HW -= across[upper]
    areas_HW *= share
    areas_HW += across[upper]
    return areas_HW


def _choose_step(grid: Grid) -> int:
    """Return the lattice's step in pixels, a power of two; it depends on the pixel size only."""
    step = 2 ** math.floor(math.log2(LATTICE_STEP_DEGREES / _pixel_degrees(grid)))
    return int(min(max(step, 1), MAX_LATTICE_STEP_PX))


def _pixel_degrees(grid: Grid) -> float:
    """Return about how much of the globe a pixel spans."""
    assert grid.crs is not None
    return max(grid.pixel_size) / (1 if grid.crs.is_geographic else METRES_PER_DEGREE)


def _lattice(offset: int, length: int, step: int) -> np.ndarray:
    """Return the lattice's positions from at or before the window to beyond its end."""
    return np.arange(offset // step, (offset + length - 1) // step + 2) * step


def _measure_elements(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ground area in m2 of single pixels, an array of the shape of `rows`."""
    assert grid.crs is not None
    transformer = make_transformer(grid.crs.to_wkt(), "EPSG:4326")
    shift_px = min(0.5, MAX_SHIFT_DEGREES / _pixel_degrees(grid))

    def locate(row_shift_px: float, column_shift_px: float) -> np.ndarray:
        centres = columns + 0.5 + column_shift_px, rows + 0.5 + row_shift_px
        x, y = grid.transform @ centres  # pyright: ignore[reportOperatorIssue]
        return _to_space(*transformer.transform(x, y))

    # Central differences give the tangents; in space neither poles nor the antimeridian stand out.
    across_m = (locate(0, shift_px) - locate(0, -shift_px)) / (2 * shift_px)
    down_m = (locate(shift_px, 0) - locate(-shift_px, 0)) / (2 * shift_px)
    return np.linalg.norm(np.cross(across_m, down_m), axis=-1)


def _to_space(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return Earth-centred positions in metres, (..., 3), of degrees on the ellipsoid."""
    # Beyond what a projection can show PROJ answers infinity, of which numpy warns; nan is silent.
    longitude, latitude = (
        np.radians(np.where(np.isfinite(degrees), degrees, np.nan))
        for degrees in (longitude, latitude)
    )
    normal_m = SEMI_MAJOR_M / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    parallel_m = normal_m * np.cos(latitude)
    return np.stack(
        [
            parallel_m * np.cos(longitude),
            parallel_m * np.sin(longitude),
            normal_m * (1 - ECCENTRICITY_SQUARED) * np.sin(latitude),
        ],
        axis=-1,
    )
