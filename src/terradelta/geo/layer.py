"""Pixels of a raster or of a mosaic's sheet, read on the grid of a map.

The part needed for a window is read with its validity, given to GDAL as if it were the whole, and
resampled: bit for bit like the whole, in bounded memory.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.geo.grid import Grid, allow_no_place, cut_window, make_transformer
from terradelta.geo.lattice import find_lattice
from terradelta.geo.mosaic import find_slices, list_edges
from terradelta.geo.overview import ANYWHERE, warp_picture
from terradelta.geo.placement import place_raster
from terradelta.geo.source import WARP_TOLERANCE_PX, read_pixels
from terradelta.geo.virtual import name_gdal_type

LATTICE_POINTS = 21
"""Points per side of a window that are looked up on a layer."""
KERNEL_PX = 16
"""Margin that resampling may need around a window, in pixels of the layer, with a reserve."""
MAX_LAYER_BYTES = 64 * 1024**2
"""Largest number of a layer's pixels in memory at a time."""


class Layer(Protocol):
    """Pixels of one grid: a raster, or a sheet of a mosaic."""

    @property
    def grid(self) -> Grid:
        """Their grid."""
        ...

    def find_dtype(self, bands: Sequence[int]) -> str:
        """Return the data type of the pixels."""
        ...

    def touches(self, window: Window) -> bool:
        """Return whether there may be data in a window, without reading any."""
        ...

    def read(
        self, bands: Sequence[int], window: Window, step: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return every `step`-th pixel of a window, (C, H, W), and where it is valid, (H, W)."""
        ...


class Whole:
    """All of one raster."""

    def __init__(self, dataset: DatasetReader):
        self._dataset = dataset
        self.grid = place_raster(dataset).grid

    def find_dtype(self, bands: Sequence[int]) -> str:
        """See `Layer`."""
        return self._dataset.dtypes[bands[0] - 1]

    def touches(self, window: Window) -> bool:
        """See `Layer`."""
        left, top, right, bottom = list_edges(window)
        return _clip(self.grid, left, top, right, bottom) is not None

    def read(
        self, bands: Sequence[int], window: Window, step: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Layer`; the window may reach beyond the raster."""
        height, width = (max(1, int(side) // step) for side in (window.height, window.width))
        image_CHW = np.zeros((len(bands), height, width), self.find_dtype(bands))
        valid_HW = np.zeros((height, width), bool)
        left, top, right, bottom = list_edges(window)
        inside = _clip(self.grid, left, top, right, bottom)
        if inside is not None:
            rows, columns = find_slices(inside, window, step, valid_HW.shape)
            shape = rows.stop - rows.start, columns.stop - columns.start
            pixels_CHW, data_HW = read_pixels(self._dataset, bands, inside, shape)
            image_CHW[:, rows, columns], valid_HW[rows, columns] = pixels_CHW, data_HW
        return image_CHW, valid_HW


class AlignedLayer:
    """A raster or a sheet of a mosaic on a grid."""

    def __init__(self, layer: Layer, bands: list[int], grid: Grid, resampling: Resampling):
        self._layer = layer
        self._bands = bands
        self._grid = grid
        self._resampling = resampling
        self._own = face(layer.grid, grid)
        self._lattice = find_lattice(self._own, grid)
        self._dtype = layer.find_dtype(bands)
        self._bytes = count_bytes(self._dtype, bands)

    @property
    def is_resampled(self) -> bool:
        """Whether it is resampled to the grid."""
        return self._lattice is None

    def touches(self, window: Window) -> bool:
        """Return whether there may be data in a window of the grid, without reading any."""
        needed = self._find_source(window)
        return needed is not None and self._layer.touches(needed)

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of the grid as (C, *shape) and where it holds data, bool."""
        if shape != (window.height, window.width):
            return self._read_reduced(window, shape)
        if self._lattice is not None:
            return self._lattice.turn(*self._layer.read(self._bands, self._lattice.find(window)))
        return self._read_resampled(window)

    def _read_resampled(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of the layer for warping to the grid."""
        height, width = int(window.height), int(window.width)
        image_CHW = np.zeros((len(self._bands), height, width), self._dtype)
        valid_HW = np.zeros((height, width), bool)
        needed = self._find_source(window)
        if needed is None or not self._layer.touches(needed):
            return image_CHW, valid_HW
        if needed.width * needed.height * self._bytes > MAX_LAYER_BYTES and max(height, width) > 1:
            for part in _halve(window):
                rows, columns = (
                    slice(int(start), int(start + length))
                    for start, length in (
                        (part.row_off - window.row_off, part.height),
                        (part.col_off - window.col_off, part.width),
                    )
                )
                image_CHW[:, rows, columns], valid_HW[rows, columns] = self._read_resampled(part)
            return image_CHW, valid_HW
        pixels_CHW, data_HW = self._layer.read(self._bands, needed)
        if not data_HW.any():
            return image_CHW, valid_HW
        own = self._layer.grid
        with (
            _pose(pixels_CHW, data_HW, needed, own) as posed,
            self._open_warped(posed) as warped,
        ):
            return read_pixels(warped, range(1, len(self._bands) + 1), window)

    def _open_warped(self, posed: DatasetReader) -> WarpedVRT:
        """Open all of it, resampled to the grid."""
        grid, own = self._grid, self._layer.grid
        # A raster without a place on the Earth gets a substitute CRS: GDAL needs one.
        place = ANYWHERE if grid.crs is None else None
        return WarpedVRT(
            posed,
            src_crs=place or _wrap_longitudes(own, grid),
            src_transform=self._own.transform,
            crs=place or grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=self._resampling,
            tolerance=WARP_TOLERANCE_PX,
            add_alpha=True,
        )

    def _read_reduced(
        self, window: Window, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a window as a picture of other size."""
        needed = self._find_source(window)
        if needed is None:
            return np.zeros((len(self._bands), *shape), self._dtype), np.zeros(shape, bool)
        step = max(1, int(min(needed.width / shape[1], needed.height / shape[0])))
        needed = cut_window(
            needed.col_off,
            needed.row_off,
            -(-int(needed.width) // step) * step,
            -(-int(needed.height) // step) * step,
        )
        pixels_CHW, data_HW = self._layer.read(self._bands, needed, step)
        height, width = data_HW.shape
        own = self._own.crop(needed).redivide(height, width)
        target = self._grid.crop(window).redivide(*shape)
        return warp_picture(pixels_CHW, data_HW, own, target, self._resampling)

    def _find_source(self, window: Window) -> Window | None:
        """Return the window of the sheet that a window of the grid needs, or None."""
        own = self._layer.grid
        if self._lattice is not None:
            return _clip(own, *list_edges(self._lattice.find(window)))
        columns, rows = np.meshgrid(
            np.linspace(window.col_off, window.col_off + window.width, LATTICE_POINTS),
            np.linspace(window.row_off, window.row_off + window.height, LATTICE_POINTS),
        )
        x, y = self._grid.transform @ (columns.ravel(), rows.ravel())  # pyright: ignore[reportOperatorIssue]
        if self._transformer is not None:
            x, y = self._transformer.transform(x, y)
            x, y = x[np.isfinite(x) & np.isfinite(y)], y[np.isfinite(x) & np.isfinite(y)]
            if len(x) == 0:
                return None
            if own.crs is not None and own.crs.is_geographic:
                x = _turn_towards(x, own)
        columns, rows = ~self._own.transform @ (x, y)  # pyright: ignore[reportOperatorIssue]
        ratio = max(
            np.ptp(columns) / max(window.width, 1), np.ptp(rows) / max(window.height, 1), 1.0
        )
        margin = 2 * ratio + KERNEL_PX
        return _clip(
            own,
            columns.min() - margin,
            rows.min() - margin,
            columns.max() + margin,
            rows.max() + margin,
        )

    @cached_property
    def _transformer(self) -> pyproj.Transformer | None:
        mine, theirs = self._layer.grid.crs, self._grid.crs
        if mine is None or theirs is None or mine == theirs:
            return None
        return make_transformer(theirs.to_wkt(), mine.to_wkt())


def count_bytes(dtype: str, bands: Sequence[int]) -> int:
    """Return the memory of a pixel of some bands."""
    return np.dtype(dtype).itemsize * len(bands)


@contextmanager
def _pose(
    image_CHW: np.ndarray, valid_HW: np.ndarray, window: Window, grid: Grid
) -> Iterator[DatasetReader]:
    """Open a raster that has a whole grid for GDAL, but the pixels of only a window.

    Warped, it gives bit for bit the result of the whole raster.
    """
    bands, height, width = image_CHW.shape
    kind = name_gdal_type(image_CHW.dtype.name)
    rectangle = (
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{int(window.col_off)}" yOff="{int(window.row_off)}" '
        f'xSize="{width}" ySize="{height}"/>'
    )

    def lay(name: str, band: int) -> str:
        return (
            f"<SimpleSource><SourceFilename>{name}</SourceFilename>"
            f"<SourceBand>{band}</SourceBand>{rectangle}</SimpleSource>"
        )

    place = ", ".join(repr(number) for number in grid.transform.to_gdal())
    crs = f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else ""
    with allow_no_place(), ExitStack() as files:
        pixels = files.enter_context(_store(image_CHW))
        layers = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{band}">{lay(pixels, band)}</VRTRasterBand>'
            for band in range(1, bands + 1)
        )
        # Without a mask, GDAL gives the same pixels in less than half of the time.
        if not valid_HW.all():
            mask = files.enter_context(_store(_as_mask(valid_HW)))
            band = f'<VRTRasterBand dataType="Byte">{lay(mask, 1)}</VRTRasterBand>'
            layers += f"<MaskBand>{band}</MaskBand>"
        xml = (
            f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">{crs}'
            f"<GeoTransform>{place}</GeoTransform>{layers}</VRTDataset>"
        )
        yield files.enter_context(rasterio.open(xml))


@contextmanager
def _store(image_CHW: np.ndarray) -> Iterator[str]:
    """Keep an image in GDAL's memory; yields its name."""
    bands, height, width = image_CHW.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": image_CHW.dtype.name}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", interleave="band", **shape) as dataset:
            dataset.write(image_CHW)
        yield memory.name


def _as_mask(valid_HW: np.ndarray) -> np.ndarray:
    return np.where(valid_HW, 255, 0).astype(np.uint8)[None]


def _clip(grid: Grid, left: float, top: float, right: float, bottom: float) -> Window | None:
    """Return the whole pixels of a grid between these edges, or None."""
    first_column, first_row = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    last_column = min(grid.width, int(np.ceil(right)))
    last_row = min(grid.height, int(np.ceil(bottom)))
    if first_column >= last_column or first_row >= last_row:
        return None
    return cut_window(first_column, first_row, last_column - first_column, last_row - first_row)


def _halve(window: Window) -> tuple[Window, Window]:
    """Return the two halves of a window, cut across its longer side."""
    column, row = int(window.col_off), int(window.row_off)
    width, height = int(window.width), int(window.height)
    if width >= height:
        half = width // 2
        return (
            cut_window(column, row, half, height),
            cut_window(column + half, row, width - half, height),
        )
    half = height // 2
    return (
        cut_window(column, row, width, half),
        cut_window(column, row + half, width, height - half),
    )


def _turn_towards(longitudes: np.ndarray, own: Grid) -> np.ndarray:
    """Return longitudes in the range of a grid; all of them if they cross its edge."""
    left, _, right, _ = own.bounds
    middle = (left + right) / 2
    turned = middle + (longitudes - middle + 180) % 360 - 180
    if np.ptp(turned) > 180:
        return np.array([left, right])[np.arange(len(turned)) % 2]
    return turned


def face(own: Grid, grid: Grid) -> Grid:
    """Return a raster's pixels with longitudes in the range of a grid."""
    return replace(own, crs=_wrap_longitudes(own, grid) or own.crs, transform=_turn(own, grid))


def _turn(own: Grid, grid: Grid) -> Affine:
    """Return a raster's transform, shifted by 360 degrees if only then it meets the grid."""
    if own.crs is None or not own.crs.is_geographic or own.crs != grid.crs:
        return own.transform
    turn = grid.find_bounds(own)[0] - own.bounds[0]
    return Affine.translation(360 * round(turn / 360), 0) @ own.transform


def _wrap_longitudes(own: Grid, grid: Grid) -> CRS | None:
    """Return a CRS with a raster's range of longitudes, if they exceed 180 degrees.

    Transformed from another CRS, longitudes are within 180 degrees of Greenwich.
    """
    left, _, right, _ = own.bounds
    is_usual = left >= -180 - 1e-9 and right <= 180 + 1e-9
    if own.crs is None or not own.crs.is_geographic or own.crs == grid.crs or is_usual:
        return None
    with warnings.catch_warnings():
        # The rest of the CRS keeps what PROJ's old notation would lose.
        warnings.simplefilter("ignore", UserWarning)
        old = pyproj.CRS(own.crs.to_wkt()).to_proj4().replace("+type=crs", "")
    extension = f',EXTENSION["PROJ4","{old} +lon_wrap={(left + right) / 2:.3f}"]]'
    # Without its code and axes, which put latitudes first.
    end = r'(,AXIS\[[^]]*\])*(,AUTHORITY\["[^"]*","[^"]*"\])?\]$'
    flat = CRS.from_wkt(pyproj.CRS(own.crs.to_wkt()).to_2d().to_wkt())
    return CRS.from_wkt(re.sub(end, extension, flat.to_wkt(version="WKT1_GDAL"), count=1))
