"""Rasters as web-mercator tiles: the images of both dates, the change map, the confidence.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import morecantile
import numpy as np
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import from_bounds
from rasterio.warp import transform

from terradelta.geo.aligned import align
from terradelta.geo.area import locate
from terradelta.geo.bands import select_bands
from terradelta.geo.cog import find_map
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.mosaic import Mosaic, open_images
from terradelta.geo.overview import warp_overview
from terradelta.geo.pair import Images
from terradelta.geo.scaling import BandScaling
from terradelta.geo.source import open_source
from terradelta.geo.style import RAMP
from terradelta.geo.virtual import name_raster
from terradelta.prediction.reopening import recall_options
from terradelta.viewer.reduction import ZOOMS as REDUCED_ZOOMS
from terradelta.viewer.reduction import Reduction
from terradelta.viewer.result import Result, open_map

TILE_SIZE_PX = 512
WEB_MERCATOR = CRS.from_epsg(3857)
MERCATOR_TILES = morecantile.tms.get("WebMercatorQuad")
JPEG_QUALITY = 85
WEBP_QUALITY = 85
SAMPLE_SIZE_PX = 256
SAMPLES_PER_SIDE = 5
BOUNDS_POINTS = 65
"""Points along rows and columns of a raster that reaches off the Earth."""
MERCATOR_DEGREES = 85.05
"""The northernmost and southernmost latitude of a web map."""
MAX_FINER = 4096
"""Pixels of a mosaic along the side of a tile's pixel, above which any of them is shown."""

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top in web-mercator metres."""
Tile = tuple[np.ndarray, np.ndarray]
"""Stored values, (C, H, W), and where they are data, (H, W) bool."""


class RasterTiles:
    """One raster, cut into tiles by nearest neighbour from the raster or an overview.

    Thread-safe: a GDAL dataset serves one thread at a time; opening one for
    each tile takes a tenth of the tile's time and leaves nothing to close.

    A tile is read decimated and warped in memory: half the time of rio-tiler's way, which warps the
    file itself, and the mask separately.

    Args:
        opened: Returns the raster, opened, as a context manager.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[DatasetReader]]):
        self._opened = opened

    def read(self, bounds: Bounds, bands: list[int]) -> Tile:
        """Return the pixels of a tile and where they are data.

        Args:
            bounds: Its bounds; see `place_tile`.
            bands: Numbers of the bands to read, from 1.
        """
        with self._opened() as dataset:
            own = Grid.of(dataset)
            return warp_overview(dataset, own, bands, _divide(bounds), Resampling.nearest)


def _divide(bounds: Bounds) -> Grid:
    """Return the pixels of a tile."""
    transform = from_bounds(*bounds, TILE_SIZE_PX, TILE_SIZE_PX)
    return Grid(WEB_MERCATOR, transform, TILE_SIZE_PX, TILE_SIZE_PX)


class MosaicTiles:
    """A mosaic, cut into tiles; thread-safe.

    Its rasters stay open, and GDAL datasets serve one thread at a time, so tiles are read one after
    the other, each raster from its overviews.

    Args:
        mosaic: The rasters, open.
    """

    def __init__(self, mosaic: Mosaic):
        self._mosaic = mosaic
        self._lock = threading.Lock()
        self._pixel_size_m = _mercator_pixel_size(mosaic)

    def read(self, bounds: Bounds, bands: list[int]) -> Tile:
        """Return the pixels of a tile; see `RasterTiles.read`."""
        coarse = _divide(bounds)
        # The grid has the images' resolution; it is read reduced to the tile's size.
        finer = min(MAX_FINER, max(1, int(coarse.pixel_size[0] / self._pixel_size_m)))
        side = TILE_SIZE_PX * finer
        with (
            self._lock,
            align(self._mosaic, bands, coarse.redivide(side, side)) as aligned,
        ):
            image_CHW, valid_HW = aligned.read(
                cut_window(0, 0, side, side), (TILE_SIZE_PX, TILE_SIZE_PX)
            )
        return image_CHW, valid_HW


class ImageTiles:
    """The image of one date in red, green and blue.

    Args:
        result: The prediction.
        date: "before" or "after".
    """

    def __init__(self, result: Result, date: str):
        source, options = result.rasters[date], recall_options(result.run)
        reading = options.after if date == "after" else options.before
        bands, nodata = options.bands, reading.nodata
        names = list(result.run.band_names)
        self._offset_m = _find_offset(result) if date == "after" else (0.0, 0.0)
        self._scaling: BandScaling | None = None
        self.reduction: Reduction | None = None
        """A small copy of the image for far zooms, being made or done."""
        with ExitStack() as exits:
            images = exits.enter_context(open_images(source, bands, nodata))
            selected = select_bands(images, names, bands)
            self._bands = [selected[index] for index in _choose_colours(names)]
            self.value_range = _find_range(images, self._bands, reading.value_range)
            self.bounds = _wgs84_bounds(images)
            self.max_zoom = _find_max_zoom(images)
            if isinstance(images, Mosaic):
                # It stays open as long as tiles may be requested.
                self._kept_open = exits.pop_all()
                self._tiles: RasterTiles | MosaicTiles = MosaicTiles(images)
                return
            self._scaling = BandScaling.of(images).choose(self._bands, name_raster(images))
            is_slow = Reduction.is_needed(images)
        assert isinstance(source, str | Path)
        opened = partial(open_source, source, bands, nodata)
        self._tiles = RasterTiles(opened)
        if is_slow:
            self.reduction = Reduction(opened, self._bands, self._stretch)
            self._reduced_tiles = RasterTiles(self.reduction.open)
            self.reduction.start()

    def draw(self, tile: tuple[int, int, int]) -> tuple[bytes, str] | None:
        """Return a tile as JPEG, or WebP if a part of it holds no data, and its media type.

        Returns None while a reduced copy that the tile needs is not finished.
        """
        bounds = place_tile(tile, self._offset_m)
        if self.reduction is not None and tile[0] <= self.max_zoom - REDUCED_ZOOMS:
            if not self.reduction.is_done:
                return None
            rgb_CHW, valid_HW = self._reduced_tiles.read(bounds, [1, 2, 3])
        else:
            image_CHW, valid_HW = self._tiles.read(bounds, self._bands)
            rgb_CHW = self._stretch(image_CHW)
        if valid_HW.all():
            picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(rgb_CHW, 0, -1)))
            return _encode(picture, "jpeg", quality=JPEG_QUALITY), "image/jpeg"
        rgba_HWC = np.dstack([*rgb_CHW, np.where(valid_HW, 255, 0).astype(np.uint8)])
        # With holes; as PNG it would take three times the time and ten times the bytes.
        webp = _encode(Image.fromarray(rgba_HWC), "webp", quality=WEBP_QUALITY, method=0)
        return webp, "image/webp"

    def _stretch(self, image_CHW: np.ndarray) -> np.ndarray:
        """Return stored values, or the values of a mosaic, as 0 to 255."""
        low, high = self.value_range
        if self._scaling is not None:
            image_CHW, _ = self._scaling.apply(image_CHW, np.ones(image_CHW.shape[1:], bool))
        if image_CHW.dtype == np.uint8 and (low, high) == (0, 255):
            return image_CHW
        scaled_CHW = (image_CHW.astype(np.float32) - low) * (255 / max(high - low, 1e-9))
        return np.nan_to_num(scaled_CHW).clip(0, 255).astype(np.uint8)


class ChangeTiles:
    """The change map in its palette."""

    def __init__(self, result: Result):
        path = find_map(result.folder, "change")
        self._classes = result.classes
        with open_map(path) as dataset:
            self.bounds = _wgs84_bounds(dataset)
            self.max_zoom = _find_max_zoom(dataset)
        self._tiles = RasterTiles(lambda: open_map(path))

    def read(self, tile: tuple[int, int, int]) -> Tile:
        """Return the transitions in a tile."""
        return self._tiles.read(place_tile(tile), [1])

    def draw(self, tile: tuple[int, int, int], transitions: Collection[int] | None = None) -> bytes:
        """Return a tile as PNG, with unchanged ground clear.

        Args:
            tile: Zoom, column, row.
            transitions: Transitions to show, all by default.
        """
        palette_N4 = np.zeros((self._classes.num_transitions, 4), dtype=np.uint8)
        for transition in range(1, len(palette_N4)):
            if transitions is None or transition in transitions:
                palette_N4[transition] = (*self._classes.colour_transition(transition), 255)
        return _paint(self.read(tile), palette_N4)


class ConfidenceTiles:
    """The confidence from dark, unsure, to bright."""

    def __init__(self, result: Result):
        path = find_map(result.folder, "confidence")
        self._tiles = RasterTiles(lambda: open_map(path))
        steps = np.linspace(0, len(RAMP) - 1, 101)
        ramp = [np.interp(steps, range(len(RAMP)), channel) for channel in zip(*RAMP, strict=True)]
        self._palette_N4 = np.stack([*ramp, np.full(101, 255)], axis=1).round().astype(np.uint8)

    def draw(self, tile: tuple[int, int, int]) -> bytes:
        """Return a tile as PNG."""
        return _paint(self._tiles.read(place_tile(tile), [1]), self._palette_N4)


def _paint(tile: Tile, palette_N4: np.ndarray) -> bytes:
    """Return a band in the colours (red, green, blue, alpha) of its values, as PNG.

    Values beyond the palette and pixels without data are clear.
    """
    (values_HW,), valid_HW = tile
    clear = len(palette_N4)
    values_HW = np.where(~valid_HW | (values_HW > clear), clear, values_HW)
    palette_N4 = np.vstack([palette_N4, np.zeros((1, 4), dtype=np.uint8)])
    if len(palette_N4) > 256:
        return _encode(Image.fromarray(palette_N4[values_HW]), "png", compress_level=1)
    # Indexed: a quarter of the bytes to compress.
    picture = Image.fromarray(values_HW.astype(np.uint8))
    picture.putpalette(palette_N4[:, :3].tobytes())
    alpha = palette_N4[:, 3].tobytes()
    return _encode(picture, "png", compress_level=1, transparency=alpha)


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _choose_colours(band_names: list[str]) -> list[int]:
    """Return the numbers of a model's bands to show as red, green and blue."""
    colours = ["red", "green", "blue"]
    if set(colours) <= set(band_names):
        return [band_names.index(colour) for colour in colours]
    return [0, 1, 2] if len(band_names) >= 3 else [0, 0, 0]


def place_tile(tile: tuple[int, int, int], offset_m: tuple[float, float] = (0.0, 0.0)) -> Bounds:
    """Return the bounds of a tile.

    Args:
        tile: Zoom, column, row in the web-mercator quad.
        offset_m: Distance to read further right and up, in web-mercator metres.
    """
    zoom, column, row = tile
    left, bottom, right, top = MERCATOR_TILES.xy_bounds(morecantile.Tile(column, row, zoom))
    x, y = offset_m
    return left + x, bottom + y, right + x, top + y


def _find_range(
    images: Images, bands: list[int], given: tuple[float, float] | None
) -> tuple[float, float]:
    """Return the values that are black and white: given, 8 bits, or the middle 96 percent."""
    if given is not None:
        return given
    side = min(SAMPLE_SIZE_PX, images.width, images.height)
    samples = []
    with align(images, bands, Grid.of(images)) as aligned:
        if aligned.dtype == "uint8":
            return 0.0, 255.0
        for row in np.linspace(0, images.height - side, SAMPLES_PER_SIDE).astype(int):
            for column in np.linspace(0, images.width - side, SAMPLES_PER_SIDE).astype(int):
                window = cut_window(int(column), int(row), side, side)
                image_CHW, valid_HW = aligned.read(window, (side, side))
                samples.append(image_CHW[:, valid_HW].ravel())
    values = np.concatenate(samples)
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, (2, 98))
    return float(low), float(high)


def _find_offset(result: Result) -> tuple[float, float]:
    """Return the offset at which the after image is read, in web-mercator metres.

    `predict --register` measured a shift of the images in pixels of the grid and undid it.
    """
    columns, rows = result.run.shift_px
    if not (columns or rows):
        return 0.0, 0.0
    middle = result.grid.width / 2, result.grid.height / 2
    places = [middle, (middle[0] + columns, middle[1] + rows)]
    points = [result.grid.transform @ place for place in places]
    xs, ys = transform(result.grid.crs, WEB_MERCATOR, *zip(*points, strict=True))[:2]
    return xs[1] - xs[0], ys[1] - ys[0]


def _wgs84_bounds(images: Images) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees."""
    return _find_bounds(images, CRS.from_epsg(4326))


def _find_bounds(images: Images, crs: CRS) -> tuple[float, float, float, float]:
    """Return the bounds of a raster or a mosaic in a CRS, of its part on the Earth."""
    grid = Grid.of(images)
    bounds = grid.bounds_in(crs)
    if np.isfinite(bounds).all():
        return bounds
    steps = np.linspace(0, 1, BOUNDS_POINTS)
    columns, rows = np.meshgrid(steps * grid.width, steps * grid.height)
    longitude, latitude = locate(grid, columns, rows)
    known = np.isfinite(longitude)
    latitude = latitude[known].clip(-MERCATOR_DEGREES, MERCATOR_DEGREES).tolist()
    xs, ys = transform(CRS.from_epsg(4326), crs, longitude[known].tolist(), latitude)[:2]
    return min(xs), min(ys), max(xs), max(ys)


def _find_max_zoom(images: Images) -> int:
    """Return the zoom that shows every pixel of a raster or a mosaic."""
    return MERCATOR_TILES.zoom_for_res(
        _mercator_pixel_size(images) * TILE_SIZE_PX / 256, zoom_level_strategy="upper"
    )


def _mercator_pixel_size(images: Images) -> float:
    """Return the width of a pixel in web-mercator metres."""
    left, _, right, _ = _find_bounds(images, WEB_MERCATOR)
    return (right - left) / images.width
