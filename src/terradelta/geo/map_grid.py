"""The grid of a map: the pixels requested by `--grid`, over the ground of both rasters.

North is up and pixels are about square on the ground, as in the images that networks are
trained with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader

from terradelta.cautions import Caution
from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.area import locate, measure_sides
from terradelta.geo.grid import Grid
from terradelta.geo.mosaic import Mosaic
from terradelta.geo.placement import (
    WITHOUT_PLACE,
    Placement,
    describe_crs,
    place_raster,
    require_way,
    say_crs,
)
from terradelta.geo.scale import measure_pixel_size
from terradelta.geo.virtual import name_raster

Images = DatasetReader | Mosaic

MAX_SIDES_RATIO = 1.2
"""Largest ratio of sides of pixels that count as square."""
MAX_FINER = 16
"""Times that a map may be finer than the finer raster, or coarser than the coarser one."""
MAX_PIXELS = 1e11
MAX_SIDE_PX = 2**31 - 1
"""Limit of the rasters that GDAL can write."""
INSISTENCE = "!"
"""Mark at the end of a grid that allows unusual pixels."""


class GridChoice(NamedTuple):
    """The value of `--grid`."""

    crs: CRS | None
    """None for that of a raster."""
    pixel_size: float | None
    """Side of a pixel in units of the CRS; None for the pixels of a raster."""
    is_forced: bool = False
    """Whether any number of pixels is allowed."""


@dataclass(frozen=True)
class MapGrid:
    """The grid of a map, and its cautions."""

    grid: Grid
    """The pixels."""
    cautions: tuple[Caution, ...] = ()
    """Reasons to doubt its place or its pixels."""
    notice: str = ""
    """A note for the user if the pixels are not those of a raster."""


def parse_grid(choice: str | float) -> GridChoice:
    """Return the CRS and pixel size in `--grid`, None for those taken from a raster.

    Raises:
        ArgumentError: If it is neither a raster's name nor a pixel size.
    """
    if choice in ("before", "after"):
        return GridChoice(None, None)
    text = str(choice)
    code, separator, size = text.removesuffix(INSISTENCE).rpartition("@")
    try:
        pixel_size = float(size)
        crs = CRS.from_user_input(code) if separator else None
    except (ValueError, CRSError):
        crs, pixel_size = None, 0.0
    if not 0 < pixel_size < float("inf"):
        raise ArgumentError(
            f"the grid {choice!r} is not known",
            fix="use --grid before, --grid after, the side of a pixel in units of the before "
            "raster's CRS, such as --grid 2.5, or a CRS with it, such as --grid EPSG:3035@10",
        )
    if crs is not None:
        require_way(crs, f"the grid {choice!r}")
    return GridChoice(crs, pixel_size, text.endswith(INSISTENCE))


def choose_grid(before: Images, after: Images, choice: str | float) -> MapGrid:
    """Return the chosen grid, cut to the ground of both rasters.

    Raises:
        RasterError: If the rasters do not overlap, or have no CRS in common.
        ArgumentError: If the grid is not known, or not sensible for these rasters.
    """
    places = place_raster(before), place_raster(after)
    names = name_raster(before), name_raster(after)
    # For two rasters in one plane, one is enough.
    cautions = tuple({place.plane: place.caution for place in places if place.caution}.values())
    asked = parse_grid(choice)
    if any(place.grid.crs is None for place in places):
        return MapGrid(_share_plane(places, names, choice), cautions)
    if asked.crs is not None:
        assert asked.pixel_size is not None
        grid = _share_ground((before, after), asked, f"--grid {choice}")
    elif asked.pixel_size is not None:
        # Cut by both, so that every row and column at the edge has data.
        shared = places[0].grid.intersect(places[1].grid)
        grid = span_grid(
            places[0].grid.crs,
            shared.bounds,
            asked,
            [place.grid for place in places],
            f"--grid {choice}",
        ).intersect(places[1].grid)
    else:
        grid, notice = _share_pixels(places, choice)
        return MapGrid(grid, cautions, notice)
    return MapGrid(grid, cautions + _find_cautions(grid))


def span_grid(
    crs: CRS | None,
    bounds: tuple[float, float, float, float],
    asked: GridChoice,
    sources: list[Grid],
    option: str,
    max_pixels: float = MAX_PIXELS,
) -> Grid:
    """Return the requested pixels over bounds.

    Args:
        crs: CRS of the grid.
        bounds: Left, bottom, right, top in that CRS.
        asked: The side of a pixel, and whether any number is allowed.
        sources: The pixels of the rasters, for comparison.
        option: The option that gave the grid, for messages.
        max_pixels: Largest number of pixels unless any number is allowed.

    Raises:
        ArgumentError: If there would be too many pixels, or only one.
    """
    assert crs is not None
    assert asked.pixel_size is not None
    size = asked.pixel_size
    width, height = ((bounds[side + 2] - bounds[side]) / size for side in (0, 1))
    is_possible = 0 < max(width, height) < MAX_SIDE_PX
    problem = None
    if not is_possible:
        problem = f"{width:.2g} x {height:.2g} px, more than a raster can have"
    elif not asked.is_forced and width * height > max_pixels:
        problem = f"{width:,.0f} x {height:,.0f} px, {width * height:.2g} in all"
    elif not asked.is_forced:
        problem = _find_excess(crs, bounds, size, sources)
    if problem is not None:
        insist = f", or allow it with {option}{INSISTENCE}" if is_possible else ""
        raise ArgumentError(
            f"{option} gives pixels of {size:g} {name_unit(crs, size)}: {problem}",
            fix=f"{_suggest(crs, bounds, sources)}{insist}",
        )
    return Grid.spanning(crs, size, bounds)


def name_unit(crs: CRS, number: float = 2) -> str:
    """Return the unit of a CRS: "metres", "degrees"."""
    unit = "degree" if crs.is_geographic else (crs.linear_units or "unit").lower()
    unit = {"meter": "metre", "foot": "foot"}.get(unit, unit)
    return unit if number == 1 else {"foot": "feet"}.get(unit, f"{unit}s")


def name_metric_grid(grid: Grid) -> str | None:
    """Return the `--grid` of a UTM zone with square pixels about as large as a grid's are.

    None if the grid has no place on the Earth.
    """
    size_m = measure_pixel_size(grid)
    if size_m is None:
        return None
    longitude, latitude = locate(grid, np.array(grid.width / 2), np.array(grid.height / 2))
    if not np.isfinite(longitude):
        return None
    zone = int((float(longitude) + 180) // 6) % 60 + 1
    return f"EPSG:{326 if latitude >= 0 else 327}{zone:02d}@{size_m:.2g}"


def _share_pixels(places: tuple[Placement, Placement], choice: str | float) -> tuple[Grid, str]:
    """Return the pixels of one of two rasters, north up and square, and a notice of new ones."""
    base, other = (place.grid for place in (places if choice == "before" else places[::-1]))
    upright = _turn_upright(base)
    square = _make_square(upright)
    notice = ""
    if square != upright:
        notice = (
            f"the pixels of the {choice} raster are {_compare_sides(upright):.2f} times as long as "
            f"wide on the ground: the map has square pixels, {square.width} x {square.height} in "
            f"place of {base.width} x {base.height}"
        )
    return square if square.same_as(other) else square.intersect(other), notice


def _share_plane(
    places: tuple[Placement, Placement], names: tuple[str, str], choice: str | float
) -> Grid:
    """Return the pixels of two rasters, at least one without a place on the Earth."""
    grids, planes = [place.grid for place in places], [place.plane for place in places]
    if any(grid.crs is not None for grid in grids):
        number = next(index for index in (0, 1) if grids[index].crs is None)
        plane, other = planes[number], grids[1 - number].crs
        reason = (
            "has no coordinate reference system"
            if plane is None
            else f"is in {say_crs(plane)}, which has no transformation to places on the Earth"
        )
        raise RasterError(
            f"{names[number]} {reason}, {names[1 - number]} has {say_crs(other)}",
            fix=f"assign one, for example: gdal_edit.py -a_srs EPSG:CODE {names[number]}",
        )
    if choice not in ("before", "after"):
        raise ArgumentError(
            f"--grid {choice} needs a place on the Earth, and {' and '.join(names)} have none",
            fix="leave --grid out, or georeference both",
        )
    # GDAL treats two different local planes as one.
    texts = [plane and plane.to_wkt() for plane in planes]
    is_same_plane = texts[0] is not None and texts[0] == texts[1]
    if not is_same_plane and not grids[0].same_as(grids[1]):
        said = [
            f"{name} is {grid.width} x {grid.height}" + (f" in {say_crs(plane)}" if plane else "")
            for name, grid, plane in zip(names, grids, planes, strict=True)
        ]
        raise RasterError(
            "neither raster has a coordinate reference system"
            f"{' of the Earth' if any(planes) else ''} and they differ: {', '.join(said)}",
            fix="georeference both, or cut them to the same pixels",
        )
    if not is_same_plane:
        return grids[0]
    base, other = grids if choice == "before" else grids[::-1]
    base = _turn_upright(base)
    return base if base.same_as(other) else base.intersect(other)


def _share_ground(pair: tuple[Images, Images], asked: GridChoice, option: str) -> Grid:
    """Return the grid of a CRS over the common bounds of both rasters."""
    crs = asked.crs
    assert crs is not None
    names = [name_raster(images) for images in pair]
    edges = np.array([_find_bounds(images, crs) for images in pair])
    if not np.isfinite(edges).all():
        raise RasterError(
            f"{crs} cannot show all of {' and '.join(names)}",
            fix="give a CRS of their part of the world: --grid EPSG:CODE@SIZE",
        )
    left, bottom = edges[:, :2].max(axis=0).tolist()
    right, top = edges[:, 2:].min(axis=0).tolist()
    if left >= right or bottom >= top:
        raise RasterError(
            f"the two rasters do not overlap: in {crs} {names[0]} covers {tuple(edges[0])} and "
            f"{names[1]} {tuple(edges[1])}",
            fix="give two rasters of the same place",
        )
    sources = [Grid.of(images) for images in pair]
    return span_grid(crs, (left, bottom, right, top), asked, sources, option)


def _find_bounds(images: Images, crs: CRS) -> tuple[float, float, float, float]:
    return images.bounds_in(crs) if isinstance(images, Mosaic) else Grid.of(images).bounds_in(crs)


def _turn_upright(grid: Grid) -> Grid:
    """Return the same pixels with north up and east on the right; rotation may remain."""
    if grid.transform in WITHOUT_PLACE:
        return grid
    t = grid.transform
    (a, b), (d, e) = _find_axes(grid) @ np.array([[t.a, t.b], [t.d, t.e]])
    # Rows run to the south: in a mirrored image they or the columns run the other way.
    if a * e - b * d > 0:
        return _turn_upright(grid.flip(rows=a >= 0, columns=a < 0))
    is_upside_down = a < 0 < e and max(abs(b), abs(d)) < 1e-6 * min(abs(a), abs(e))
    return grid.flip(rows=True, columns=True) if is_upside_down else grid


def _find_axes(grid: Grid) -> np.ndarray:
    """Return the directions of a grid CRS's axes, as columns to the east and to the north."""
    sides_m = measure_sides(grid)
    known = None if grid.crs is None else describe_crs(grid.crs)
    if sides_m is None or known is None:
        return np.eye(2)
    t = grid.transform
    axes = sides_m.T @ np.linalg.inv(np.array([[t.a, t.b], [t.d, t.e]]))
    if np.linalg.det(axes) < 0:
        return axes
    # Around the poles the axes of most CRSs point elsewhere, and north is up by convention.
    is_reversed = {axis.direction for axis in known.axis_info[:2]} == {"west", "south"}
    return -np.eye(2) if is_reversed else np.eye(2)


def _make_square(grid: Grid) -> Grid:
    """Return about the same number of pixels on the same ground, made square if necessary."""
    ratio = _compare_sides(grid)
    if 1 / MAX_SIDES_RATIO <= ratio <= MAX_SIDES_RATIO:
        return grid
    height, width = grid.height * math.sqrt(ratio), grid.width / math.sqrt(ratio)
    return grid.redivide(max(1, round(height)), max(1, round(width)))


def _compare_sides(grid: Grid) -> float:
    """Return the ratio of length to width of a pixel on the ground, 1 if unknown."""
    across_m, down_m = _measure_lengths(grid)
    return down_m / across_m


def _measure_lengths(grid: Grid) -> tuple[float, float]:
    """Return width and length of a pixel on the ground in metres; 1 if unknown."""
    sides_m = measure_sides(grid)
    if sides_m is None:
        return 1.0, 1.0
    across_m, down_m = np.linalg.norm(sides_m, axis=1).tolist()
    return across_m, down_m


def _find_cautions(grid: Grid) -> tuple[Caution, ...]:
    """Return the cautions of a grid that was given by its pixel size."""
    across_m, down_m = _measure_lengths(grid)
    if 1 / MAX_SIDES_RATIO <= down_m / across_m <= MAX_SIDES_RATIO:
        return ()
    return (
        Caution(
            "pixels",
            f"the pixels of the map are {across_m:.3g} m wide and {down_m:.3g} m long on the "
            "ground: the network sees a squeezed image",
            f"use square pixels: --grid {name_metric_grid(grid)}",
        ),
    )


def _find_excess(
    crs: CRS, bounds: tuple[float, float, float, float], size: float, sources: list[Grid]
) -> str | None:
    """Return the reason against pixels of this size, or None."""
    width, height = ((bounds[side + 2] - bounds[side]) / size for side in (0, 1))
    sides_m = [side for side in map(measure_pixel_size, sources) if side]
    middle = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    pixel = Affine.translation(*middle) @ Affine.scale(size, -size)
    size_m = measure_pixel_size(Grid(crs, pixel, 1, 1))
    if not sides_m or not size_m:
        return None
    if size_m * MAX_FINER < min(sides_m):
        return (
            f"about {size_m:.3g} m, more than {MAX_FINER} times finer than the {min(sides_m):.3g} "
            "m of the finer raster"
        )
    if max(width, height) < 1 and size_m > MAX_FINER * max(sides_m):
        return f"one pixel would cover all of the ground {1 / max(width, height):,.0f} times"
    return None


def _suggest(crs: CRS, bounds: tuple[float, float, float, float], sources: list[Grid]) -> str:
    """Return a fix: a grid that fits the rasters."""
    finest = min(sources, key=lambda grid: measure_pixel_size(grid) or math.inf, default=None)
    if finest is None:
        return "give the side of a pixel in units of the CRS"
    metric = name_metric_grid(finest)
    side_m = measure_pixel_size(finest)
    middle = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    unit_m = measure_pixel_size(
        Grid(crs, Affine.translation(*middle) @ Affine.scale(1e-5, -1e-5), 1, 1)
    )
    if metric is None or not side_m or not unit_m:
        return "give the side of a pixel in units of the CRS"
    side = side_m / unit_m * 1e-5
    return (
        f"give the side of a pixel in {name_unit(crs)}, such as {side:.2g}, or a CRS in metres, "
        f"such as --grid {metric}"
    )
