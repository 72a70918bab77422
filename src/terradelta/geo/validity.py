"""Decides which pixels of a raster hold data, in the same way for all readers.

A pixel has no data if a mask or an alpha band says so, if a band that is read holds a
nodata value, or if a float is NaN or a number that no sensor measures. The pixels themselves
show nodata, so only masks need another read.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.virtual import NAMESPACE, is_masked, name_raster

IMPOSSIBLE = 1e30
"""No sensor measures a float of this size, but -3.4e38 and the like are common fill values."""
ROUNDING = 2
"""Tolerance of float nodata values, in units of the data type's precision: they are stored as
text."""


def find_valid(
    dataset: DatasetReader | WarpedVRT, bands: Sequence[int], image_CHW: np.ndarray, window: Window
) -> np.ndarray:
    """Return where pixels of a raster hold data, (H, W) bool.

    A nodata value makes a pixel invalid in any of the bands. In 8-bit files 0 and
    255 are also colours, so in them all read bands of a file must have it.

    Args:
        dataset: The raster, from `open_source`, or a warped view of it.
        bands: The bands that were read, by number from 1.
        image_CHW: Their values, as stored.
        window: The window, maybe read as another number of pixels.
    """
    valid_HW = _read_masks(dataset, bands, window, image_CHW.shape[1:])
    for hole_HW in _find_nodata(dataset, bands, image_CHW):
        valid_HW &= ~hole_HW
    if image_CHW.dtype.kind == "f":
        valid_HW &= is_possible(image_CHW)
    return valid_HW


def is_possible(image_CHW: np.ndarray) -> np.ndarray:
    """Return where all bands hold possible measurements, (H, W) bool."""
    return np.all((image_CHW < IMPOSSIBLE) & (image_CHW > -IMPOSSIBLE), axis=0)


def require_nodata(dataset: DatasetReader, value: float):
    """Raise unless a raster's bands can hold a nodata value that was given.

    Raises:
        RasterError: If they cannot.
    """
    if any(_bound(np.dtype(kind), value) is not None for kind in dataset.dtypes):
        return
    raise RasterError(
        f"{name_raster(dataset)} holds {'/'.join(dict.fromkeys(dataset.dtypes))}, which is never "
        f"the nodata value {value:g}" + ("; NaN is never data" if not np.isfinite(value) else ""),
        fix="give a value that it holds, for the date that holds it: --nodata before=VALUE or "
        "--nodata after=VALUE",
    )


def _read_masks(
    dataset: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    window: Window,
    shape: tuple[int, ...],
) -> np.ndarray:
    if isinstance(dataset, WarpedVRT):
        # The alpha band itself: GDAL uses it as a mask only with one or three 8-bit bands.
        alpha = dataset.colorinterp.index(ColorInterp.alpha) + 1
        return dataset.read(alpha, window=window, out_shape=shape) > 0
    flags = dataset.mask_flag_enums
    masked = [band for band in dict.fromkeys(bands) if is_masked(flags[band - 1])]
    shared = [band for band in masked if MaskFlags.per_dataset in flags[band - 1]]
    wanted = [band for band in masked if band not in shared[1:]]
    if not wanted:
        # GDAL would make it for the whole window at full resolution, however small `shape` is.
        return np.ones(shape, bool)
    masks = dataset.read_masks(wanted, window=window, out_shape=(len(wanted), *shape))
    return (masks > 0).all(axis=0)


def _find_nodata(
    dataset: DatasetReader | WarpedVRT, bands: Sequence[int], image_CHW: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield where files hold their nodata values, (H, W) bool."""
    tags = dataset.tags(ns=NAMESPACE)
    given = [float(tags["nodata"])] if "nodata" in tags else []
    files = tags["files"].split() if "files" in tags else [""] * dataset.count
    holes = defaultdict(list)
    for band, index in {band: index for index, band in enumerate(bands)}.items():
        declared = dataset.nodatavals[band - 1]
        values = given if declared is None else [*given, declared]
        ranges = [_bound(image_CHW.dtype, value) for value in values]
        parts = [_lies_in(image_CHW[index], bounds) for bounds in ranges if bounds is not None]
        if parts:
            holes[files[band - 1]].append(np.logical_or.reduce(parts))
    combine = np.logical_and if image_CHW.dtype.itemsize == 1 else np.logical_or
    for parts in holes.values():
        yield combine.reduce(parts)


def _bound(kind: np.dtype, value: float) -> tuple[float, float] | None:
    """Return the least and the largest number that count as the nodata value, or None."""
    if not np.isfinite(value):
        return None
    if kind.kind == "f":
        largest = float(np.finfo(kind).max)
        slack = ROUNDING * float(np.finfo(kind).eps) * abs(value)
        low, high = np.clip((value - slack, value + slack), -largest, largest).tolist()
        return low, high
    limits = np.iinfo(kind)
    is_held = float(value).is_integer() and limits.min <= value <= limits.max
    return (value, value) if is_held else None


def _lies_in(band_HW: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    if band_HW.dtype.kind != "f":
        return band_HW == int(low)
    return (band_HW >= low) & (band_HW <= high)
