"""Two rasters of one place, read window by window on one grid.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.aoi import AreaOfInterest
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.overview import read_valid, warp_overview
from terradelta.geo.source import WARP_TOLERANCE_PX, Bands, open_source, require_plain, select_bands

OVERVIEW_STEP = 2
"""From so many pixels of the grid on, that one of a picture is wide, the grid is left aside."""


class PairWindow(NamedTuple):
    """The same window of both dates."""

    before_CHW: np.ndarray
    """Bands of the before image in the raster's own data type, resampled where need be."""
    after_CHW: np.ndarray
    """Bands of the after image, likewise."""
    valid_HW: np.ndarray
    """True where both dates hold data, inside the area of interest."""
    data_HW: np.ndarray
    """True where both dates hold data, also outside of it: what a network may see."""


class RasterPair:
    """Two rasters on one grid, cut to where they overlap; a context manager.

    A raster that lies on another grid (other CRS, resolution, extent or pixel phase) is resampled
    bilinearly as it is read.

    Args:
        before: The earlier raster: a path or anything GDAL opens.
        after: The later raster.
        band_names: What the model needs, for example ("red", "green", "blue").
        bands: Band numbers (from 1) or names to read instead, in the model's order.
        grid: Whose pixels the map gets: "before", "after", or the side of a pixel in units of the
            before raster's CRS.
        aoi: A vector file; pixels outside of its polygons are not valid.
        shift_px: The after image is read this many (columns, rows) of the grid further right and
            down, to undo a shift that was measured.

    Raises:
        RasterError: If a raster cannot be opened, has no CRS while the other has one, does not
            overlap the other or the area of interest, or lacks the bands.
        ArgumentError: If `bands` has another length than `band_names`, or `grid` is unknown.
    """

    grid: Grid
    """The pixels that both rasters cover at least in part."""
    datasets: tuple[DatasetReader, DatasetReader]
    """The two rasters as they are opened."""
    bands: tuple[list[int], list[int]]
    """Which of their bands are read, by number from 1."""
    band_names: tuple[str, ...]
    """What those are to the model."""
    aoi: AreaOfInterest | None
    """The area of interest on the grid."""
    area: Window
    """The window of `grid` that the area of interest needs; all of it without one."""

    def __init__(
        self,
        before: str | Path,
        after: str | Path,
        band_names: Sequence[str],
        bands: Bands | None = None,
        *,
        grid: str | float = "before",
        aoi: str | Path | None = None,
        shift_px: tuple[float, float] = (0.0, 0.0),
    ):
        self._exits = ExitStack()
        try:
            datasets = [
                self._exits.enter_context(open_source(path, bands)) for path in (before, after)
            ]
            selected = [select_bands(dataset, band_names, bands) for dataset in datasets]
            self.grid = _overlap(datasets[0], datasets[1], grid)
            self.aoi = AreaOfInterest(aoi, self.grid) if aoi is not None else None
            whole = cut_window(0, 0, self.grid.width, self.grid.height)
            self.area = self.aoi.area if self.aoi else whole
            self.datasets = datasets[0], datasets[1]
            self.bands = selected[0], selected[1]
            self.band_names = tuple(band_names)
            grids = self.grid, self.grid.shift(*shift_px)
            self._before, self._after = (
                self._exits.enter_context(_Aligned(*parts))
                for parts in zip(datasets, selected, grids, strict=True)
            )
        except BaseException:
            self._exits.close()
            raise

    @classmethod
    def reopen(
        cls,
        run: Mapping[str, Any],
        before: str | Path | None = None,
        after: str | Path | None = None,
    ) -> RasterPair:
        """Open the pair of a prediction as it was read then.

        Args:
            run: The content of run.json.
            before: Where the earlier raster lies now, if it was moved.
            after: Where the later one lies now.

        Raises:
            RasterError: As the class itself does.
        """
        parameters = run["parameters"]
        return cls(
            before or run["before"]["path"],
            after or run["after"]["path"],
            run["band_names"],
            parameters["bands"],
            grid=parameters["grid"],
            aoi=parameters["aoi"] and parameters["aoi"]["path"],
            shift_px=run["shift_px"],
        )

    def __enter__(self) -> RasterPair:
        return self

    def __exit__(self, *exception: object):
        self._exits.close()

    @property
    def is_resampled(self) -> tuple[bool, bool]:
        """Whether before and after are resampled to get onto the grid."""
        return self._before.is_resampled, self._after.is_resampled

    @property
    def bytes_per_pixel(self) -> int:
        """What a pixel of both dates takes in memory."""
        return self._before.bytes_per_pixel + self._after.bytes_per_pixel

    def read(self, window: Window) -> PairWindow:
        """Read a window of the pair's grid.

        Raises:
            RasterError: If the pixels of one of the files cannot be read.
        """
        pair = self._read(window, (int(window.height), int(window.width)))
        if self.aoi is not None and pair.valid_HW.any():
            return pair._replace(valid_HW=pair.valid_HW & self.aoi.mask(window))
        return pair

    def read_overview(self, shape: tuple[int, int], window: Window | None = None) -> PairWindow:
        """Read a window, by default the whole area, as (rows, columns) pixels for a picture."""
        return self._read(window or self.area, shape)

    def _read(self, window: Window, shape: tuple[int, int]) -> PairWindow:
        before_CHW, before_valid_HW = self._before.read(window, shape)
        after_CHW, after_valid_HW = self._after.read(window, shape)
        data_HW = before_valid_HW & after_valid_HW
        return PairWindow(before_CHW, after_CHW, data_HW, data_HW)


class _Aligned:
    """One raster of the pair, as it reads on a grid."""

    def __init__(self, dataset: DatasetReader, bands: list[int], grid: Grid):
        require_plain(dataset, bands)
        self._bands = bands
        self._name = dataset.name
        self._source, self._grid = dataset, grid
        self._row_offset = self._column_offset = 0
        self._warped: WarpedVRT | None = None
        self.bytes_per_pixel = sum(np.dtype(dataset.dtypes[band - 1]).itemsize for band in bands)
        own = Grid.of(dataset)
        column, row = ~own.transform @ (grid.transform @ (0, 0))
        offset = cut_window(round(column), round(row), grid.width, grid.height)
        if own.crop(offset).same_as(grid) and _contains(own, offset):
            self._row_offset, self._column_offset = offset.row_off, offset.col_off
            self._dataset: DatasetReader | WarpedVRT = dataset
            return
        if len(set(map(repr, dataset.nodatavals))) > 1:
            raise RasterError(
                f"{dataset.name} has another nodata value in each band, "
                f"{', '.join(map(str, dataset.nodatavals))}, and cannot be resampled with them",
                fix=f"give it a mask instead: gdal_translate -b 1 -b 2 -b 3 -b mask "
                f"-colorinterp_4 alpha {dataset.name} masked.tif",
            )
        wrapped = _wrap_longitudes(own, grid)
        self._own = Grid(wrapped or own.crs, _turn(own, grid), own.width, own.height)
        self._warped = WarpedVRT(
            dataset,
            src_crs=wrapped,
            src_transform=self._own.transform,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.bilinear,
            tolerance=WARP_TOLERANCE_PX,
            add_alpha=ColorInterp.alpha not in dataset.colorinterp,
            UNIFIED_SRC_NODATA="YES",
        )
        self._dataset = self._warped

    def __enter__(self) -> _Aligned:
        return self

    def __exit__(self, *exception: object):
        if self._warped is not None:
            self._warped.close()

    @property
    def is_resampled(self) -> bool:
        return self._warped is not None

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        shifted = cut_window(
            window.col_off + self._column_offset,
            window.row_off + self._row_offset,
            window.width,
            window.height,
        )
        try:
            image_CHW, valid_HW = self._read(shifted, shape)
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

    def _read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        step = min(window.height / shape[0], window.width / shape[1])
        if self._warped is not None and step >= OVERVIEW_STEP:
            coarse = self._grid.crop(window).redivide(*shape)
            return warp_overview(self._source, self._own, self._bands, coarse)
        image_CHW = self._dataset.read(
            self._bands, window=window, out_shape=(len(self._bands), *shape)
        )
        return image_CHW, read_valid(self._dataset, window, shape)


def _overlap(before: DatasetReader, after: DatasetReader, choice: str | float) -> Grid:
    """Return the chosen grid, cut to what both rasters cover."""
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
    pixel_size = _parse_pixel_size(choice)
    if pixel_size is not None:
        # Both cut it, so that no row or column at the edge is without data.
        return before_grid.intersect(after_grid).resample(pixel_size).intersect(after_grid)
    base, other = (before_grid, after_grid) if choice == "before" else (after_grid, before_grid)
    return base if base.same_as(other) else base.intersect(other)


def _parse_pixel_size(choice: str | float) -> float | None:
    """Return the pixel size that `--grid` asks for, None where it names a raster."""
    if choice in ("before", "after"):
        return None
    try:
        pixel_size = float(choice)
    except ValueError:
        pixel_size = 0.0
    if not 0 < pixel_size < float("inf"):
        raise ArgumentError(
            f"the grid {choice!r} is not known",
            fix="use --grid before, --grid after, or the side of a pixel in units of the before "
            "raster's CRS, such as --grid 2.5",
        )
    return pixel_size


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
    return CRS.from_wkt(re.sub(end, extension, own.crs.to_wkt(version="WKT1_GDAL"), count=1))


def _contains(grid: Grid, window: Window) -> bool:
    inside_columns = window.col_off >= 0 and window.col_off + window.width <= grid.width
    return inside_columns and window.row_off >= 0 and window.row_off + window.height <= grid.height
