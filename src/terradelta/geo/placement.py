"""Places a raster on the Earth or in a local plane, or refuses it.

All georeferencing from GDAL goes through `place_raster`: its result can be placed on
a map, and impossible values are refused with their numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyproj
from affine import Affine
from pyproj.enums import TransformDirection
from pyproj.exceptions import ProjError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.rpc import RPC

from terradelta.cautions import Caution
from terradelta.errors import RasterError
from terradelta.geo.area import locate, measure_elements, measure_sides
from terradelta.geo.grid import Grid, Placed, make_transformer
from terradelta.geo.virtual import name_raster
from terradelta.redaction import redact

WITHOUT_PLACE = (Affine.identity(), Affine(1, 0, 0, 0, -1, 0))
"""Transforms of rasters without georeference: GDAL's default, and the same with north up."""
LATTICE_PARTS = 8
"""Points per side of a grid that are looked up on the Earth."""
EDGE_POINTS = 257
"""Points per side of a grid to test whether it reaches off the Earth."""
LEAST_PIXEL_M = 1e-4
LARGEST_NUMBER = 1e15
"""Largest number of a transform: excludes NaN, infinity and overflow in products."""
FLATTEST = 1e-6
"""Smallest ratio of a pixel's area to the product of its sides: below it, rows are parallel to
columns."""
FINEST = 2.0**-44
"""Smallest ratio of a pixel's side to its coordinates: float64 divides it into 256 steps."""
EARTH_M2 = 5.1007e14
ROUNDING = 1.02
"""Factor by which the estimated area of a map of the whole Earth may exceed the Earth's."""
MOST_DISTORTED = 1e4
"""Largest factor by which a projection may enlarge or reduce an area."""
TURN_M = 4.1e7
"""The equator's length and a little more: limit of the distance of coordinates from those of their
longitude and latitude, and of a pixel's side."""
FURTHEST_DEGREES = 720


@dataclass(frozen=True)
class Placement:
    """The place of a raster."""

    grid: Grid
    """Its pixels; without CRS if they have no place on the Earth."""
    plane: CRS | None = None
    """The CRS of coordinates that are not on the Earth: another planet, a local plane."""
    caution: Caution | None = None
    """The consequence."""


class Referenced(Placed, Protocol):
    """A raster that may have control points or a sensor model in place of a transform."""

    @property
    def gcps(self) -> tuple[list[GroundControlPoint], CRS | None]: ...  # noqa: D102
    @property
    def rpcs(self) -> RPC | None: ...  # noqa: D102


def choose_reference(raster: Referenced) -> tuple[CRS, dict[str, Any]] | None:
    """Return how a raster without a transform is georeferenced.

    Returns:
        The CRS and options of GDAL's transformer; None if the transform places
        the raster, or nothing does.

    Raises:
        RasterError: If it has control points without CRS.
    """
    if raster.crs is not None and raster.transform not in WITHOUT_PLACE:
        return None
    points, crs = raster.gcps
    if points:
        crs = crs or raster.crs
        if not crs:
            raise RasterError(
                f"{name_raster(raster)} has {len(points)} ground control points without a "
                "coordinate reference system",
                fix="assign theirs, for example: gdal_translate -a_srs EPSG:CODE IN OUT",
            )
        return crs, {"METHOD": "GCP_POLYNOMIAL"}
    if raster.rpcs is None:
        return None
    # Rational polynomials refer to WGS 84. Without a terrain model, the mean height is best.
    return CRS.from_epsg(4326), {"METHOD": "RPC", "RPC_HEIGHT": raster.rpcs.height_off}


def place_raster(raster: Placed, name: str | None = None) -> Placement:
    """Return the place of a raster.

    Args:
        raster: Anything with CRS, transform and size: an open raster, a mosaic, a grid.
        name: Name for errors; by default its own.

    Raises:
        RasterError: If its place is impossible, or it has a CRS and no coordinates in it.
    """
    name = redact(name or name_raster(raster))
    return _place(name, raster.crs, raster.transform, raster.width, raster.height)


def reaches_off_earth(grid: Grid) -> bool:
    """Return whether a grid on the Earth has corners, or other points, that do not lie on it."""
    if grid.crs is None:
        return False
    steps = np.linspace(0, 1, EDGE_POINTS)
    edge = np.concatenate([steps, steps, np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS)])
    side = np.concatenate([np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS), steps, steps])
    edges = np.stack([edge * grid.width, side * grid.height])
    points = np.concatenate([edges, _draw_lattice(grid)], axis=1)
    return not np.isfinite(locate(grid, *points)).all()


def require_way(crs: CRS, name: str):
    """Raise unless positions in a CRS have longitudes and latitudes.

    Raises:
        RasterError: If they have none.
    """
    reason = _find_hindrance(crs)
    if reason is not None:
        raise RasterError(
            f"{name} is in {say_crs(crs)}, {reason}",
            fix="use a geographic or projected CRS of the Earth",
        )


@lru_cache(4096)
def _place(name: str, crs: CRS | None, transform: Affine, width: int, height: int) -> Placement:
    grid = Grid(crs, transform, width, height)
    _require_pixels(grid, name)
    if not crs:
        return Placement(replace(grid, crs=None))
    if describe_crs(crs) is not None and pyproj.CRS(crs.to_wkt()).is_geocentric:
        raise RasterError(
            f"{name} is in {say_crs(crs)}, which is geocentric: its axes run through the Earth, "
            "and no image can lie in it",
            fix=f"assign the CRS that its coordinates are in: gdal_edit.py -a_srs EPSG:CODE {name}",
        )
    hindrance = _find_hindrance(crs)
    if hindrance is not None:
        return Placement(
            replace(grid, crs=None),
            crs,
            Caution(
                "place",
                f"{name} is in {say_crs(crs)}, {hindrance}: the map has pixels and no hectares",
                "give rasters in a geographic or projected CRS of the Earth, if they show it",
            ),
        )
    if transform in WITHOUT_PLACE:
        raise RasterError(
            f"{name} has the CRS {say_crs(crs)} and no coordinates in it: its transform is "
            f"{_say_transform(transform)}, the default where none was written",
            fix="assign the coordinates of its edges, for example: "
            f"gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM {name}",
        )
    if crs.is_geographic:
        _require_degrees(grid, name)
    _require_earth(grid, name)
    return Placement(grid)


def _require_pixels(grid: Grid, name: str):
    """Raise unless the transform gives valid pixels."""
    numbers = tuple(grid.transform)[:6]
    is_finite = all(abs(number) < LARGEST_NUMBER for number in numbers)
    across, down = grid.pixel_size if is_finite else (0.0, 0.0)
    has_sides = min(across, down) > 1 / LARGEST_NUMBER
    has_area = has_sides and abs(grid.transform.determinant) > FLATTEST * across * down
    furthest = max(map(abs, grid.bounds)) if has_area else 0.0
    if has_area and min(across, down) > FINEST * furthest:
        return
    reason = "its pixels have no area" if is_finite else "not all of its numbers are coordinates"
    if has_area:
        reason = (
            f"its pixels of {min(across, down):.3g} are too small for coordinates of {furthest:.3g}"
        )
    raise RasterError(
        f"{name} has the transform {_say_transform(grid.transform)}: {reason}",
        fix="assign the coordinates of its edges, for example: "
        f"gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM {name}",
    )


def _require_degrees(grid: Grid, name: str):
    """Raise unless the bounds are possible longitudes and latitudes."""
    degrees = _measure_unit_degrees(grid.crs)
    left, bottom, right, top = (edge * degrees for edge in grid.bounds)
    # The middles of the outer pixels may lie on the poles.
    pixel = max(grid.pixel_size) * degrees
    if (
        max(abs(bottom), abs(top)) <= 90 + pixel
        and max(abs(left), abs(right)) <= FURTHEST_DEGREES
        and right - left <= 360 + pixel
    ):
        return
    raise RasterError(
        f"{name} would span longitudes {left:.10g} to {right:.10g} and latitudes {bottom:.10g} to "
        f"{top:.10g}, as its CRS is {say_crs(grid.crs)}",
        fix=f"assign the CRS that its coordinates are in: gdal_edit.py -a_srs EPSG:CODE {name}",
    )


def _require_earth(grid: Grid, name: str):
    """Raise unless the pixels lie on the Earth, with a possible area."""
    fault = _find_fault(grid)
    if fault is not None:
        edges = ", ".join(f"{edge:.10g}" for edge in grid.bounds)
        raise RasterError(
            f"{name} spans ({edges}) in {say_crs(grid.crs)}: {fault}",
            fix="assign the CRS that its coordinates are in, or the right coordinates, for example "
            f"with gdal_edit.py -a_srs EPSG:CODE -a_ullr LEFT TOP RIGHT BOTTOM {name}",
        )


def _find_fault(grid: Grid) -> str | None:
    """Return why pixels cannot lie on the Earth where they do, or None."""
    assert grid.crs is not None
    pixel = math.sqrt(abs(grid.transform.determinant)) * _measure_unit_m(grid.crs)
    longest = max(grid.pixel_size) * _measure_unit_m(grid.crs)
    if pixel < LEAST_PIXEL_M or longest > TURN_M:
        return f"its pixels are {pixel:.2g} m wide"
    columns, rows = _draw_lattice(grid)
    degrees = locate(grid, columns, rows)
    known = np.isfinite(degrees).all(axis=0)
    if not known.any():
        return "no part of that lies on the Earth"
    distance_m = _measure_return(grid, columns[known], rows[known], degrees[:, known])
    if distance_m > TURN_M:
        return f"that is {distance_m / 1000:,.0f} km off its own longitudes and latitudes"
    sides_m = measure_sides(grid)
    if sides_m is not None and not grid.crs.is_geographic:
        distortion = abs(float(np.linalg.det(sides_m))) / pixel**2
        if not 1 / MOST_DISTORTED < distortion < MOST_DISTORTED:
            return f"the ground there has {distortion:.2g} times the area that the CRS gives it"
    area_m2 = _estimate_area(grid) if known.all() else 0.0
    if area_m2 > ROUNDING * EARTH_M2:
        return f"that is {area_m2 / 1e6:,.0f} km2, and the Earth has {EARTH_M2 / 1e6:,.0f}"
    return None


def _draw_lattice(grid: Grid) -> np.ndarray:
    """Return columns and rows of points spread over a grid, including its corners, (2, N)."""
    steps = np.linspace(0, 1, LATTICE_PARTS + 1)
    columns, rows = np.meshgrid(steps * grid.width, steps * grid.height)
    return np.stack([columns.ravel(), rows.ravel()])


def _measure_return(
    grid: Grid, columns: np.ndarray, rows: np.ndarray, degrees: np.ndarray
) -> float:
    """Return the largest distance in m of points of a grid from those of their degrees."""
    assert grid.crs is not None
    if grid.crs.is_geographic:
        return 0.0
    x, y = grid.transform @ (columns, rows)  # pyright: ignore[reportOperatorIssue]
    back = make_transformer(grid.crs.to_wkt(), "EPSG:4326").transform(
        *degrees, direction=TransformDirection.INVERSE
    )
    distances = np.hypot(*(np.where(np.isfinite(back), back, np.nan) - [x, y]))
    known = distances[np.isfinite(distances)]
    return float(known.max(initial=0.0)) * _measure_unit_m(grid.crs)


def _estimate_area(grid: Grid) -> float:
    """Return the approximate ground area of a grid, in m2."""
    parts = (np.arange(LATTICE_PARTS) + 0.5) / LATTICE_PARTS
    rows, columns = np.meshgrid(parts * grid.height - 0.5, parts * grid.width - 0.5)
    return float(np.nanmean(measure_elements(grid, rows, columns))) * grid.width * grid.height


@lru_cache(4096)
def _find_hindrance(crs: CRS) -> str | None:
    """Return why positions in a CRS have no longitudes and latitudes, or None.

    It is worded to follow the name of the CRS.
    """
    known = describe_crs(crs)
    if known is None:
        return "which GDAL cannot pass to other programs (it has no WKT 1)"
    if known.is_vertical or known.is_engineering or not (known.is_geographic or known.is_projected):
        return f"which is not a map of the Earth (its kind is {known.type_name})"
    try:
        make_transformer(crs.to_wkt(), "EPSG:4326")
    except ProjError:
        return "which has no transformation to places on the Earth"
    return None


@lru_cache(4096)
def describe_crs(crs: CRS) -> pyproj.CRS | None:
    """Return PROJ's description of a CRS; None if it cannot be written as WKT 1."""
    try:
        known = pyproj.CRS(crs.to_wkt())
        flat = CRS.from_wkt(known.to_2d().to_wkt()) if len(known.axis_info) > 2 else crs
        flat.to_wkt(version="WKT1_GDAL")
    except (CRSError, ProjError):
        return None
    return known


def _measure_unit_degrees(crs: CRS | None) -> float:
    """Return the degrees of a unit of a geographic CRS."""
    known = None if crs is None else describe_crs(crs)
    if known is None or not known.axis_info:
        return 1.0
    return math.degrees(known.axis_info[0].unit_conversion_factor)


def _measure_unit_m(crs: CRS | None) -> float:
    """Return the metres of a unit of a CRS, for degrees on the equator."""
    known = None if crs is None else describe_crs(crs)
    if crs is None or known is None or not known.axis_info:
        return 1.0
    factor = known.axis_info[0].unit_conversion_factor
    return factor * 6_378_137 if crs.is_geographic else factor


def say_crs(crs: CRS | None) -> str:
    """Return a CRS's code, or else its name, for messages."""
    if crs is None:
        return "no CRS"
    authority = crs.to_authority()
    if authority is not None:
        return ":".join(authority)
    known = describe_crs(crs)
    return f'"{known.name}"' if known is not None else "an unnamed CRS"


def _say_transform(transform: Affine) -> str:
    return "(" + ", ".join(f"{number:.10g}" for number in tuple(transform)[:6]) + ")"
