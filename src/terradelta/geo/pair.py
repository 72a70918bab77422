"""Two rasters of one place, read window by window on one grid.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from rasterio.windows import Window

from terradelta.cautions import Caution
from terradelta.geo.aligned import align
from terradelta.geo.aoi import AreaOfInterest
from terradelta.geo.area import find_ground
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.listing import RasterPaths
from terradelta.geo.map_grid import Images, choose_grid
from terradelta.geo.mosaic import open_images
from terradelta.geo.options import PairOptions
from terradelta.geo.placement import reaches_off_earth
from terradelta.geo.source import select_bands


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
            overlap the other or the area of interest, or lacks the bands.
        ArgumentError: If the options name another number of bands than `band_names`, or a grid
            that is not known.
    """

    grid: Grid
    """The pixels that both rasters cover at least in part."""
    datasets: tuple[Images, Images]
    """The two rasters or mosaics as they are opened."""
    bands: tuple[list[int], list[int]]
    """Which of their bands are read, by number from 1."""
    band_names: tuple[str, ...]
    """What those are to the model."""
    cautions: tuple[Caution, ...]
    """Reasons to doubt where the pair lies."""
    aoi: AreaOfInterest | None
    """The area of interest on the grid."""
    area: Window
    """The window of `grid` that the area of interest needs; all of it without one."""

    def __init__(
        self,
        before: RasterPaths,
        after: RasterPaths,
        band_names: Sequence[str],
        options: PairOptions | None = None,
    ):
        options = options or PairOptions()
        bands, aoi = options.bands, options.aoi
        self._exits = ExitStack()
        try:
            datasets = [
                self._exits.enter_context(open_images(source, bands)) for source in (before, after)
            ]
            selected = [select_bands(dataset, band_names, bands) for dataset in datasets]
            chosen = choose_grid(datasets[0], datasets[1], options.grid)
            self.grid, self.cautions = chosen.grid, chosen.cautions
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
        except BaseException:
            self._exits.close()
            raise

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
        """What a pixel of both dates takes in memory."""
        return self._before.bytes_per_pixel + self._after.bytes_per_pixel

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
        if self.aoi is not None and pair.valid_HW.any():
            return pair._replace(valid_HW=pair.valid_HW & self.aoi.mask(window))
        return pair

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
            np.zeros((len(bands), *shape), images.dtypes[bands[0] - 1])
            for images, bands in zip(self.datasets, self.bands, strict=True)
        )
        empty_HW = np.zeros(shape, bool)
        return PairWindow(before_CHW, after_CHW, empty_HW, empty_HW)
