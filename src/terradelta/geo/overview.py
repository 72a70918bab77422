"""A reduced raster on another grid: decimated when read, then resampled.

On a fine grid every pixel would be resampled, of which the picture keeps one in thousands, and
overviews of the file would not be used.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np
import rasterio.warp
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.source import WARP_TOLERANCE_PX, read_pixels

MARGIN_PX = 2
"""Margin of the decimated raster: bilinear resampling reads neighbours."""
ANYWHERE = CRS.from_epsg(3857)
"""CRS of pictures without a place: GDAL needs one, even if both have the same."""
OPAQUE = 100
"""Value for valid in a mask band of any data type."""


def warp_overview(
    dataset: DatasetReader,
    own: Grid,
    bands: list[int],
    target: Grid,
    resampling: Resampling = Resampling.bilinear,
) -> tuple[np.ndarray, np.ndarray]:
    """Read a raster on a grid of pixels as large as its own or larger.

    Args:
        dataset: The raster.
        own: Its pixels, with longitudes in the target's range.
        bands: Bands to read, by number from 1.
        target: The pixels to read.
        resampling: Resampling of the decimated raster.

    Returns:
        The bands, (C, H, W) of the raster's own data type, and where they hold data, (H, W) bool.

    Raises:
        RasterError: If the pixels cannot be read.
    """
    needed = own.find_window(target)
    if needed is None:
        shape = target.height, target.width
        empty_CHW = np.zeros((len(bands), *shape), dataset.dtypes[bands[0] - 1])
        return empty_CHW, np.zeros(shape, bool)
    step = max(1.0, _measure_step(own.crop(needed), target))
    if resampling == Resampling.nearest:
        # The pixels of an overview unchanged: nearest neighbour twice may shift far.
        step = 2.0 ** int(math.log2(step))
    window = _widen(needed, math.ceil(MARGIN_PX * step), own)
    size = math.ceil(window.height / step), math.ceil(window.width / step)
    image_CHW, valid_HW = read_pixels(dataset, bands, window, size)
    return warp_picture(image_CHW, valid_HW, own.crop(window).redivide(*size), target, resampling)


def warp_picture(
    image_CHW: np.ndarray,
    valid_HW: np.ndarray,
    own: Grid,
    target: Grid,
    resampling: Resampling = Resampling.bilinear,
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a picture to other pixels of about the same size.

    Args:
        image_CHW: The picture.
        valid_HW: Where it holds data, bool.
        own: Its pixels, with longitudes in the target's range.
        target: The pixels to resample to.
        resampling: The resampling.

    Returns:
        The picture on them, (C, H, W) of its own data type, and where it holds data, (H, W) bool.
    """
    warped_CHW = np.zeros((len(image_CHW) + 1, target.height, target.width), image_CHW.dtype)
    opacity_HW = np.where(valid_HW, OPAQUE, 0).astype(image_CHW.dtype)
    place = ANYWHERE if target.crs is None else None
    rasterio.warp.reproject(
        np.concatenate([np.where(valid_HW, image_CHW, 0), opacity_HW[None]]),
        warped_CHW,
        src_crs=place or own.crs,
        src_transform=own.transform,
        dst_crs=place or target.crs,
        dst_transform=target.transform,
        resampling=resampling,
        tolerance=WARP_TOLERANCE_PX,
        src_alpha=len(warped_CHW),
        dst_alpha=len(warped_CHW),
        SRC_ALPHA_MAX=str(OPAQUE),
        DST_ALPHA_MAX=str(OPAQUE),
    )
    return warped_CHW[:-1], warped_CHW[-1] > 0


def _measure_step(own: Grid, target: Grid) -> float:
    """Return about how many pixels of a grid are as wide as one pixel of another."""
    transform = own.transform
    if own.crs != target.crs:
        assert own.crs is not None
        transform, _, _ = rasterio.warp.calculate_default_transform(
            own.crs, target.crs, own.width, own.height, *own.bounds
        )
    return math.sqrt(abs(target.transform.determinant / transform.determinant))


def _widen(window: Window, margin: int, grid: Grid) -> Window:
    """Return a window with a margin, within its grid."""
    left, top = max(0, window.col_off - margin), max(0, window.row_off - margin)
    right = min(grid.width, window.col_off + window.width + margin)
    bottom = min(grid.height, window.row_off + window.height + margin)
    return cut_window(left, top, right - left, bottom - top)
