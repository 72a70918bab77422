"""A raster or a mosaic as it reads on the pixels of a map.

What lies on other pixels (other CRS, resolution, extent or pixel phase) is resampled bilinearly as
it is read, and a window reads the same whatever is read around it.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, allow_no_place, cut_window, make_transformer, shift_window
from terradelta.geo.mosaic import Mosaic, Sheet, list_edges
from terradelta.geo.overview import ANYWHERE, warp_overview, warp_picture
from terradelta.geo.placement import place_raster
from terradelta.geo.source import WARP_TOLERANCE_PX, read_pixels, require_plain
from terradelta.geo.virtual import name_gdal_type, name_raster

LATTICE_POINTS = 21
"""Along each side of a window that is looked up on a sheet."""
KERNEL_PX = 16
"""What resampling may need around a window, in pixels of the sheet, and some to spare."""
MAX_SHEET_PIXELS = 32 * 1024**2
"""Of a sheet that are held at a time."""
OVERVIEW_STEP = 2
"""From so many pixels of the grid on, that one of a picture is wide, the grid is left aside."""


class Aligned(Protocol):
    """One date, as it reads on the grid of a map; a context manager."""

    bytes_per_pixel: int
    """What a pixel of its bands takes."""

    def __enter__(self) -> Aligned: ...
    def __exit__(self, *exception: object): ...

    @property
    def is_resampled(self) -> bool:
        """Whether any of it is resampled to get onto the grid."""
        ...

    def touches(self, window: Window) -> bool:
        """Return whether there may be data in a window of the grid, without reading any."""
        ...

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of the grid as (C, *shape) and where it holds data, bool."""
        ...


def align(images: DatasetReader | Mosaic, bands: Sequence[int], grid: Grid) -> Aligned:
    """Return bands of a raster or a mosaic as they read on a grid.

    Raises:
        RasterError: If their data types differ, or nodata values that differ by band forbid
            resampling.
    """
    require_plain(images, bands)
    if isinstance(images, Mosaic):
        return _AlignedMosaic(images, bands, grid)
    return _AlignedRaster(images, bands, grid)


class _AlignedRaster:
    """One raster on a grid."""

    def __init__(self, dataset: DatasetReader, bands: Sequence[int], grid: Grid):
        self._bands = list(bands)
        self._name = name_raster(dataset)
        self._warped: WarpedVRT | None = None
        self.bytes_per_pixel = count_bytes(dataset.dtypes, bands)
        own = place_raster(dataset).grid
        self._lattice = _find_lattice(own, grid)
        if self._lattice is not None and self._lattice.contains(grid):
            self._dataset: DatasetReader | WarpedVRT = dataset
            return
        self._lattice = None
        if len(set(map(repr, dataset.nodatavals))) > 1:
            raise _refuse_uneven_nodata(self._name, ", ".join(map(str, dataset.nodatavals)))
        self._source, self._grid = dataset, grid
        self._own = _face(own, grid)
        self._warped = open_warped(dataset, own, grid)
        self._dataset = self._warped

    def __enter__(self) -> _AlignedRaster:
        return self

    def __exit__(self, *exception: object):
        if self._warped is not None:
            self._warped.close()

    @property
    def is_resampled(self) -> bool:
        return self._warped is not None

    def touches(self, window: Window) -> bool:
        return True

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        step = min(window.height / shape[0], window.width / shape[1])
        if self._warped is not None and step >= OVERVIEW_STEP:
            coarse = self._grid.crop(window).redivide(*shape)
            return warp_overview(self._source, self._own, self._bands, coarse)
        if self._lattice is None:
            return read_pixels(self._dataset, self._bands, window, shape, self._name)
        own = self._lattice.find(window)
        return self._lattice.turn(*read_pixels(self._dataset, self._bands, own, shape, self._name))


class _AlignedMosaic:
    """The sheets of a mosaic on a grid, the upper ones first where they hold data."""

    def __init__(self, mosaic: Mosaic, bands: Sequence[int], grid: Grid):
        self.bytes_per_pixel = count_bytes(mosaic.dtypes, bands)
        self._dtype = mosaic.dtypes[bands[0] - 1]
        self._bands = list(bands)
        self._sheets = [_AlignedSheet(sheet, self._bands, grid) for sheet in mosaic.sheets]

    def __enter__(self) -> _AlignedMosaic:
        return self

    def __exit__(self, *exception: object):
        pass

    @property
    def is_resampled(self) -> bool:
        return any(sheet.is_resampled for sheet in self._sheets)

    def touches(self, window: Window) -> bool:
        return any(sheet.touches(window) for sheet in self._sheets)

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        image_CHW = np.zeros((len(self._bands), *shape), self._dtype)
        valid_HW = np.zeros(shape, bool)
        for sheet in self._sheets:
            if not sheet.touches(window):
                continue
            pixels_CHW, data_HW = sheet.read(window, shape)
            np.copyto(image_CHW, pixels_CHW, where=data_HW & ~valid_HW)
            valid_HW |= data_HW
            if valid_HW.all():
                break
        return image_CHW, valid_HW


class _AlignedSheet:
    """One sheet of a mosaic on a grid."""

    def __init__(self, sheet: Sheet, bands: list[int], grid: Grid):
        self._sheet = sheet
        self._bands = bands
        self._grid = grid
        self._lattice = _find_lattice(sheet.grid, grid)
        if self._lattice is None and sheet.is_uneven:
            raise _refuse_uneven_nodata(sheet.placed[0][0].name, "for example")
        self._own = _face(sheet.grid, grid)

    @property
    def is_resampled(self) -> bool:
        return self._lattice is None

    def touches(self, window: Window) -> bool:
        needed = self._find_source(window)
        return needed is not None and self._sheet.touches(needed)

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if shape != (window.height, window.width):
            return self._read_reduced(window, shape)
        if self._lattice is not None:
            return self._lattice.turn(*self._sheet.read(self._bands, self._lattice.find(window)))
        return self._read_resampled(window)

    def _read_resampled(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of the sheet as it is warped to the grid."""
        height, width = int(window.height), int(window.width)
        image_CHW = np.zeros((len(self._bands), height, width), self._dtype)
        valid_HW = np.zeros((height, width), bool)
        needed = self._find_source(window)
        if needed is None or not self._sheet.touches(needed):
            return image_CHW, valid_HW
        if needed.width * needed.height > MAX_SHEET_PIXELS and max(height, width) > 1:
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
        pixels_CHW, data_HW = self._sheet.read(self._bands, needed)
        if not data_HW.any():
            return image_CHW, valid_HW
        own = self._sheet.grid
        with (
            _pose(pixels_CHW, data_HW, needed, own) as posed,
            open_warped(posed, own, self._grid, self._own.transform) as warped,
        ):
            return read_pixels(warped, range(1, len(self._bands) + 1), window)

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
        pixels_CHW, data_HW = self._sheet.read(self._bands, needed, step)
        height, width = data_HW.shape
        own = self._own.crop(needed).redivide(height, width)
        return warp_picture(pixels_CHW, data_HW, own, self._grid.crop(window).redivide(*shape))

    @property
    def _dtype(self) -> str:
        return self._sheet.placed[0][0].dtypes[self._bands[0] - 1]

    def _find_source(self, window: Window) -> Window | None:
        """Return the window of the sheet that a window of the grid needs, None if none."""
        own = self._sheet.grid
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
        mine, theirs = self._sheet.grid.crs, self._grid.crs
        if mine is None or theirs is None or mine == theirs:
            return None
        return make_transformer(theirs.to_wkt(), mine.to_wkt())


def count_bytes(dtypes: Sequence[str], bands: Sequence[int]) -> int:
    """Return what a pixel of some bands takes."""
    return sum(np.dtype(dtypes[band - 1]).itemsize for band in bands)


def open_warped(
    dataset: DatasetReader, own: Grid, grid: Grid, transform: Affine | None = None
) -> WarpedVRT:
    """Open a raster as it is resampled to a grid."""
    # In a plane of its own a raster is laid as if in some CRS: GDAL asks for one.
    place = ANYWHERE if grid.crs is None else None
    return WarpedVRT(
        dataset,
        src_crs=place or _wrap_longitudes(own, grid),
        src_transform=_turn(own, grid) if transform is None else transform,
        crs=place or grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.bilinear,
        tolerance=WARP_TOLERANCE_PX,
        add_alpha=ColorInterp.alpha not in dataset.colorinterp,
        UNIFIED_SRC_NODATA="YES",
    )


@contextmanager
def _pose(
    image_CHW: np.ndarray, valid_HW: np.ndarray, window: Window, grid: Grid
) -> Iterator[DatasetReader]:
    """Open a raster that is a whole grid to GDAL and of which only a window is there.

    Warped, it gives to the bit what the whole raster would.
    """
    bands, height, width = image_CHW.shape
    dtype = image_CHW.dtype.name
    kind = name_gdal_type(dtype)
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
    with allow_no_place(), _store(image_CHW) as pixels, _store(_as_mask(valid_HW)) as mask:
        layers = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{band}">{lay(pixels, band)}</VRTRasterBand>'
            for band in range(1, bands + 1)
        )
        xml = (
            f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">{crs}'
            f"<GeoTransform>{place}</GeoTransform>{layers}<MaskBand>"
            f'<VRTRasterBand dataType="Byte">{lay(mask, 1)}</VRTRasterBand></MaskBand></VRTDataset>'
        )
        with rasterio.open(xml) as dataset:
            yield dataset


@contextmanager
def _store(image_CHW: np.ndarray) -> Iterator[str]:
    """Keep an image where GDAL finds it; yields the name."""
    bands, height, width = image_CHW.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": image_CHW.dtype.name}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", interleave="band", **shape) as dataset:
            dataset.write(image_CHW)
        yield memory.name


def _as_mask(valid_HW: np.ndarray) -> np.ndarray:
    return np.where(valid_HW, 255, 0).astype(np.uint8)[None]


def _refuse_uneven_nodata(name: str, values: str) -> RasterError:
    return RasterError(
        f"{name} has another nodata value in each band, {values}, and cannot be resampled with "
        "them",
        fix=f"give it a mask instead: gdal_translate -b 1 -b 2 -b 3 -b mask "
        f"-colorinterp_4 alpha {name} masked.tif",
    )


@dataclass(frozen=True)
class _Lattice:
    """How the pixels of a grid lie among a raster's own: shifted, and perhaps the other way round.

    A raster whose rows run to the north is read without resampling onto a grid that has north up.
    """

    own: Grid
    """The raster's pixels."""
    column: int
    """First column of the grid on the raster, turned as the grid is."""
    row: int
    """First row."""
    flips_columns: bool = False
    """Whether the raster's columns run the other way."""
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
        """Return what was read of the raster as the grid has it."""
        rows = slice(None, None, -1 if self.flips_rows else 1)
        columns = slice(None, None, -1 if self.flips_columns else 1)
        turned_CHW, turned_HW = image_CHW[:, rows, columns], valid_HW[rows, columns]
        return np.ascontiguousarray(turned_CHW), np.ascontiguousarray(turned_HW)


def _find_lattice(own: Grid, grid: Grid) -> _Lattice | None:
    """Return how a grid lies on a raster's pixels, None where it lies beside them."""
    for flips_columns, flips_rows in itertools.product((False, True), repeat=2):
        turned = own.flip(columns=flips_columns, rows=flips_rows)
        column, row = ~turned.transform @ (grid.transform @ (0, 0))
        if not (np.isfinite(column) and np.isfinite(row)):
            continue
        window = cut_window(round(column), round(row), grid.width, grid.height)
        if turned.crop(window).same_as(grid):
            return _Lattice(own, round(column), round(row), flips_columns, flips_rows)
    return None


def _clip(grid: Grid, left: float, top: float, right: float, bottom: float) -> Window | None:
    """Return the whole pixels of a grid between these edges, None if there are none."""
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
    """Return longitudes as a grid counts them; where they pass its edge, all that it has."""
    left, _, right, _ = own.bounds
    middle = (left + right) / 2
    turned = middle + (longitudes - middle + 180) % 360 - 180
    if np.ptp(turned) > 180:
        return np.array([left, right])[np.arange(len(turned)) % 2]
    return turned


def _face(own: Grid, grid: Grid) -> Grid:
    """Return a raster's pixels with longitudes that run as a grid's do."""
    return replace(own, crs=_wrap_longitudes(own, grid) or own.crs, transform=_turn(own, grid))


def _turn(own: Grid, grid: Grid) -> Affine:
    """Return a raster's transform, turned by 360 degrees where only so it meets the grid."""
    if own.crs is None or not own.crs.is_geographic or own.crs != grid.crs:
        return own.transform
    turn = grid.find_bounds(own)[0] - own.bounds[0]
    return Affine.translation(360 * round(turn / 360), 0) @ own.transform


def _wrap_longitudes(own: Grid, grid: Grid) -> CRS | None:
    """Return a CRS whose longitudes run as a raster's do, where they run beyond 180 degrees.

    Transformed from another CRS, longitudes come within 180 degrees of Greenwich.
    """
    left, _, right, _ = own.bounds
    is_usual = left >= -180 - 1e-9 and right <= 180 + 1e-9
    if own.crs is None or not own.crs.is_geographic or own.crs == grid.crs or is_usual:
        return None
    with warnings.catch_warnings():
        # What else PROJ's old notation loses stays in the rest of the CRS.
        warnings.simplefilter("ignore", UserWarning)
        old = pyproj.CRS(own.crs.to_wkt()).to_proj4().replace("+type=crs", "")
    extension = f',EXTENSION["PROJ4","{old} +lon_wrap={(left + right) / 2:.3f}"]]'
    # Without its code and axes, which would put latitudes first.
    end = r'(,AXIS\[[^]]*\])*(,AUTHORITY\["[^"]*","[^"]*"\])?\]$'
    flat = CRS.from_wkt(pyproj.CRS(own.crs.to_wkt()).to_2d().to_wkt())
    return CRS.from_wkt(re.sub(end, extension, flat.to_wkt(version="WKT1_GDAL"), count=1))
