"""A reduced copy of an image without overviews, so that all of it can be seen at once.

To show a file without overviews small, GDAL reads all of it: many seconds for each tile. Such an
image is read once, in the background, into a small temporary file.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter

from terradelta.errors import TerradeltaError
from terradelta.geo.grid import cut_window
from terradelta.geo.source import read_pixels

LARGE_PX = 4096
"""Side from which an image without overviews gets a reduced copy."""
FACTOR = 4
"""Pixels of the image along the side of a pixel of the copy."""
ZOOMS = 2
"""The same as a number of zoom levels."""
ROWS = 256
"""Rows of the copy made at once."""
OVERVIEWS = (2, 4, 8, 16, 32)

logger = logging.getLogger(__name__)


class Reduction:
    """The reduced copy of one image, in colours, and the thread that makes it.

    Args:
        opened: Returns the image, opened, as a context manager.
        bands: Numbers of its red, green and blue bands.
        stretch: Maps stored values (C, H, W) to uint8.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[DatasetReader]],
        bands: list[int],
        stretch: Callable[[np.ndarray], np.ndarray],
    ):
        self._opened, self._bands, self._stretch = opened, bands, stretch
        folder = tempfile.mkdtemp(prefix="terradelta-view-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "reduced.tif"
        self.done_share = 0.0
        """Share of the image that has been read, 0 to 1."""
        self.is_done = False
        self._thread = threading.Thread(target=self._make, name="reduction", daemon=True)
        self.error: str | None = None
        """The error if no copy can be made."""

    @staticmethod
    def is_needed(dataset: DatasetReader) -> bool:
        """Return whether an image is large and has no overviews."""
        return max(dataset.width, dataset.height) > LARGE_PX and not dataset.overviews(1)

    def start(self):
        """Make the copy in the background; the process may end before it is done."""
        self._thread.start()

    def join(self):
        """Wait until the copy is done or has failed."""
        self._thread.join()

    def open(self) -> DatasetReader:
        """Open the copy, which must be done: three bands and a mask."""
        return rasterio.open(self.path)

    def _make(self):
        try:
            with self._opened() as source, self._create(source) as target:
                for row in range(0, target.height, ROWS):
                    self._copy(source, target, row)
                    self.done_share = min(row + ROWS, target.height) / target.height
            with rasterio.open(self.path, "r+") as target:
                target.build_overviews(OVERVIEWS, Resampling.average)
        except (RasterioError, TerradeltaError, OSError) as error:
            self.error = str(error)
            logger.warning("no reduced copy could be made: %s", error)
        else:
            self.is_done = True

    def _create(self, source: DatasetReader) -> DatasetWriter:
        return rasterio.open(
            self.path,
            "w",
            driver="GTiff",
            width=-(-source.width // FACTOR),
            height=-(-source.height // FACTOR),
            count=4,
            dtype="uint8",
            crs=source.crs,
            transform=source.transform @ Affine.scale(FACTOR),
            tiled=True,
            compress="deflate",
            zlevel=1,
            photometric="RGB",
            alpha="unspecified",
        )

    def _copy(self, source: DatasetReader, target: DatasetWriter, row: int):
        rows = min(ROWS, target.height - row)
        height = min(rows * FACTOR, source.height - row * FACTOR)
        window = cut_window(0, row * FACTOR, source.width, height)
        shape = rows, target.width
        image_CHW = source.read(
            self._bands,
            window=window,
            out_shape=(3, *shape),
            resampling=Resampling.average,
            masked=False,
        )
        # Averages no longer hold the nodata values.
        _, valid_HW = read_pixels(source, self._bands, window, shape)
        part = cut_window(0, row, target.width, rows)
        target.write(self._stretch(image_CHW), [1, 2, 3], window=part)
        target.write(np.where(valid_HW, 255, 0).astype(np.uint8), 4, window=part)
        target.colorinterp = (
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        )
