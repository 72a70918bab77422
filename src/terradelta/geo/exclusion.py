"""Masks: pixels of a date to leave out, such as clouds, shadows and seams.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.aligned import align
from terradelta.geo.grid import Grid
from terradelta.geo.listing import list_rasters, name_source
from terradelta.geo.mosaic import Mosaic, describe_images
from terradelta.geo.raster_record import RasterRecord
from terradelta.geo.source import open_raster
from terradelta.geo.virtual import copy_values, open_virtual

PRESETS = {"scl": "0,1,3,8-10", "qa_pixel": "bits:0-4", "omnicloudmask": "1-3"}
"""Mask values of clouds and shadows in common products.

`scl`: the scene classification of Sentinel-2 L2A (ESA, Sen2Cor), in which 0 means no data, 1
saturated or defective, 3 cloud shadow, 8 and 9 cloud of medium and high probability, 10 thin
cirrus. `qa_pixel`: Landsat Collection 2 (USGS); its bits 0 to 4 are fill, dilated cloud, cirrus,
cloud, cloud shadow. `omnicloudmask`: the classes of that package, 1 thick cloud, 2 thin cloud, 3
shadow.
"""
MAX_BIT = 63


@dataclass(frozen=True)
class MaskValues:
    """The values of a mask that leave a pixel out."""

    ranges: tuple[tuple[int, int], ...] = ()
    """Least and largest value of each range, both included."""
    bits: tuple[tuple[int, int], ...] = ()
    """First and last bit of each range of a bit field; any set bit counts."""

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read "3,8-11", "bits:3,4" or the name of a product; without a text, any value except 0.

        Raises:
            ArgumentError: If the text is not valid.
        """
        if text is None:
            return cls()
        rule = PRESETS.get(text.strip().lower(), text.strip())
        is_bits = rule.lower().startswith("bits:")
        parts = rule[len("bits:") :] if is_bits else rule
        matches = [
            re.fullmatch(r"\s*(-?\d+)(?:\s*-\s*(-?\d+))?\s*", part) for part in parts.split(",")
        ]
        ranges = tuple((int(m[1]), int(m[2] or m[1])) for m in matches if m is not None)
        is_known = len(ranges) == len(matches) and all(low <= high for low, high in ranges)
        if is_bits:
            is_known = is_known and all(low >= 0 and high <= MAX_BIT for low, high in ranges)
        if not is_known:
            raise ArgumentError(
                f"{text!r} names no values of a mask",
                fix="list values and ranges, --mask-values 3,8-11, bits of a bit field, "
                f"--mask-values bits:3,4, or use one of {', '.join(PRESETS)}",
            )
        return cls(bits=ranges) if is_bits else cls(ranges=ranges)

    def find(self, values_HW: np.ndarray) -> np.ndarray:
        """Return the pixels to leave out, (H, W) bool.

        Args:
            values_HW: Values of the mask.
        """
        if self.bits:
            field = sum(1 << bit for low, high in self.bits for bit in range(low, high + 1))
            return (values_HW.astype(np.int64).view(np.uint64) & np.uint64(field)) != 0
        if self.ranges:
            found = [(values_HW >= low) & (values_HW <= high) for low, high in self.ranges]
            return np.logical_or.reduce(found)
        return values_HW != 0


class Exclusion:
    """The mask of one date on the grid of a map; a context manager.

    Its pixels are the nearest to the map's. Only its values count: declared nodata is a
    value like any other. Where it has no pixels, nothing is left out.

    Args:
        path: A raster of one band, or a list of such; see `list_rasters`.
        values: Its values that leave a pixel out.
        grid: Grid of the image of its date.

    Raises:
        RasterError: If it cannot be opened, does not have one band of real numbers, or lies
            elsewhere.
    """

    def __init__(self, path: str | Path, values: MaskValues, grid: Grid):
        self._path, self._values = path, values
        self._exits = ExitStack()
        try:
            # Opened twice, as it is to identify it, and for one raster also as bare values to read.
            images, self._original = self._exits.enter_context(_open_mask(path))
            _require_band(images, path, values)
            _require_overlap(images, path, grid)
            self._aligned = self._exits.enter_context(align(images, [1], grid, Resampling.nearest))
        except BaseException:
            self._exits.close()
            raise

    def __enter__(self) -> Exclusion:
        return self

    def __exit__(self, *exception: object):
        self._exits.close()

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of a pixel."""
        return self._aligned.bytes_per_pixel + 1

    def read(self, window: Window) -> np.ndarray:
        """Return the pixels of a window to leave out, (H, W) bool.

        Raises:
            RasterError: If it cannot be read.
        """
        shape = int(window.height), int(window.width)
        (values_HW,), covered_HW = self._aligned.read(window, shape)
        return covered_HW & self._values.find(values_HW)

    def describe(self) -> RasterRecord:
        """Return a description that identifies it; see `describe_source`."""
        return describe_images(self._original, self._path)


@contextmanager
def _open_mask(
    path: str | Path,
) -> Iterator[tuple[DatasetReader | Mosaic, DatasetReader | Mosaic]]:
    """Open a mask as its bare values and as it is."""
    paths = list_rasters(path)
    if paths is not None:
        with Mosaic(paths, name_source(path)) as mosaic:
            yield mosaic, mosaic
        return
    with closing(open_raster(path)) as dataset:
        files = [0] * dataset.count
        with open_virtual(dataset, copy_values(dataset), files) as bare:
            yield bare, dataset


def _require_band(images: DatasetReader | Mosaic, path: str | Path, values: MaskValues):
    name = name_source(path)
    if images.count != 1:
        raise RasterError(
            f"the mask {name} has {images.count} bands",
            fix=f"give a file of one band: gdal_translate -b 1 {name} mask.tif",
        )
    if values.bits and np.dtype(images.dtypes[0]).kind not in "ui":
        raise RasterError(
            f"the mask {name} holds {images.dtypes[0]}, which has no bits",
            fix="name its values: --mask-values 3,8-11",
        )


def _require_overlap(images: DatasetReader | Mosaic, path: str | Path, grid: Grid):
    name = name_source(path)
    if (images.crs is None) != (grid.crs is None):
        raise RasterError(
            f"the mask {name} has {images.crs or 'no coordinate reference system'}, and the map "
            f"has {grid.crs or 'none'}",
            fix=f"give both a CRS, for example: gdal_edit.py -a_srs EPSG:CODE {name}",
        )
    own = Grid.of(images)
    if grid.crs is None and (own.width, own.height) != (grid.width, grid.height):
        raise RasterError(
            f"the mask {name} is {own.width} x {own.height}, the images without a coordinate "
            f"reference system are {grid.width} x {grid.height}",
            fix="give a mask with the same pixels",
        )
    if grid.find_window(own) is None:
        raise RasterError(
            f"the mask {name} does not overlap the map: in {grid.crs} it covers "
            f"{own.bounds_in(grid.crs)} and the map {grid.bounds}",
            fix="give a mask of the same place, or leave --mask out",
        )
