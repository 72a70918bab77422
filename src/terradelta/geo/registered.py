"""Windows of registered sources, as if read from files: nodata, masks and reduced pictures.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rasterio.io import MemoryFile
from rasterio.windows import Window

from terradelta.errors import RasterError, TerradeltaError
from terradelta.geo.grid import cut_window
from terradelta.geo.readers import open_registered
from terradelta.geo.source import open_source, read_pixels

STRIP_PIXELS = 2**22
"""Pixels of a source in memory at a time if only one pixel in many is kept."""


class RegisteredSource:
    """A source of a registered reader, read like a file.

    Args:
        path: Its path.
        nodata: A stored value that means no data, besides the source's own.

    Raises:
        RasterError: If it cannot be opened.
    """

    def __init__(self, path: str, nodata: float | None = None):
        self._path = path
        self._nodata = nodata
        self._source = open_registered(path)

    def close(self):
        """Close the source."""
        self._source.close()

    def read(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a window, (C, *shape), and where it holds data, bool; see `read_pixels`.

        Raises:
            RasterError: If the source fails, or returns other shapes or data types than it states.
        """
        image_CHW = self._pick(bands, window, shape)
        grid = self._source.grid.crop(window).redivide(*shape)
        profile = {
            "driver": "GTiff",
            "count": len(bands),
            "height": shape[0],
            "width": shape[1],
            "dtype": self._source.dtype,
            "nodata": self._source.nodata,
            "crs": grid.crs,
            "transform": grid.transform,
            "interleave": "band",
            # Four bands of 8 bits would be read as colours and alpha.
            "photometric": "MINISBLACK",
            "alpha": "NO",
        }
        with MemoryFile() as memory:
            with memory.open(**profile) as dataset:
                dataset.write(image_CHW)
            with open_source(memory.name, nodata=self._nodata) as dataset:
                whole = cut_window(0, 0, shape[1], shape[0])
                return read_pixels(dataset, range(1, len(bands) + 1), whole, name=self._path)

    def _pick(self, bands: Sequence[int], window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return the pixels of a window; with a step, those in the middle of each step."""
        height, width = int(window.height), int(window.width)
        if shape == (height, width):
            return self._read(bands, window)
        row_H, column_W = (
            ((np.arange(kept) + 0.5) * length / kept).astype(int)
            for kept, length in zip(shape, (height, width), strict=True)
        )
        image_CHW = np.empty((len(bands), *shape), self._source.dtype)
        rows = max(1, STRIP_PIXELS // width)
        for top in range(0, height, rows):
            inside_H = (row_H >= top) & (row_H < top + rows)
            if inside_H.any():
                strip = cut_window(
                    int(window.col_off),
                    int(window.row_off) + top,
                    width,
                    min(rows, height - top),
                )
                pixels_CHW = self._read(bands, strip)
                image_CHW[:, inside_H] = pixels_CHW[:, row_H[inside_H] - top][..., column_W]
        return image_CHW

    def _read(self, bands: Sequence[int], window: Window) -> np.ndarray:
        place = f"rows {window.row_off} to {window.row_off + window.height}"
        try:
            image_CHW = self._source.read(list(bands), window)
            seen = getattr(image_CHW, "shape", None), str(getattr(image_CHW, "dtype", None))
        except TerradeltaError:
            raise
        except Exception as error:
            raise RasterError(
                f"{self._path}: its reader cannot read {place}: {type(error).__name__}: {error}",
                fix="correct the reader, or run the same command again if the error is temporary",
            ) from error
        wanted = (len(bands), int(window.height), int(window.width)), self._source.dtype
        if seen != wanted or not isinstance(image_CHW, np.ndarray):
            raise RasterError(
                f"{self._path}: its reader returned {type(image_CHW).__name__} {seen} for {place}, "
                f"expected ndarray {wanted}",
                fix="correct the reader: a window of C bands is an array (C, rows, columns)",
            )
        return image_CHW
