"""Two rasters of one place, read window by window on one grid.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.aligned import align
from terradelta.geo.aoi import AreaOfInterest
from terradelta.geo.bands import select_bands
from terradelta.geo.exclusion import Exclusion, MaskValues
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.listing import RasterPaths
from terradelta.geo.mosaic import Mosaic, open_images
from terradelta.geo.options import PairOptions
from terradelta.geo.scaling import Scaling
from terradelta.geo.virtual import name_raster

Images = DatasetReader | Mosaic


class PairWindow(NamedTuple):
    """The same window of both dates."""

    before_CHW: np.ndarray
    """Values of the before image, resampled where need be: its stored numbers in their own data
    type, or float32 where the raster has a scale or an offset."""
    after_CHW: np.ndarray
    """Bands of the after image, likewise."""
    valid_HW: np.ndarray
    """True where both dates hold data, inside the area of interest and not under a mask."""
    data_HW: np.ndarray
    """True where both dates hold data, there or not: what a network may see as context."""


class RasterPair:
    """Two rasters or mosaics on one grid, cut to where they overlap; a context manager.

    What lies on another grid (other CRS, resolution, extent or pixel phase) is resampled
    bilinearly as it is read.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        band_names: What the model needs, for example ("red", "green", "blue").
        options: What the user says of bands, grid, area of interest and pixels.

    Raises:
        RasterError: If a raster cannot be opened, has no CRS while the other has one, does not
            overlap the other or the area of interest, or lacks the bands; or a mask cannot be used.
        ArgumentError: If the options name another number of bands than `band_names`, a grid that is
            not known, or values of no mask.
    """

    options: PairOptions
    """What the user says."""
    grid: Grid
    """The pixels that both rasters cover at least in part."""
    datasets: tuple[Images, Images]
    """The two rasters or mosaics as they are opened."""
    bands: tuple[list[int], list[int]]
    """Which of their bands are read, by number from 1."""
    band_names: tuple[str, ...]
    """What those are to the model."""
    aoi: AreaOfInterest | None
    """The area of interest on the grid."""
    area: Window
    """The window of `grid` that the area of interest needs; all of it without one."""
    masks: tuple[Exclusion | None, Exclusion | None]
    """What is left out of before and of after."""

    def __init__(
        self,
        before: RasterPaths,
        after: RasterPaths,
        band_names: Sequence[str],
        options: PairOptions | None = None,
    ):
        self.options = options = options or PairOptions()
        bands, aoi = options.bands, options.aoi
        self._exits = ExitStack()
        try:
            datasets = [
                self._exits.enter_context(open_images(source, bands, date.nodata))
                for source, date in ((before, options.before), (after, options.after))
            ]
            selected = [select_bands(dataset, band_names, bands) for dataset in datasets]
            self.grid = _overlap(datasets[0], datasets[1], options.grid)
            self.aoi = AreaOfInterest(aoi, self.grid) if aoi is not None else None
            whole = cut_window(0, 0, self.grid.width, self.grid.height)
            self.area = self.aoi.area if self.aoi else whole
            self.datasets = datasets[0], datasets[1]
            self.bands = selected[0], selected[1]
            self.band_names = tuple(band_names)
            grids = self.grid, self.grid.shift(*options.shift_px)
            self._before, self._after = (
                self._exits.enter_context(align(*parts))
                for parts in zip(datasets, selected, grids, strict=True)
            )
            self.masks = self._open_masks(options, grids)
        except BaseException:
            self._exits.close()
            raise

    def _open_masks(
        self, options: PairOptions, grids: tuple[Grid, Grid]
    ) -> tuple[Exclusion | None, Exclusion | None]:
        """Open the masks of both dates; each moves with its image."""
        values = MaskValues.parse(options.mask_values)
        paths = options.before.mask, options.after.mask
        if options.mask_values is not None and not any(paths):
            raise ArgumentError(
                f"--mask-values {options.mask_values} was given and no mask",
                fix="name the raster that holds these values with --mask, or leave it out",
            )
        before, after = (
            self._exits.enter_context(Exclusion(path, values, grid)) if path else None
            for path, grid in zip(paths, grids, strict=True)
        )
        return before, after

    @classmethod
    def reopen(
        cls,
        run: Mapping[str, Any],
        before: RasterPaths | None = None,
        after: RasterPaths | None = None,
    ) -> RasterPair:
        """Open the pair of a prediction as it was read then.

        Args:
            run: The content of run.json.
            before: Where the earlier raster lies now, if it was moved.
            after: Where the later one lies now.

        Raises:
            RasterError: As the class itself does.
        """
        return cls(
            before or run["before"]["path"],
            after or run["after"]["path"],
            run["band_names"],
            PairOptions.from_run(run),
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
        """What a pixel of both dates and their masks takes in memory."""
        layers = self._before, self._after, *filter(None, self.masks)
        return sum(layer.bytes_per_pixel for layer in layers)

    def read(self, window: Window) -> PairWindow:
        """Read a window of the pair's grid.

        Raises:
            RasterError: If the pixels of one of the files cannot be read.
        """
        shape = int(window.height), int(window.width)
        if not self.touches(window):
            # Nothing is read outside of the area, nor where one of the mosaics has no raster.
            return self._leave_empty(shape)
        pair = self._read(window, shape)
        valid_HW = pair.valid_HW
        if self.aoi is not None and valid_HW.any():
            valid_HW = valid_HW & self.aoi.mask(window)
        for mask in filter(None, self.masks):
            if valid_HW.any():
                valid_HW = valid_HW & ~mask.read(window)
        return pair._replace(valid_HW=valid_HW)

    @property
    def dtypes(self) -> tuple[str, str]:
        """Data types of the values of both dates."""
        return self._before.dtype, self._after.dtype

    @property
    def scalings(self) -> tuple[list[Scaling], list[Scaling]]:
        """What the stored numbers of both dates mean; a mosaic may mix several."""
        before, after = (
            images.list_scalings(bands)
            if isinstance(images, Mosaic)
            else [Scaling.of(images).choose(bands, name_raster(images))]
            for images, bands in zip(self.datasets, self.bands, strict=True)
        )
        return before, after

    def touches(self, window: Window) -> bool:
        """Return whether there may be valid pixels in a window, without reading any."""
        is_wanted = self.aoi is None or self.aoi.touches(window)
        return is_wanted and self._before.touches(window) and self._after.touches(window)

    def read_overview(self, shape: tuple[int, int], window: Window | None = None) -> PairWindow:
        """Read a window, by default the whole area, as (rows, columns) pixels for a picture."""
        return self._read(window or self.area, shape)

    def _read(self, window: Window, shape: tuple[int, int]) -> PairWindow:
        before_CHW, before_valid_HW = self._before.read(window, shape)
        after_CHW, after_valid_HW = self._after.read(window, shape)
        data_HW = before_valid_HW & after_valid_HW
        return PairWindow(before_CHW, after_CHW, data_HW, data_HW)

    def _leave_empty(self, shape: tuple[int, int]) -> PairWindow:
        before_CHW, after_CHW = (
            np.zeros((len(bands), *shape), aligned.dtype)
            for aligned, bands in zip((self._before, self._after), self.bands, strict=True)
        )
        empty_HW = np.zeros(shape, bool)
        return PairWindow(before_CHW, after_CHW, empty_HW, empty_HW)


def _overlap(before: Images, after: Images, choice: str | float) -> Grid:
    """Return the chosen grid, cut to what both rasters cover."""
    if (before.crs is None) != (after.crs is None):
        without, other = (before, after) if before.crs is None else (after, before)
        name = name_raster(without)
        raise RasterError(
            f"{name} has no coordinate reference system, {name_raster(other)} has {other.crs}",
            fix=f"assign one, for example: gdal_edit.py -a_srs EPSG:CODE {name}",
        )
    crs, pixel_size = parse_grid(choice)
    if crs is not None:
        assert pixel_size is not None
        return _share_ground(before, after, crs, pixel_size)
    before_grid, after_grid = Grid.of(before), Grid.of(after)
    if before.crs is None and not before_grid.same_as(after_grid):
        raise RasterError(
            "neither raster has a coordinate reference system and they differ: "
            f"{name_raster(before)} is {before.width} x {before.height}, "
            f"{name_raster(after)} is {after.width} x {after.height}",
            fix="georeference both, or cut them to the same pixels",
        )
    if pixel_size is not None:
        # Both cut it, so that no row or column at the edge is without data.
        return before_grid.intersect(after_grid).resample(pixel_size).intersect(after_grid)
    base, other = (before_grid, after_grid) if choice == "before" else (after_grid, before_grid)
    return base if base.same_as(other) else base.intersect(other)


def _share_ground(before: Images, after: Images, crs: CRS, pixel_size: float) -> Grid:
    """Return the grid of a CRS over what the bounds of both rasters share."""
    names = name_raster(before), name_raster(after)
    if before.crs is None:
        raise RasterError(
            f"{' and '.join(names)} have no coordinate reference system, so the map cannot have "
            f"{crs}",
            fix="georeference both, or leave --grid out",
        )
    edges = np.array([_find_bounds(images, crs) for images in (before, after)])
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
    return Grid.spanning(crs, pixel_size, (left, bottom, right, top))


def _find_bounds(images: Images, crs: CRS) -> tuple[float, float, float, float]:
    return images.bounds_in(crs) if isinstance(images, Mosaic) else Grid.of(images).bounds_in(crs)


def parse_grid(choice: str | float) -> tuple[CRS | None, float | None]:
    """Return the CRS and pixel size that `--grid` asks for, None for what it leaves to a raster.

    Raises:
        ArgumentError: If it is neither a raster's name nor a pixel size.
    """
    if choice in ("before", "after"):
        return None, None
    code, separator, size = str(choice).rpartition("@")
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
    return crs, pixel_size
