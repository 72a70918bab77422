"""Two rasters of one place, read window by window on one grid.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from rasterio.windows import Window

from terradelta.cautions import Caution
from terradelta.errors import ArgumentError
from terradelta.geo.aligned import align
from terradelta.geo.aoi import AreaOfInterest
from terradelta.geo.area import find_ground
from terradelta.geo.bands import select_bands
from terradelta.geo.exclusion import Exclusion, MaskValues
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.listing import RasterPaths
from terradelta.geo.map_grid import Images, choose_grid
from terradelta.geo.mosaic import Mosaic, open_images
from terradelta.geo.pair_options import PairOptions
from terradelta.geo.placement import reaches_off_earth
from terradelta.geo.scaling import BandScaling
from terradelta.geo.virtual import name_raster


class PairWindow(NamedTuple):
    """The same window of both dates."""

    before_CHW: np.ndarray
    """Values of the before image, resampled if necessary: its stored numbers in their own data
    type, or float32 where the raster has a scale or an offset."""
    after_CHW: np.ndarray
    """The same for the after image."""
    valid_HW: np.ndarray
    """True where both dates hold data, inside the area of interest and not under a mask."""
    data_HW: np.ndarray
    """True where both dates hold data, inside or outside: the context of a network."""


class RasterPair:
    """Two rasters or mosaics on one grid, cut to their overlap; a context manager.

    A raster on another grid (other CRS, resolution, extent or pixel phase) is resampled
    bilinearly when read.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        band_names: The bands that the model needs, for example ("red", "green", "blue").
        options: Options of bands, grid, area of interest and pixels.

    Raises:
        RasterError: If a raster cannot be opened, has no CRS while the other has one, does not
            overlap the other or the area of interest, or lacks the bands; or a mask cannot be used.
        ArgumentError: If the options name another number of bands than `band_names`, an unknown
            grid, or mask values without a mask.
    """

    options: PairOptions
    """The options."""
    grid: Grid
    """The pixels that both rasters cover at least partly."""
    datasets: tuple[Images, Images]
    """The two rasters or mosaics as opened."""
    bands: tuple[list[int], list[int]]
    """Numbers of their bands that are read, from 1."""
    band_names: tuple[str, ...]
    """Names of these bands in the model."""
    notice: str
    """A note for the user if the pixels are not those of a raster; mostly empty."""
    cautions: tuple[Caution, ...]
    """Reasons to doubt the place of the pair."""
    aoi: AreaOfInterest | None
    """The area of interest on the grid."""
    area: Window
    """The window of `grid` that the area of interest needs; all of it without one."""
    masks: tuple[Exclusion | None, Exclusion | None]
    """Masks of before and of after."""

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
            chosen = choose_grid(datasets[0], datasets[1], options.grid)
            self.grid, self.cautions, self.notice = chosen.grid, chosen.cautions, chosen.notice
            self._has_edge = reaches_off_earth(self.grid)
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
                f"--mask-values {options.mask_values} was given without a mask",
                fix="name the raster that holds these values with --mask, or leave it out",
            )
        before, after = (
            self._exits.enter_context(Exclusion(path, values, grid)) if path else None
            for path, grid in zip(paths, grids, strict=True)
        )
        return before, after

    def __enter__(self) -> RasterPair:
        return self

    def __exit__(self, *exception: object):
        self._exits.close()

    @property
    def is_resampled(self) -> tuple[bool, bool]:
        """Whether before and after are resampled to the grid."""
        return self._before.is_resampled, self._after.is_resampled

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of a pixel of both dates and their masks."""
        layers = self._before, self._after, *filter(None, self.masks)
        return sum(layer.bytes_per_pixel for layer in layers)

    def read(self, window: Window) -> PairWindow:
        """Read a window of the pair's grid.

        Raises:
            RasterError: If the pixels of one of the files cannot be read.
        """
        shape = int(window.height), int(window.width)
        if not self.touches(window):
            # Nothing is read outside of the area or where a mosaic has no raster.
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
    def scalings(self) -> tuple[list[BandScaling], list[BandScaling]]:
        """Scalings of the stored numbers of both dates; a mosaic may have several."""
        before, after = (
            images.list_scalings(bands)
            if isinstance(images, Mosaic)
            else [BandScaling.of(images).choose(bands, name_raster(images))]
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
        if self._has_edge:
            part = self.grid.crop(window).redivide(*shape)
            data_HW &= find_ground(part, cut_window(0, 0, part.width, part.height))
        return PairWindow(before_CHW, after_CHW, data_HW, data_HW)

    def _leave_empty(self, shape: tuple[int, int]) -> PairWindow:
        before_CHW, after_CHW = (
            np.zeros((len(bands), *shape), aligned.dtype)
            for aligned, bands in zip((self._before, self._after), self.bands, strict=True)
        )
        empty_HW = np.zeros(shape, bool)
        return PairWindow(before_CHW, after_CHW, empty_HW, empty_HW)
