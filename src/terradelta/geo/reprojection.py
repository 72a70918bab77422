"""Transforms polygons from one CRS to another, or only the parts around a grid.

A CRS covers a part of the world. Polygons far from a grid may have no place in the grid's CRS, or a
false one, so distant parts are cut away first, in the polygons' own CRS.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyproj
import shapely
from pyproj.enums import TransformDirection
from rasterio.crs import CRS

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, make_transformer

DENSIFY_PARTS = 64
"""A polygon's extent divided by this is the longest edge that is not densified."""
REGION_PARTS = 1024
"""The same for a grid's extent, if polygons are cut to its surroundings."""
REGION_MARGIN = 0.1
"""Width of the surroundings of a grid, as a share of its extent."""
TORN_SHARE = 0.25
"""Share of an edge by which its transformed middle may deviate before the edge counts as torn."""
OUTLINE_POINTS = 256
RETURN_SHARE = 1e-3
"""Share of a polygon's extent by which points may deviate when transformed back."""


def extract_polygons(
    shape: shapely.Geometry | None, path: str | Path = ""
) -> shapely.Geometry | None:
    """Return the polygons of a geometry, or of a collection, made valid; None without polygons.

    Args:
        shape: Any geometry.
        path: Its file, for messages.

    Raises:
        RasterError: If a vertex is not finite.
    """
    if shape is None or shapely.is_empty(shape):
        return None
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise RasterError(
            f"{path} has a vertex that is not finite: {shapely.bounds(shape).tolist()}",
            fix="remove that polygon, or draw it again",
        )
    parts = np.array([shapely.make_valid(shapely.force_2d(shape))])
    while any(shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION):
        parts = shapely.get_parts(parts)
    parts = [
        part for part in parts if shapely.get_dimensions(part) == 2 and not shapely.is_empty(part)
    ]
    return shapely.make_valid(shapely.union_all(parts)) if parts else None


def show_whole(shape: shapely.Geometry, source: pyproj.CRS, target: CRS) -> shapely.Geometry | None:
    """Return polygons in another CRS; None if it cannot represent all of them."""
    if source.equals(pyproj.CRS(target.to_wkt()), ignore_axis_order=True):
        return shape
    left, bottom, right, top = shapely.bounds(shape).tolist()
    extent = max(right - left, top - bottom)
    return _transform(shapely.segmentize(shape, extent / DENSIFY_PARTS), source, target, extent)


def _transform(
    shape: shapely.Geometry, source: pyproj.CRS, target: CRS, extent: float
) -> shapely.Geometry | None:
    """Return polygons in another CRS; None if a point of them has no place in it."""
    transformer = make_transformer(source.to_wkt(), target.to_wkt())
    points_2N = shapely.get_coordinates(shape).T
    placed_2N = np.stack(transformer.transform(*points_2N))
    back_2N = np.stack(transformer.transform(*placed_2N, direction=TransformDirection.INVERSE))
    if not (np.isfinite(placed_2N).all() and np.isfinite(back_2N).all()):
        return None
    off = back_2N - points_2N
    if source.is_geographic:
        off[0] -= 360 * np.round(off[0] / 360)
        # All longitudes meet at the poles.
        off[0, np.abs(points_2N[1]) > 90 - 1e-6] = 0
    if np.abs(off).max() > RETURN_SHARE * extent:
        return None
    # `_turn_towards` corrects jumps of longitude.
    if not target.is_geographic and _is_torn(shape, transformer):
        return None
    placed = shapely.set_coordinates(shapely.transform(shape, lambda points: points), placed_2N.T)
    return extract_polygons(placed)


def _is_torn(shape: shapely.Geometry, transformer: pyproj.Transformer) -> bool:
    """Return whether a projection puts the ends of an edge on opposite sides of the world."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    points_N2, ring_N = shapely.get_coordinates(rings, return_index=True)
    starts_N2, ends_N2 = (
        part[ring_N[1:] == ring_N[:-1]] for part in (points_N2[:-1], points_N2[1:])
    )
    start_N2, middle_N2, end_N2 = (
        np.stack(transformer.transform(*part.T), axis=1)
        for part in (starts_N2, (starts_N2 + ends_N2) / 2, ends_N2)
    )
    off_N = np.hypot(*(middle_N2 - (start_N2 + end_N2) / 2).T)
    rounding = 1e-9 * np.abs(start_N2).max()
    return bool((off_N > TORN_SHARE * np.hypot(*(end_N2 - start_N2).T) + rounding).any())


def cut_polygons(
    shapes: np.ndarray, source: pyproj.CRS, grid: Grid
) -> list[shapely.Geometry | None]:
    """Return the parts of polygons around a grid, in the grid's CRS.

    Args:
        shapes: Valid polygons, (N,).
        source: Their CRS.
        grid: The grid.

    Returns:
        For each the polygons in the grid's CRS, empty if they lie elsewhere; None if the CRS
        cannot represent them even there.
    """
    assert grid.crs is not None
    region = _find_region(source, grid)
    if region is None:
        return [None] * len(shapes)
    turns = (0, 360, -360) if source.is_geographic else (0,)
    left, bottom, right, top = region.bounds
    extent = max(right - left, top - bottom)
    cut = []
    for shape in shapes:
        turned = [shapely.transform(shape, partial(np.add, [turn, 0])) for turn in turns]
        near = shapely.union_all([shapely.intersection(part, region) for part in turned])
        near = extract_polygons(near)
        if near is None:
            cut.append(shapely.Polygon())
            continue
        dense = shapely.segmentize(near, extent / REGION_PARTS)
        placed = _transform(dense, source, grid.crs, extent)
        if placed is not None and grid.crs.is_geographic:
            placed = _turn_towards(placed, grid)
        cut.append(placed)
    return cut


def _find_region(source: pyproj.CRS, grid: Grid) -> shapely.Polygon | None:
    """Return the surroundings of a grid in another CRS, as a box; None without a place in it."""
    assert grid.crs is not None
    transformer = make_transformer(grid.crs.to_wkt(), source.to_wkt())
    steps = np.linspace(0, 1, 17)
    columns, rows = np.meshgrid(steps * grid.width, steps * grid.height)
    inner = grid.transform @ (columns.ravel(), rows.ravel())  # pyright: ignore[reportOperatorIssue]
    outer = grid.walk_around(OUTLINE_POINTS)
    points_x, points_y = (np.concatenate(parts) for parts in zip(inner, outer, strict=True))
    x, y = transformer.transform(points_x, points_y)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.all():
        # A box around the known points may miss others.
        return None
    if source.is_geographic:
        middle = x[len(inner[0]) // 2]
        x = middle + (x - middle + 180) % 360 - 180
        poles = [sign * 90 for sign in (1, -1) if _holds_pole(grid, sign)]
        if poles or np.ptp(x) > 270:
            x = np.array([middle - 180, middle + 180])
        y = np.concatenate([y, poles])
    margin = REGION_MARGIN * max(np.ptp(x), np.ptp(y))
    left, bottom, right, top = (
        x.min() - margin,
        y.min() - margin,
        x.max() + margin,
        y.max() + margin,
    )
    if source.is_geographic:
        bottom, top = max(bottom, -90), min(top, 90)
        middle = (left + right) / 2
        left, right = max(left, middle - 180), min(right, middle + 180)
    return shapely.box(left, bottom, right, top)


def _holds_pole(grid: Grid, sign: int) -> bool:
    """Return whether the north (1) or south (-1) pole lies on a grid."""
    assert grid.crs is not None
    if grid.crs.is_geographic:
        return False
    x, y = make_transformer("EPSG:4326", grid.crs.to_wkt()).transform(0.0, 90.0 * sign)
    if not (np.isfinite(x) and np.isfinite(y)):
        return False
    column, row = ~grid.transform @ (x, y)
    return 0 <= column <= grid.width and 0 <= row <= grid.height


def _turn_towards(shape: shapely.Geometry, grid: Grid) -> shapely.Geometry | None:
    """Return polygons with longitudes in the range of a grid; None if one goes around a pole."""
    left, bottom, right, top = grid.bounds
    frame = shapely.box(left - 1, bottom - 1, right + 1, top + 1)
    parts = []
    for polygon in shapely.get_parts(shape):
        rings = list(map(_unroll, (polygon.exterior, *polygon.interiors)))
        if any(abs(ring[-1, 0] - ring[0, 0]) > 180 for ring in rings):
            return None
        shell = rings[0]
        middle = _find_middle(shell)
        holes = [ring - [360 * round((_find_middle(ring) - middle) / 360), 0] for ring in rings[1:]]
        whole = shapely.Polygon(shell, holes)
        turn = 360 * round(((left + right) / 2 - middle) / 360)
        for more in (0, 360, -360):
            turned = shapely.transform(whole, partial(np.add, [turn + more, 0]))
            parts.append(shapely.intersection(shapely.make_valid(turned), frame))
    return extract_polygons(shapely.union_all(parts)) or shapely.Polygon()


def _unroll(ring: shapely.LinearRing) -> np.ndarray:
    """Return a ring's points without jumps of longitude, (N, 2)."""
    points = shapely.get_coordinates(ring)
    points[:, 0] = np.unwrap(points[:, 0], period=360)
    return points


def _find_middle(points: np.ndarray) -> float:
    """Return the longitude in the middle of points, (N, 2)."""
    return float(points[:, 0].min() + points[:, 0].max()) / 2
