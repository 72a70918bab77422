"""Ground area of pixels and polygons on the WGS 84 ellipsoid, whatever the map projection.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math
import re

import numpy as np
from pyproj import Transformer
from rasterio.windows import Window

from terradelta.errors import ArgumentError
from terradelta.geo.grid import Grid

SEMI_MAJOR_M = 6378137.0
ECCENTRICITY_SQUARED = 0.0066943799901413165
LATTICE_STEP_DEGREES = 0.03
MAX_LATTICE_STEP_PX = 64
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

    The area element of the ellipsoid, a^2 (1 - e^2) cos(lat) / (1 - e^2 sin^2(lat))^2 (Snyder 1987,
    Map Projections, eq. 4-20 and 4-21), times the Jacobian of the inverse projection, is taken on a
    lattice and interpolated bilinearly in between. The lattice is the grid's, so that every window
    gives a pixel the same area; its steps are short enough for a relative error of about 1e-7.

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
    return across[upper] * (1 - share) + across[upper + 1] * share


def _choose_step(grid: Grid) -> int:
    """Return the lattice's step in pixels, a power of two; it depends on the pixel size only."""
    assert grid.crs is not None
    units_per_degree = 1 if grid.crs.is_geographic else METRES_PER_DEGREE
    pixel_degrees = max(grid.pixel_size) / units_per_degree
    step = 2 ** math.floor(math.log2(LATTICE_STEP_DEGREES / pixel_degrees))
    return int(min(max(step, 1), MAX_LATTICE_STEP_PX))


def _lattice(offset: int, length: int, step: int) -> np.ndarray:
    """Return the lattice's positions from at or before the window to beyond its end."""
    return np.arange(offset // step, (offset + length - 1) // step + 2) * step


def _measure_elements(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ground area in m2 of single pixels, an array of the shape of `rows`."""
    assert grid.crs is not None
    transformer = Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)

    def locate(row_shift: float, column_shift: float) -> tuple[np.ndarray, np.ndarray]:
        centres = columns + 0.5 + column_shift, rows + 0.5 + row_shift
        x, y = grid.transform @ centres  # pyright: ignore[reportOperatorIssue]
        longitude, latitude = transformer.transform(x, y)
        return np.radians(longitude), np.radians(latitude)

    # Central differences over half a pixel to each side give the Jacobian.
    east, west, south, north = (
        locate(*shift) for shift in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0))
    )
    jacobian = np.abs(
        _wrap(east[0] - west[0]) * (south[1] - north[1])
        - _wrap(south[0] - north[0]) * (east[1] - west[1])
    )
    latitude = locate(0, 0)[1]
    element_m2 = (
        SEMI_MAJOR_M**2
        * (1 - ECCENTRICITY_SQUARED)
        * np.cos(latitude)
        / (1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2) ** 2
    )
    return element_m2 * jacobian


def _wrap(angle: np.ndarray) -> np.ndarray:
    """Keep longitude differences small across the antimeridian."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
