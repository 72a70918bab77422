"""Many rasters as one: thousands of files, in several coordinate reference systems and resolutions.

Rasters that share CRS and pixels form a sheet, which reads like the raster they would be merged
into: where they overlap, the first listed raster with data is visible. Sheets lie over each other
in the order of their first rasters. `geo.aligned` lays them on the grid of a map; only then are
pixels resampled, for a sheet as a whole, so that no seams between its rasters appear.

GDAL's own tile index (GTI) was tried: if one band of a pixel equals the nodata value, it takes
that band from the raster below, and it resamples raster by raster, which is visible at seams.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.extensions import find_reader
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.header import Header, read_headers
from terradelta.geo.listing import (
    RasterPaths,
    list_dates,
    list_rasters,
    list_scalings,
    name_source,
    record_source,
)
from terradelta.geo.pair_options import Bands
from terradelta.geo.raster_record import RasterRecord
from terradelta.geo.registered import RegisteredSource
from terradelta.geo.scaling import DTYPE, BandScaling, merge_scaling
from terradelta.geo.source import describe_source, open_source, read_pixels

MAX_OPEN_RASTERS = 64
SAME_PIXEL = 1e-3
"""Largest offset between the pixels of rasters of one sheet, in pixels."""


@contextmanager
def open_images(
    source: RasterPaths, bands: Bands | None = None, nodata: float | None = None
) -> Iterator[DatasetReader | Mosaic]:
    """Open a raster or a mosaic, given as BEFORE or AFTER; a context manager.

    Args:
        source: See `list_rasters`.
        bands: Band numbers or names that will be read; an alpha band among them counts as data.
        nodata: A stored value that means no data, as if each band declared it.

    Raises:
        RasterError: If a raster cannot be opened, or the rasters do not form a mosaic.
        ArgumentError: If a package is missing.
    """
    paths = list_rasters(source)
    if paths is None:
        assert isinstance(source, str | Path)
        with open_source(source, bands, nodata) as dataset:
            yield dataset
    else:
        scalings = list_scalings(source)
        with Mosaic(paths, name_source(source), bands, nodata, scalings) as mosaic:
            yield mosaic


def describe_images(images: DatasetReader | Mosaic, source: RasterPaths) -> RasterRecord:
    """Return a description that identifies an input; see `describe_source`."""
    if isinstance(images, Mosaic):
        return images.describe(source)
    assert isinstance(source, str | Path)
    return describe_source(images, source)


class Mosaic:
    """Rasters read as one; a context manager.

    Headers are read once, pixels when they are needed, and no more than
    `MAX_OPEN_RASTERS` files are open at a time.

    Args:
        paths: The rasters, the upper ones first.
        name: Name of the mosaic.
        bands: Band numbers or names that will be read; an alpha band among them counts as data.
        nodata: A stored value that means no data, as if each band declared it.
        scalings: Scalings of the stored numbers in a catalogue; see `list_scalings`.

    Raises:
        RasterError: If a raster cannot be opened or has no CRS, or they differ in their bands.
    """

    sheets: list[Sheet]
    """Rasters, the upper ones first."""

    def __init__(
        self,
        paths: Sequence[str],
        name: str,
        bands: Bands | None = None,
        nodata: float | None = None,
        scalings: Sequence[Sequence[Sequence[tuple[float, float]]]] | None = None,
    ):
        headers = read_headers(paths)
        for header in headers[1:]:
            _require_alike(headers[0], header)
        if scalings is not None:
            headers = [
                header._replace(
                    scaling=merge_scaling(header.scaling, said, header.counts, header.name)
                )
                for header, said in zip(headers, scalings, strict=True)
            ]
        self.name = name
        self._headers = headers
        self._files = _OpenRasters(bands, nodata)
        self.sheets = [
            Sheet(grid, placed, self._files) for grid, placed in _sort_into_sheets(headers)
        ]

    def __enter__(self) -> Mosaic:
        return self

    def __exit__(self, *exception: object):
        self._files.close()

    def __len__(self) -> int:
        return len(self._headers)

    @property
    def crs(self) -> CRS | None:
        """CRS of the first raster."""
        return self.sheets[0].grid.crs

    @cached_property
    def grid(self) -> Grid:
        """The first raster's CRS and pixels, over the ground of all.

        Raises:
            RasterError: If its CRS cannot represent a part of the mosaic.
        """
        first = self.sheets[0].grid
        bounds = self.bounds_in(first.crs)
        if not all(map(math.isfinite, bounds)):
            raise RasterError(
                f"{self.name}: the CRS of {self._headers[0].name}, {first.crs}, cannot show all of "
                f"its {len(self)} rasters",
                fix="give the map a CRS that can, with its pixel size: --grid EPSG:6933@10",
            )
        return first.cover(bounds) if len(self.sheets) > 1 else first

    def bounds_in(self, crs: CRS | None) -> tuple[float, float, float, float]:
        """Return the bounds of all sheets in a CRS; infinite if it cannot represent them."""
        edges = np.array([sheet.grid.bounds_in(crs) for sheet in self.sheets])
        low, high = edges.min(axis=0), edges.max(axis=0)
        return float(low[0]), float(low[1]), float(high[2]), float(high[3])

    @property
    def transform(self) -> Affine:
        """Of `grid`."""
        return self.grid.transform

    @property
    def width(self) -> int:
        """Of `grid`."""
        return self.grid.width

    @property
    def height(self) -> int:
        """Of `grid`."""
        return self.grid.height

    @property
    def dtypes(self) -> tuple[str, ...]:
        """From the first raster, like the next properties: the others have the same data bands."""
        return self._headers[0].dtypes

    def find_dtype(self, bands: Sequence[int]) -> str:
        """Return the data type of the values of some bands; see `BandScaling`.

        Raises:
            RasterError: If the scale or the offset of a band cannot be used.
        """
        return _find_dtype(self._headers, bands)

    def list_scalings(self, bands: Sequence[int]) -> list[BandScaling]:
        """Return the scalings of some bands, once for each kind of raster."""
        chosen = (header.scaling.choose(bands, header.name) for header in self._headers)
        return list(dict.fromkeys(chosen))

    @property
    def nodata_values(self) -> set[float | None]:
        """Of the first band of each raster."""
        return {header.nodata for header in self._headers}

    @property
    def count(self) -> int:
        """Bands, alpha included."""
        return len(self.dtypes)

    @property
    def colorinterp(self) -> tuple[ColorInterp, ...]:
        """Colours of the bands."""
        return self._headers[0].colorinterp

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """Names of the bands."""
        return self._headers[0].descriptions

    def open_some(self, count: int) -> Iterator[DatasetReader]:
        """Yield at most this number of rasters, spread over the list, each open until the next.

        Those of registered readers are left out, as they are not files.
        """
        names = [header.name for header in self._headers if find_reader(header.name) is None]
        chosen = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
        for index in chosen.tolist():
            yield self._files.open(names[index])

    def describe(self, source: RasterPaths) -> RasterRecord:
        """Return a description that identifies the mosaic, with a hash of all headers."""
        digest = hashlib.sha256("".join(header.sha256 for header in self._headers).encode())
        scalings = [header.scaling for header in self._headers]
        if not all(scaling.is_identity for scaling in scalings):
            # Scalings of a catalogue are in no header.
            digest.update(repr(scalings).encode())
        return RasterRecord(
            path=record_source(source),
            driver="mosaic",
            sources=len(self),
            sheets=len(self.sheets),
            width=self.width,
            height=self.height,
            bands=self.count,
            dtypes=tuple(self.dtypes),
            crs=self.crs.to_string() if self.crs else None,
            transform=list(self.transform)[:6],
            dates=list_dates(source),
            header_sha256=digest.hexdigest(),
        )


class Sheet:
    """Rasters of one CRS and one lattice of pixels, read like one merged raster.

    Args:
        grid: Their pixels, over the extent of all.
        placed: The rasters, the upper ones first, with their places on the grid.
        files: Opens them.
    """

    grid: Grid
    """Their pixels, over the extent of all."""

    def __init__(self, grid: Grid, placed: Sequence[tuple[Header, Window]], files: _OpenRasters):
        self.grid = grid
        self._placed = list(placed)
        self._files = files
        self._dtypes: dict[tuple[int, ...], str] = {}
        edges = np.array([list_edges(window) for _, window in placed], dtype=np.float64)
        self._tree = shapely.STRtree(shapely.box(*edges.T))

    @property
    def placed(self) -> Sequence[tuple[Header, Window]]:
        """The rasters and their places on the grid."""
        return self._placed

    def touches(self, window: Window) -> bool:
        """Return whether a raster reaches into a window of the sheet."""
        return bool(self._find(window))

    def find_dtype(self, bands: Sequence[int]) -> str:
        """Return the data type of the values."""
        key = tuple(bands)
        if key not in self._dtypes:
            self._dtypes[key] = _find_dtype([header for header, _ in self._placed], bands)
        return self._dtypes[key]

    def read(
        self, bands: Sequence[int], window: Window, step: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of bands, (C, H, W), and where they are valid, (H, W) bool.

        Args:
            bands: By number from 1.
            window: Part of the sheet; it may reach beyond it.
            step: Read only every `step`-th pixel along rows and columns, for a picture.

        Raises:
            RasterError: If the pixels of a raster cannot be read.
        """
        height, width = (max(1, int(side) // step) for side in (window.height, window.width))
        image_CHW = np.zeros((len(bands), height, width), self.find_dtype(bands))
        valid_HW = np.zeros((height, width), bool)
        for index in self._find(window):
            header, place = self._placed[index]
            shared = _intersect(place, window)
            part = find_slices(shared, window, step, valid_HW.shape)
            hole_HW = ~valid_HW[part]
            if not hole_HW.any():
                continue
            own = cut_window(
                int(shared.col_off - place.col_off),
                int(shared.row_off - place.row_off),
                int(shared.width),
                int(shared.height),
            )
            pixels_CHW, data_HW = header.scaling.choose(bands, header.name).apply(
                *self._files.read(header.name, bands, own, hole_HW.shape)
            )
            np.copyto(image_CHW[:, *part], pixels_CHW, where=hole_HW & data_HW)
            valid_HW[part] |= data_HW
        return image_CHW, valid_HW

    def _find(self, window: Window) -> list[int]:
        """Return the rasters that reach into a window, the upper ones first."""
        left, top, right, bottom = list_edges(window)
        # The half pixel excludes rasters that only touch the window.
        inside = shapely.box(left + 0.5, top + 0.5, right - 0.5, bottom - 0.5)
        return np.sort(self._tree.query(inside)).tolist()


class _OpenRasters:
    """Keeps the rasters that were read last open."""

    def __init__(self, bands: Bands | None, nodata: float | None):
        self._bands, self._nodata = bands, nodata
        self._open: OrderedDict[str, tuple[ExitStack, DatasetReader]] = OrderedDict()
        self._registered: dict[str, RegisteredSource] = {}

    def read(
        self, path: str, bands: Sequence[int], window: Window, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a window of a raster; see `read_pixels`."""
        if find_reader(path) is None:
            return read_pixels(self.open(path), bands, window, shape, path)
        if path not in self._registered:
            self._registered[path] = RegisteredSource(path, self._nodata)
        return self._registered[path].read(bands, window, shape)

    def open(self, path: str) -> DatasetReader:
        if path not in self._open:
            while len(self._open) >= MAX_OPEN_RASTERS:
                _, (oldest, _) = self._open.popitem(last=False)
                oldest.close()
            files = ExitStack()
            self._open[path] = (
                files,
                files.enter_context(open_source(path, self._bands, self._nodata)),
            )
        self._open.move_to_end(path)
        return self._open[path][1]

    def close(self):
        while self._open:
            _, (files, _) = self._open.popitem()
            files.close()
        while self._registered:
            self._registered.popitem()[1].close()


def _find_dtype(headers: Sequence[Header], bands: Sequence[int]) -> str:
    scalings = [header.scaling.choose(bands, header.name) for header in headers]
    is_stored = all(scaling.is_identity for scaling in scalings)
    return headers[0].dtypes[bands[0] - 1] if is_stored else DTYPE


def _require_alike(first: Header, header: Header):
    """Raise unless the data bands of two rasters agree."""
    mine, theirs = first.data_dtypes, header.data_dtypes
    if mine != theirs:
        raise RasterError(
            f"{first.name} has {_say_bands(mine)} and {header.name} has {_say_bands(theirs)}: they "
            "form no mosaic",
            fix="list rasters of the same bands and data type, or convert them with gdal_translate",
        )
    for number in mine:
        names = first.names[number], header.names[number]
        if all(names) and names[0] != names[1]:
            raise RasterError(
                f"band {number} is {names[0]} in {first.name} and {names[1]} in {header.name}: "
                "they form no mosaic",
                fix="list rasters of the same bands in the same order",
            )


def _say_bands(dtypes: dict[int, str]) -> str:
    return f"{len(dtypes)} bands of {'/'.join(dict.fromkeys(dtypes.values()))}"


def _sort_into_sheets(
    headers: Sequence[Header],
) -> list[tuple[Grid, list[tuple[Header, Window]]]]:
    """Return the grid of each sheet with its rasters and their places on it."""
    # Grouped first by keys that compare quickly, then by the lattice itself.
    alike: defaultdict[Any, list[list[tuple[Header, tuple[int, int]]]]] = defaultdict(list)
    sheets: list[list[tuple[Header, tuple[int, int]]]] = []
    for header in headers:
        t = header.grid.transform
        key = id(header.grid.crs), *(float(f"{side:.6g}") for side in (t.a, t.b, t.d, t.e))
        for sheet in alike[key]:
            corner = _find_on_lattice(sheet[0][0].grid, header.grid)
            if corner is not None:
                sheet.append((header, corner))
                break
        else:
            sheets.append([(header, (0, 0))])
            alike[key].append(sheets[-1])
    return [_frame(sheet) for sheet in sheets]


def _find_on_lattice(base: Grid, grid: Grid) -> tuple[int, int] | None:
    """Return column and row of a grid's corner on another's lattice, None if it is not on it."""
    column, row = ~base.transform @ (grid.transform @ (0, 0))
    corner = round(column), round(row)
    window = cut_window(*corner, grid.width, grid.height)
    return corner if base.crop(window).same_as(grid) else None


def _frame(
    sheet: Sequence[tuple[Header, tuple[int, int]]],
) -> tuple[Grid, list[tuple[Header, Window]]]:
    base = sheet[0][0].grid
    left = min(column for _, (column, _) in sheet)
    top = min(row for _, (_, row) in sheet)
    right = max(column + header.grid.width for header, (column, _) in sheet)
    bottom = max(row + header.grid.height for header, (_, row) in sheet)
    grid = base.crop(cut_window(left, top, right - left, bottom - top))
    placed = [
        (header, cut_window(column - left, row - top, header.grid.width, header.grid.height))
        for header, (column, row) in sheet
    ]
    return grid, placed


def list_edges(window: Window) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a window."""
    return (
        window.col_off,
        window.row_off,
        window.col_off + window.width,
        window.row_off + window.height,
    )


def _intersect(one: Window, other: Window) -> Window:
    left, top = max(one.col_off, other.col_off), max(one.row_off, other.row_off)
    right = min(one.col_off + one.width, other.col_off + other.width)
    bottom = min(one.row_off + one.height, other.row_off + other.height)
    return cut_window(left, top, right - left, bottom - top)


def find_slices(
    inner: Window, outer: Window, step: int, shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return rows and columns of an inner window in a picture of the outer one."""
    sides = []
    for start, length, size in (
        (inner.row_off - outer.row_off, inner.height, shape[0]),
        (inner.col_off - outer.col_off, inner.width, shape[1]),
    ):
        first = min(int(start) // step, size - 1)
        sides.append(slice(first, max(first + 1, min(-(-int(start + length) // step), size))))
    return sides[0], sides[1]
