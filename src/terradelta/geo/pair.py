"""Two rasters of one place, read window by window on one grid.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.grid import Grid, cut_window

Bands = Sequence[int | str]


class PairWindow(NamedTuple):
    """The same window of both dates."""

    before_CHW: np.ndarray
    """Bands of the before image in the raster's own data type."""
    after_CHW: np.ndarray
    """Bands of the after image, resampled onto the pair's grid."""
    valid_HW: np.ndarray
    """True where both dates hold data."""


class RasterPair:
    """Two rasters on the before image's grid, cut to where they overlap; a context manager.

    Where the after image lies on another grid (other CRS, resolution, extent or pixel phase) it is
    resampled bilinearly as it is read.

    Args:
        before: The earlier raster: a path or anything GDAL opens.
        after: The later raster.
        band_names: What the model needs, for example ("red", "green", "blue").
        bands: Band numbers (from 1) or names to read instead, in the model's order.

    Raises:
        RasterError: If a raster cannot be opened, has no CRS while the other has one, does not
            overlap the other, or lacks the bands.
        ArgumentError: If `bands` has another length than `band_names`.
    """

    def __init__(
        self,
        before: str | Path,
        after: str | Path,
        band_names: Sequence[str],
        bands: Bands | None = None,
    ):
        self._exits = ExitStack()
        try:
            before_dataset = self._exits.enter_context(_open(before))
            after_dataset = self._exits.enter_context(_open(after))
            before_bands = select_bands(before_dataset, band_names, bands)
            after_bands = select_bands(after_dataset, band_names, bands)
            self.grid = _overlap(before_dataset, after_dataset)
            self._before = self._exits.enter_context(_Aligned(before_dataset, before_bands, self))
            self._after = self._exits.enter_context(_Aligned(after_dataset, after_bands, self))
        except BaseException:
            self._exits.close()
            raise

    def __enter__(self) -> RasterPair:
        return self

    def __exit__(self, *exception: object):
        self._exits.close()

    def read(self, window: Window) -> PairWindow:
        """Read a window of the pair's grid.

        Raises:
            RasterError: If the pixels of one of the files cannot be read.
        """
        return self._read(window, (int(window.height), int(window.width)))

    def read_overview(self, shape: tuple[int, int]) -> PairWindow:
        """Read the whole pair, reduced or enlarged to (rows, columns), for a picture."""
        whole = cut_window(0, 0, self.grid.width, self.grid.height)
        return self._read(whole, shape)

    def _read(self, window: Window, shape: tuple[int, int]) -> PairWindow:
        before_CHW, before_valid_HW = self._before.read(window, shape)
        after_CHW, after_valid_HW = self._after.read(window, shape)
        return PairWindow(before_CHW, after_CHW, before_valid_HW & after_valid_HW)


class _Aligned:
    """One raster of the pair, as it reads on the pair's grid."""

    def __init__(self, dataset: DatasetReader, bands: list[int], pair: RasterPair):
        self._bands = bands
        self._name = dataset.name
        self._row_offset = self._column_offset = 0
        self._warped: WarpedVRT | None = None
        own = Grid.of(dataset)
        column, row = ~own.transform @ (pair.grid.transform @ (0, 0))
        offset = cut_window(round(column), round(row), pair.grid.width, pair.grid.height)
        if own.crop(offset).same_as(pair.grid) and _contains(own, offset):
            self._row_offset, self._column_offset = offset.row_off, offset.col_off
            self._dataset: DatasetReader | WarpedVRT = dataset
            return
        has_mask = dataset.nodata is not None or ColorInterp.alpha in dataset.colorinterp
        # Without the tight tolerance a window differs from the same window of a full read.
        self._warped = WarpedVRT(
            dataset,
            crs=pair.grid.crs,
            transform=pair.grid.transform,
            width=pair.grid.width,
            height=pair.grid.height,
            resampling=Resampling.bilinear,
            tolerance=0.01,
            add_alpha=not has_mask,
            UNIFIED_SRC_NODATA="YES",
        )
        self._dataset = self._warped

    def __enter__(self) -> _Aligned:
        return self

    def __exit__(self, *exception: object):
        if self._warped is not None:
            self._warped.close()

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        shifted = cut_window(
            window.col_off + self._column_offset,
            window.row_off + self._row_offset,
            window.width,
            window.height,
        )
        try:
            image_CHW = self._dataset.read(
                self._bands, window=shifted, out_shape=(len(self._bands), *shape)
            )
            valid_HW = self._dataset.dataset_mask(window=shifted, out_shape=shape) > 0
        except RasterioError as error:
            raise RasterError(
                f"{self._name}: pixels cannot be read in rows {shifted.row_off} to "
                f"{shifted.row_off + shifted.height}: {error}",
                fix="the file is probably truncated or damaged: fetch it again",
            ) from error
        if np.issubdtype(image_CHW.dtype, np.floating):
            finite_HW = np.isfinite(image_CHW).all(axis=0)
            image_CHW = np.where(finite_HW, image_CHW, 0)
            valid_HW &= finite_HW
        return image_CHW, valid_HW


def select_bands(
    dataset: DatasetReader, band_names: Sequence[str], bands: Bands | None = None
) -> list[int]:
    """Return the numbers (from 1) of the bands of a raster that hold what a model needs.

    By default they are found by their names or colour interpretation, and a raster with just as
    many bands as the model needs (alpha not counted) is taken in its own order.

    Raises:
        ArgumentError: If `bands` has another length than `band_names`.
        RasterError: If a band does not exist or cannot be told from the others.
    """
    known = _describe_bands(dataset)
    if bands is not None:
        if len(bands) != len(band_names):
            raise ArgumentError(
                f"--bands names {len(bands)} bands ({', '.join(map(str, bands))}) but the model "
                f"needs {len(band_names)} ({', '.join(band_names)})",
                fix="name one band for each that the model needs, in that order",
            )
        return [_find_band(dataset, known, band) for band in bands]
    if all(name in known.values() for name in band_names):
        return [_find_band(dataset, known, name) for name in band_names]
    data_bands = [n for n, name in known.items() if name != "alpha"]
    if len(data_bands) == len(band_names):
        return data_bands
    listing = ", ".join(f"{n} {name or '(unnamed)'}" for n, name in known.items())
    raise RasterError(
        f"{dataset.name} has the bands {listing}, and the model needs {', '.join(band_names)}",
        fix=f"say which they are, for example --bands "
        f"{','.join(str(n + 1) for n in range(len(band_names)))}",
    )


def _describe_bands(dataset: DatasetReader) -> dict[int, str]:
    names = {}
    for number, (text, colour) in enumerate(
        zip(dataset.descriptions, dataset.colorinterp, strict=True), start=1
    ):
        is_named = colour not in (ColorInterp.undefined, ColorInterp.gray)
        names[number] = (text or (colour.name if is_named else "")).lower()
    return names


def _find_band(dataset: DatasetReader, known: dict[int, str], band: int | str) -> int:
    text = str(band).lower()
    number = int(text) if text.isdigit() else None
    for candidate, name in known.items():
        if candidate == number or (number is None and name == text):
            return candidate
    listing = ", ".join(f"{n} {name or '(unnamed)'}" for n, name in known.items())
    raise RasterError(
        f"{dataset.name} has no band {band}; it has {listing}",
        fix="name bands that the raster has, by number from 1 or by name",
    )


def _overlap(before: DatasetReader, after: DatasetReader) -> Grid:
    before_grid, after_grid = Grid.of(before), Grid.of(after)
    if (before.crs is None) != (after.crs is None):
        without, other = (before, after) if before.crs is None else (after, before)
        raise RasterError(
            f"{without.name} has no coordinate reference system, {other.name} has {other.crs}",
            fix=f"assign one, for example: gdal_edit.py -a_srs EPSG:CODE {without.name}",
        )
    if before.crs is None and not before_grid.same_as(after_grid):
        raise RasterError(
            f"neither raster has a coordinate reference system and they differ: {before.name} is "
            f"{before.width} x {before.height}, {after.name} is {after.width} x {after.height}",
            fix="georeference both, or cut them to the same pixels",
        )
    if before_grid.same_as(after_grid):
        return before_grid
    return before_grid.intersect(after_grid)


def _contains(grid: Grid, window: Window) -> bool:
    inside_columns = window.col_off >= 0 and window.col_off + window.width <= grid.width
    return inside_columns and window.row_off >= 0 and window.row_off + window.height <= grid.height


def _open(path: str | Path) -> DatasetReader:
    try:
        dataset = rasterio.open(path)
    except RasterioError as error:
        raise RasterError(
            f"{path} cannot be opened as a raster: {error}",
            fix="give a raster that GDAL reads; `rio info FILE` shows whether it does",
        ) from error
    if dataset.count == 0:
        dataset.close()
        raise RasterError(
            f"{path} holds no bands but {len(dataset.subdatasets)} subdatasets",
            fix="name one of the subdatasets instead of the container",
        )
    return dataset
