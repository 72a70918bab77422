"""Estimates what a map will take, in blocks, tiles, bytes, hours and money, before it is made.

Blocks are counted on a lattice with one cell a block, a strip of rows at a time, so that a plan of
all land takes seconds and as much memory as a plan of a town.

Legend of the array names: H rows, W columns of such a lattice.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import geopandas
import numpy as np
import shapely
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

from terradelta.cautions import Caution
from terradelta.errors import ArgumentError, RasterError
from terradelta.fields import POSITIVE_COUNT, checks_ranges
from terradelta.geo.area import measure_pixels
from terradelta.geo.footprints import draw_footprints
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.listing import RasterPaths
from terradelta.geo.map_grid import parse_grid, span_grid
from terradelta.geo.mosaic import Mosaic
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import Range
from terradelta.geo.polygons import read_polygons
from terradelta.geo.scale import advise_scale
from terradelta.inference.admission import look_over
from terradelta.inference.prediction_options import (
    MapOptions,
    RasterOptions,
    Runtime,
    require_kinds,
)
from terradelta.inference.predictor import Predictor
from terradelta.inference.rasters import PairRequest, open_pair, plan_blocks
from terradelta.inference.tiling import BlockPlan, Cut, Tile
from terradelta.mapping.prices import WorkerKind, parse_workers
from terradelta.models.bundle import load_model
from terradelta.models.embedded import find_model_folders

STRIP_ROWS = 128
"""Rows of the lattice that are processed together."""
MAX_PLANNED_PIXELS = 1e14
"""About the number of pixels of 2 m on Earth."""
MEASURED_TILES = 4
DEGREES = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Extent:
    """The amount of work."""

    blocks: int
    """Blocks of the map where both dates have a raster."""
    empty_blocks: int
    """Blocks without work: they are neither read nor answered."""
    tiles: int
    """Tiles that the network sees."""
    area_km2: float
    """Ground of the blocks with work, the geodesic area by rows of blocks."""
    bytes_read: int
    """Pixels of both dates that are read, uncompressed, margins of the tiles included."""


@dataclass(frozen=True)
class TilePace:
    """The measured cost of a tile on this machine."""

    tiles: int
    """Number of measured tiles."""
    network_seconds: float
    """Time of one tile in the network, with all test-time views and models."""
    read_seconds: float | None
    """Time to read one tile's pixels of both dates; None if there were no rasters to read."""

    @property
    def seconds(self) -> float:
        """Time of one tile: the next tiles are read while the network works."""
        return max(self.network_seconds, self.read_seconds or 0.0)


@dataclass(frozen=True)
class WorkPlan:
    """The estimated cost of a map."""

    grid: Grid
    """The pixels of the map."""
    extent: Extent
    """The amount of work."""
    pace: TilePace
    """The cost of a tile on this machine."""
    kinds: tuple[WorkerKind, ...]
    """Kinds of machines that may do the work."""
    cautions: tuple[Caution, ...] = ()
    """Cautions known so far."""

    def hours(self, kind: WorkerKind) -> float:
        """Return the hours that one worker of this kind needs."""
        return self.extent.tiles * self.pace.seconds / kind.speed / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "cautions": [caution.to_dict() for caution in self.cautions],
            "grid": {
                "crs": self.grid.crs.to_string() if self.grid.crs else None,
                "width": self.grid.width,
                "height": self.grid.height,
                "pixel_size": list(self.grid.pixel_size),
            },
            **asdict(self.extent),
            "measured": {**asdict(self.pace), "seconds_per_tile": self.pace.seconds},
            "workers": [
                {
                    **asdict(kind),
                    "worker_hours": self.hours(kind),
                    "cost": kind.price_per_hour and kind.price_per_hour * self.hours(kind),
                }
                for kind in self.kinds
            ],
        }

    def to_text(self) -> str:
        """Return it as lines to read."""
        extent, pace = self.extent, self.pace
        reading = (
            "reading was not measured"
            if pace.read_seconds is None
            else f"{pace.read_seconds:.3g} s to read"
        )
        lines = [
            *(caution.to_text() for caution in self.cautions),
            f"map      {self.grid.width:,} x {self.grid.height:,} px",
            f"work     {extent.area_km2:,.6g} km2 in {extent.blocks:,} blocks "
            f"({extent.empty_blocks:,} more are empty), {extent.tiles:,} tiles",
            f"reading  {_say_bytes(extent.bytes_read)} of pixels, as they are uncompressed",
            f"a tile   {pace.network_seconds:.3g} s in the network, {reading} "
            f"(mean of {pace.tiles} on this machine)",
        ]
        for kind in self.kinds:
            hours = self.hours(kind)
            cost = (
                "" if kind.price_per_hour is None else f", cost {kind.price_per_hour * hours:,.2f}"
            )
            speed = "" if kind.speed == 1 else f" (said to be {kind.speed:g} times as fast)"
            lines.append(f"worker   {kind.name}{speed}: {hours:,.3g} hours of one{cost}")
        return "\n".join(lines)


def plan_pair(
    before: RasterPaths,
    after: RasterPaths,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    rasters: RasterOptions = RasterOptions(),  # noqa: B008
    runtime: Runtime = Runtime(),  # noqa: B008
    prices: str | None = None,
) -> WorkPlan:
    """Return the estimated cost of mapping a pair, its pace measured on a few of its tiles.

    Args:
        before: The earlier raster or mosaic; see `list_rasters`.
        after: The later one.
        model: Same as in `predict`.
        rasters: Same as in `predict`.
        runtime: Same as in `predict`.
        prices: Prices of workers per hour; see `parse_workers`.

    Raises:
        TerradeltaError: If an input cannot be used.
    """
    require_kinds(rasters=rasters)
    kinds = parse_workers(prices)
    predictor = _make_predictor(model, runtime, rasters.reading.seen_ranges)
    asked = PairRequest(before, after, (), rasters, MapOptions())
    with open_pair(predictor, asked) as (pair, _):
        report = look_over(before, after, rasters.reading, predictor.needs, rasters.dates)
        predictor.see_grid(pair.grid)
        predictor.start(pair.grid.width * pair.grid.height)
        blocks = plan_blocks(predictor.tiling, pair.grid, pair.area, pair.bytes_per_pixel)
        layers = _outline(pair)
        extent = measure_extent(blocks, pair.grid, layers, pair.bytes_per_pixel)
        if not extent.tiles:
            raise RasterError(
                "both dates have no common ground inside the area of interest",
                fix="run `terradelta check` to see where they lie",
            )
        pace = _measure_pair(predictor, pair, choose_tiles(blocks, layers, extent.tiles))
    return WorkPlan(pair.grid, extent, pace, kinds, report.cautions)


@checks_ranges
def plan(
    area: str | Path,
    *,
    grid: str,
    model: str | Path | Sequence[str | Path] | None = None,
    bytes_per_pixel: Annotated[int, POSITIVE_COUNT] | None = None,
    runtime: Runtime = Runtime(),  # noqa: B008
    prices: str | None = None,
) -> WorkPlan:
    """Return the estimated cost of mapping an area, before there are rasters of it.

    Args:
        area: A vector file with polygons, or "WEST,SOUTH,EAST,NORTH" in degrees.
        grid: CRS and side of the map's pixels: "EPSG:6933@10".
        model: Same as in `predict`.
        bytes_per_pixel: Bytes per pixel of both dates together; by default a byte per band.
        runtime: Same as in `predict`.
        prices: Prices of workers per hour; see `parse_workers`.

    Raises:
        TerradeltaError: If an argument cannot be used.
    """
    asked = parse_grid(grid)
    crs, pixel_size = asked.crs, asked.pixel_size
    if crs is None or pixel_size is None:
        raise ArgumentError(
            f"the grid {grid!r} names no CRS, and there is no raster to take it from",
            fix="write CRS and pixel size: --grid EPSG:6933@10",
        )
    kinds = parse_workers(prices)
    polygons = _read_area(area, Grid(crs, Affine.scale(pixel_size, -pixel_size), 1, 1))
    left, bottom, right, top = map(float, polygons.total_bounds)
    bounds = left, bottom, right, top
    if not np.isfinite(bounds).all():
        raise ArgumentError(
            f"{crs} cannot show all of {area}", fix="use an equal-area one: --grid EPSG:6933@10"
        )
    map_grid = span_grid(crs, bounds, asked, [], f"--grid {grid}", MAX_PLANNED_PIXELS)
    predictor = _make_predictor(model, runtime)
    predictor.see_grid(map_grid)
    predictor.start(map_grid.width * map_grid.height)
    read_bytes = bytes_per_pixel or 2 * len(predictor.bands)
    whole = cut_window(0, 0, map_grid.width, map_grid.height)
    blocks = plan_blocks(predictor.tiling, map_grid, whole, read_bytes)
    layers = [_to_pixels(np.asarray(polygons), map_grid)]
    extent = measure_extent(blocks, map_grid, layers, read_bytes)
    advice = advise_scale(map_grid, predictor.needs.resolution_m)
    cautions = () if advice is None else (Caution("scale", *advice),)
    return WorkPlan(map_grid, extent, _measure_network(predictor), kinds, cautions)


def measure_extent(
    blocks: BlockPlan,
    grid: Grid,
    layers: Sequence[np.ndarray],
    bytes_per_pixel: int,
) -> Extent:
    """Return the amount of work where polygons of all layers lie.

    Args:
        blocks: How the map is cut.
        grid: Its pixels.
        layers: Polygons in pixels of the grid: footprints of each date, areas of interest. A block
            counts if each layer touches it.
        bytes_per_pixel: Bytes per pixel of both dates.
    """
    rows, columns = blocks.rows, blocks.columns
    read_widths = np.array([group[-1].read_end - group[0].read_start for group in columns])
    read_heights = np.array([group[-1].read_end - group[0].read_start for group in rows])
    widths = np.array([group[-1].write_end - group[0].write_start for group in columns])
    count = read_pixels = 0
    area_m2 = 0.0
    for first, touched_HW in _touch(rows, columns, layers):
        count += int(touched_HW.sum())
        part = slice(first, first + len(touched_HW))
        read_pixels += int(read_heights[part] @ (touched_HW @ read_widths))
        for group, pixels in zip(rows[part], touched_HW @ widths, strict=True):
            if pixels:
                area_m2 += pixels * _measure_rows(grid, group, widths)
    tile_rows, tile_columns = (
        [[cut] for group in groups for cut in group] for groups in (rows, columns)
    )
    tiles = sum(int(part_HW.sum()) for _, part_HW in _touch(tile_rows, tile_columns, layers))
    return Extent(count, len(blocks) - count, tiles, area_m2 / 1e6, read_pixels * bytes_per_pixel)


def choose_tiles(blocks: BlockPlan, layers: Sequence[np.ndarray], tiles: int) -> Iterator[Tile]:
    """Yield some of the tiles where polygons of all layers lie, spread evenly over them."""
    rows, columns = (
        [[cut] for group in groups for cut in group] for groups in (blocks.rows, blocks.columns)
    )
    wanted = {
        round((tiles - 1) * step / max(1, MEASURED_TILES - 1)) for step in range(MEASURED_TILES)
    }
    seen = 0
    for first, touched_HW in _touch(rows, columns, layers):
        found = np.flatnonzero(touched_HW)
        for rank in sorted(rank for rank in wanted if seen <= rank < seen + len(found)):
            row, column = divmod(int(found[rank - seen]), len(columns))
            yield Tile.of(rows[first + row][0], columns[column][0])
        seen += len(found)


def _touch(
    rows: Sequence[Sequence[Cut]], columns: Sequence[Sequence[Cut]], layers: Sequence[np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield strips of the lattice: the first row, and which cells polygons of all layers touch."""
    row_edges, column_edges = (
        np.array([group[0].write_start for group in groups] + [groups[-1][-1].write_end])
        for groups in (rows, columns)
    )

    def to_cells(points: np.ndarray) -> np.ndarray:
        inside = [
            np.interp(values, edges, np.arange(len(edges)))
            for values, edges in zip(points.T, (column_edges, row_edges), strict=True)
        ]
        return np.stack(inside, axis=1)

    frame = shapely.box(column_edges[0], row_edges[0], column_edges[-1], row_edges[-1])
    cells = []
    for polygons in layers:
        cut = shapely.intersection(shapely.make_valid(polygons), frame)
        parts = shapely.get_parts(cut)
        cells.append(shapely.transform(parts[shapely.get_dimensions(parts) == 2], to_cells))
    trees = [shapely.STRtree(part) for part in cells]
    for first in range(0, len(rows), STRIP_ROWS):
        height = min(STRIP_ROWS, len(rows) - first)
        touched_HW = np.ones((height, len(columns)), bool)
        strip = shapely.box(0, first, len(columns), first + height)
        for part, tree in zip(cells, trees, strict=True):
            shapes = part[tree.query(strip)]
            if not len(shapes):
                touched_HW[:] = False
                break
            burnt_HW = rasterize(
                shapes,
                out_shape=touched_HW.shape,
                transform=Affine.translation(0, first),
                all_touched=True,
                dtype="uint8",
            )
            touched_HW &= np.asarray(burnt_HW, dtype=bool)
        yield first, touched_HW


def _outline(pair: RasterPair) -> list[np.ndarray]:
    """Return the layers of polygons, in pixels of the grid, that a map of the pair needs."""
    layers = [
        draw_footprints(images, pair.grid) for images in pair.datasets if isinstance(images, Mosaic)
    ]
    if pair.aoi is not None:
        layers.append(_to_pixels(pair.aoi.polygons, pair.grid))
    return layers


def _to_pixels(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    inverse = ~grid.transform

    def convert(points: np.ndarray) -> np.ndarray:
        return np.stack(inverse @ tuple(points.T), axis=1)  # pyright: ignore[reportOperatorIssue]

    return shapely.transform(polygons, convert)


def _read_area(area: str | Path, grid: Grid) -> geopandas.GeoSeries:
    """Return the polygons of an area in the CRS of a grid."""
    if re.fullmatch(r"\s*-?\d[^a-zA-Z/]*", str(area)) and not Path(area).exists():
        try:
            west, south, east, north = map(float, str(area).split(","))
        except ValueError as error:
            raise ArgumentError(
                f"{area!r} are not valid bounds", fix="write WEST,SOUTH,EAST,NORTH in degrees"
            ) from error
        if not (west < east and south < north):
            raise ArgumentError(
                f"the bounds {area} are empty", fix="write WEST,SOUTH,EAST,NORTH in degrees"
            )
        box = shapely.segmentize(shapely.box(west, south, east, north), (east - west) / 64)
        assert grid.crs is not None
        return geopandas.GeoSeries([box], crs=4326).to_crs(grid.crs.to_wkt())
    return read_polygons(area, grid, "AREA", is_whole=True).geometry


def _measure_rows(grid: Grid, group: Sequence[Cut], widths: np.ndarray) -> float:
    """Return the m2 of a column of pixels of a row of blocks, by its pixel in the middle."""
    height = group[-1].write_end - group[0].write_start
    if grid.crs is None:
        return 0.0
    row = group[0].write_start + height // 2
    pixel = measure_pixels(grid, cut_window(int(widths.sum()) // 2, row, 1, 1))
    return height * float(pixel[0, 0])


def _make_predictor(
    model: str | Path | Sequence[str | Path] | None,
    runtime: Runtime,
    value_ranges: tuple[Range | None, Range | None] = (None, None),
) -> Predictor:
    models = [load_model(folder) for folder in find_model_folders(model)]
    return Predictor(models, runtime, value_ranges=value_ranges)


def _measure_pair(predictor: Predictor, pair: RasterPair, tiles: Iterator[Tile]) -> TilePace:
    """Measure the cost of tiles of a pair; empty tiles are replaced by noise of their size."""
    reading, answering = [], []
    for tile in tiles:
        pixels, seconds = _clock(lambda tile=tile: pair.read(tile.read))
        reading.append(seconds)
        if pixels.valid_HW.any():

            def answer(pixels=pixels, tile=tile):
                return predictor.map_window(pixels, tile.read, [tile], tile.write)

            if not answering:
                answer()  # The first call is slow.
            answering.append(_clock(answer)[1])
    if not answering:
        network = _measure_network(predictor)
        return TilePace(network.tiles, network.network_seconds, float(np.mean(reading)))
    return TilePace(len(answering), float(np.mean(answering)), float(np.mean(reading)))


def _measure_network(predictor: Predictor) -> TilePace:
    """Measure the cost of tiles of noise."""
    side = predictor.tiling.tile_size_px
    generator = torch.Generator().manual_seed(0)
    before_BCHW, after_BCHW = (
        torch.randint(0, 255, (1, len(predictor.bands), side, side), generator=generator).byte()
        for _ in range(2)
    )
    predictor.classify(before_BCHW, after_BCHW)
    seconds = [
        _clock(lambda: predictor.classify(before_BCHW, after_BCHW))[1]
        for _ in range(MEASURED_TILES)
    ]
    return TilePace(len(seconds), float(np.mean(seconds)), None)


def _clock(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def _say_bytes(count: int) -> str:
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(len(units) - 1, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {units[power]}"
