"""A raster or a mosaic read on the pixels of a map.

Rasters on other pixels (other CRS, resolution, extent or pixel phase) are resampled when read,
bilinearly by default, and a window gives the same values whatever is read around it.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from terradelta.geo.grid import Grid
from terradelta.geo.lattice import find_lattice
from terradelta.geo.layer import AlignedLayer, Whole, count_bytes, face
from terradelta.geo.mosaic import Mosaic
from terradelta.geo.overview import warp_overview
from terradelta.geo.placement import place_raster
from terradelta.geo.scaling import BandScaling
from terradelta.geo.source import read_pixels, require_plain
from terradelta.geo.virtual import name_raster


class Aligned(Protocol):
    """One date on the grid of a map; a context manager."""

    dtype: str
    """Data type of the values; see `BandScaling`."""
    bytes_per_pixel: int
    """Memory of a pixel of its bands."""

    def __enter__(self) -> Aligned: ...
    def __exit__(self, *exception: object): ...

    @property
    def is_resampled(self) -> bool:
        """Whether any of it is resampled to the grid."""
        ...

    def touches(self, window: Window) -> bool:
        """Return whether there may be data in a window of the grid, without reading any."""
        ...

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of a window as (C, *shape) and where they are valid, bool."""
        ...


def align(
    images: DatasetReader | Mosaic,
    bands: Sequence[int],
    grid: Grid,
    resampling: Resampling = Resampling.bilinear,
) -> Aligned:
    """Return bands of a raster or a mosaic on a grid.

    Raises:
        RasterError: If their data types differ, or a scale or an offset cannot be used.
    """
    require_plain(images, bands)
    if isinstance(images, Mosaic):
        return _AlignedMosaic(images, bands, grid, resampling)
    return _AlignedRaster(images, bands, grid, resampling)


class _AlignedRaster:
    """One raster on a grid."""

    def __init__(
        self, dataset: DatasetReader, bands: Sequence[int], grid: Grid, resampling: Resampling
    ):
        self._dataset, self._bands, self._grid = dataset, list(bands), grid
        self._resampling = resampling
        self._scaling = BandScaling.of(dataset).choose(self._bands, name_raster(dataset))
        self.dtype = self._scaling.find_dtype(dataset.dtypes[self._bands[0] - 1])
        self.bytes_per_pixel = count_bytes(self.dtype, bands)
        self._layer = AlignedLayer(Whole(dataset), self._bands, grid, resampling)
        own = place_raster(dataset).grid
        self._own = face(own, grid)
        lattice = find_lattice(self._own, grid)
        self._lattice = lattice if lattice is not None and lattice.contains(grid) else None

    def __enter__(self) -> _AlignedRaster:
        return self

    def __exit__(self, *exception: object):
        pass

    @property
    def is_resampled(self) -> bool:
        return self._layer.is_resampled

    def touches(self, window: Window) -> bool:
        return True

    def read(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        # After resampling: it is linear too.
        return self._scaling.apply(*self._read_stored(window, shape))

    def _read_stored(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if self._lattice is not None:
            own = self._lattice.find(window)
            return self._lattice.turn(*read_pixels(self._dataset, self._bands, own, shape))
        if shape != (window.height, window.width):
            coarse = self._grid.crop(window).redivide(*shape)
            return warp_overview(self._dataset, self._own, self._bands, coarse, self._resampling)
        return self._layer.read(window, shape)


class _AlignedMosaic:
    """The sheets of a mosaic on a grid, the upper ones first where they hold data."""

    def __init__(self, mosaic: Mosaic, bands: Sequence[int], grid: Grid, resampling: Resampling):
        self.dtype = mosaic.find_dtype(bands)
        self.bytes_per_pixel = count_bytes(self.dtype, bands)
        self._bands = list(bands)
        self._sheets = [
            AlignedLayer(sheet, self._bands, grid, resampling) for sheet in mosaic.sheets
        ]

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
        image_CHW = np.zeros((len(self._bands), *shape), self.dtype)
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
