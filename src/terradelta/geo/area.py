"""Ground area of pixels and polygons on the WGS 84 ellipsoid, in any map projection.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np
from rasterio.windows import Window

from terradelta.geo.grid import Grid, make_transformer

SEMI_MAJOR_M = 6378137.0
ECCENTRICITY_SQUARED = 0.0066943799901413165
LATTICE_STEP_DEGREES = 0.03
"""Step between computed areas: interpolation in between has an error of about 1e-7."""
MAX_LATTICE_STEP_PX = 64
"""A longer step would reach further off the Earth at the edge of a projection, where areas are
measured pixel by pixel."""
MAX_SHIFT_DEGREES = 0.0005
"""Short enough to equal the arc, long enough for float64."""
METRES_PER_DEGREE = 111_320
"""Along the equator; used only to choose the lattice's step."""
EDGE_PARTS = 4
"""A pixel at the edge of the Earth is divided into this many parts per side."""
MIDDLE_PARTS = 5
"""Odd, so that one position is the middle."""


def measure_pixels(grid: Grid, window: Window) -> np.ndarray:
    """Return the ground area of each pixel of a window, (H, W) float64, in m2.

    The area element, the cross product of the tangents of the ellipsoid along a row and along a
    column, is taken on a lattice and interpolated bilinearly in between. The lattice is the grid's,
    so that every window gives a pixel the same area; its steps are short enough for a relative
    error of about 1e-7. If the lattice reaches off the Earth, the pixels in between are measured
    one by one. No area is negative, and each is finite: pixels off the Earth have 0.

    Raises:
        ValueError: If the grid has no CRS.
    """
    if grid.crs is None:
        raise ValueError("a grid without CRS has no ground area")
    step = _choose_step(grid)
    rows = _lattice(int(window.row_off), int(window.height), step)
    columns = _lattice(int(window.col_off), int(window.width), step)
    elements_m2 = measure_elements(grid, *np.meshgrid(rows, columns, indexing="ij"))
    every_row = window.row_off + np.arange(int(window.height))
    every_column = window.col_off + np.arange(int(window.width))
    across = np.stack([np.interp(every_column, columns, line) for line in elements_m2])
    upper = np.searchsorted(rows, every_row, side="right") - 1
    share = ((every_row - rows[upper]) / step)[:, None]
    with np.errstate(invalid="ignore"):
        areas_HW = across[upper + 1]
        areas_HW -= across[upper]
        areas_HW *= share
        areas_HW += across[upper]
    unknown_HW = ~np.isfinite(areas_HW)
    if unknown_HW.any():
        row_N, column_N = np.nonzero(unknown_HW)
        areas_HW[unknown_HW] = _measure_parts(grid, every_row[row_N], every_column[column_N])
    return areas_HW


def find_ground(grid: Grid, window: Window) -> np.ndarray:
    """Return where the centres of a window's pixels lie on the Earth, (H, W) bool.

    Raises:
        ValueError: If the grid has no CRS.
    """
    rows = window.row_off + np.arange(int(window.height))
    columns = window.col_off + np.arange(int(window.width))
    degrees = locate(grid, *np.meshgrid(columns + 0.5, rows + 0.5))
    return np.isfinite(degrees[0])


def locate(grid: Grid, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return longitudes and latitudes of positions in pixels, (2, ...); NaN off the Earth.

    Raises:
        ValueError: If the grid has no CRS.
    """
    if grid.crs is None:
        raise ValueError("a grid without CRS has no longitudes and latitudes")
    x, y = grid.transform @ (columns, rows)  # pyright: ignore[reportOperatorIssue]
    degrees = np.stack(make_transformer(grid.crs.to_wkt(), "EPSG:4326").transform(x, y))
    return np.where(np.isfinite(degrees).all(axis=0), degrees, np.nan)


def measure_sides(grid: Grid) -> np.ndarray | None:
    """Return the sides on the ground of a pixel in the middle of a grid, in metres.

    Returns:
        Metres to the east and to the north, (2, 2): of a step along a row, then of one along a
        column. None without a CRS, and if no pixel around the middle lies on the Earth.
    """
    if grid.crs is None:
        return None
    steps = (np.arange(MIDDLE_PARTS) + 0.5) / MIDDLE_PARTS
    shares = np.stack([part.ravel() for part in np.meshgrid(steps, steps)])
    # From the middle outwards.
    shares = shares[:, np.argsort(np.abs(shares - 0.5).max(axis=0), kind="stable")]
    columns, rows = np.floor(shares * [[grid.width], [grid.height]])
    tangents_m = _measure_tangents(grid, rows, columns)
    longitude, latitude = np.radians(locate(grid, columns + 0.5, rows + 0.5))
    none = np.zeros_like(longitude)
    east = np.stack([-np.sin(longitude), np.cos(longitude), none], axis=-1)
    north = np.stack(
        [
            -np.sin(latitude) * np.cos(longitude),
            -np.sin(latitude) * np.sin(longitude),
            np.cos(latitude),
        ],
        axis=-1,
    )
    sides_m = np.array(
        [[(tangent * axis).sum(axis=-1) for axis in (east, north)] for tangent in tangents_m]
    )
    known = np.flatnonzero(np.isfinite(sides_m).all(axis=(0, 1)))
    return sides_m[:, :, known[0]] if len(known) else None


def _choose_step(grid: Grid) -> int:
    """Return the lattice's step in pixels, a power of two; it depends on the pixel size only."""
    step = 2 ** math.floor(math.log2(LATTICE_STEP_DEGREES / _pixel_degrees(grid)))
    return int(min(max(step, 1), MAX_LATTICE_STEP_PX))


def _pixel_degrees(grid: Grid) -> float:
    """Return the approximate share of the globe that a pixel spans."""
    assert grid.crs is not None
    return max(grid.pixel_size) / (1 if grid.crs.is_geographic else METRES_PER_DEGREE)


def _lattice(offset: int, length: int, step: int) -> np.ndarray:
    """Return the lattice's positions from at or before the window to beyond its end."""
    return np.arange(offset // step, (offset + length - 1) // step + 2) * step


def measure_elements(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ground area in m2 of single pixels, an array of the shape of `rows`.

    It is not finite where a pixel's middle does not lie on the Earth, or at its very edge.
    """
    across_m, down_m = _measure_tangents(grid, rows, columns)
    return np.linalg.norm(np.cross(across_m, down_m), axis=-1)


def _measure_parts(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ground area in m2 of the parts of single pixels on the Earth, (N,)."""
    corners = [(column, row) for row in (0.0, 0.5, 1.0) for column in (0.0, 0.5, 1.0)]
    on_earth_N = np.any(
        [np.isfinite(locate(grid, columns + x, rows + y)[0]) for x, y in corners], axis=0
    )
    rows, columns = rows[on_earth_N], columns[on_earth_N]
    shifts = (np.arange(EDGE_PARTS) + 0.5) / EDGE_PARTS - 0.5
    total_m2 = np.zeros(len(rows))
    for row_shift in shifts:
        for column_shift in shifts:
            part_m2 = measure_elements(grid, rows + row_shift, columns + column_shift)
            total_m2 += np.nan_to_num(part_m2, nan=0.0, posinf=0.0)
    areas_m2_N = np.zeros(len(on_earth_N))
    areas_m2_N[on_earth_N] = total_m2 / EDGE_PARTS**2
    return areas_m2_N


def _measure_tangents(
    grid: Grid, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides of single pixels along a row and a column as vectors in space, (..., 3)."""
    shift_px = min(0.5, MAX_SHIFT_DEGREES / _pixel_degrees(grid))

    def place(row_shift_px: float, column_shift_px: float) -> np.ndarray:
        centres = columns + 0.5 + column_shift_px, rows + 0.5 + row_shift_px
        return _to_space(*locate(grid, *centres))

    # Central differences give the tangents; in space poles and the antimeridian are ordinary
    # points.
    across_m = (place(0, shift_px) - place(0, -shift_px)) / (2 * shift_px)
    down_m = (place(shift_px, 0) - place(-shift_px, 0)) / (2 * shift_px)
    return across_m, down_m


def _to_space(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return Earth-centred positions in metres, (..., 3), of degrees on the ellipsoid."""
    # Outside of a projection PROJ returns infinity, for which numpy warns; nan gives no warning.
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
