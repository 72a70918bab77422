"""Writer of class maps: windows in, a cloud-optimised GeoTIFF with palette and names out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from terradelta.geo.grid import Grid

BLOCK_SIZE_PX = 512


class MapWriter:
    """A one-band map, written window by window; a context manager that leaves a COG at `path`.

    Args:
        path: Where the finished map goes.
        grid: Its pixels.
        dtype: numpy data type of the map.
        nodata: Value of invalid pixels, and of pixels never written.
        palette: Colour (red, green, blue) of each value; none for a continuous map.
        names: Name of each value; kept in the band's tags as `class_N`.
        description: What the band holds.
        resampling: How overviews are made: "MODE" for classes, "AVERAGE" for quantities.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        dtype: str,
        nodata: int,
        description: str,
        palette: Mapping[int, tuple[int, int, int]] | None = None,
        names: Mapping[int, str] | None = None,
        resampling: str = "MODE",
    ):
        self.path = path
        self._resampling = resampling
        self._scratch = path.with_suffix(".scratch.tif")
        self._dataset = rasterio.open(
            self._scratch,
            "w",
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=1,
            dtype=dtype,
            crs=grid.crs,
            transform=grid.transform,
            nodata=nodata,
            tiled=True,
            blockxsize=BLOCK_SIZE_PX,
            blockysize=BLOCK_SIZE_PX,
            compress="deflate",
            bigtiff="if_safer",
        )
        self._dataset.set_band_description(1, description)
        if palette is not None:
            self._dataset.write_colormap(1, dict(palette))
        if names is not None:
            self._dataset.update_tags(
                1, **{f"class_{value}": name for value, name in names.items()}
            )

    def write(self, map_HW: np.ndarray, window: Window):
        """Write a window of the map, (H, W) in the map's data type."""
        self._dataset.write(map_HW, 1, window=window)

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object):
        self._dataset.close()
        try:
            if kind is None:
                self._finish()
        finally:
            self._scratch.unlink(missing_ok=True)

    def _finish(self):
        rasterio.shutil.copy(
            self._scratch,
            self.path,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=str(BLOCK_SIZE_PX),
            OVERVIEW_RESAMPLING=self._resampling,
            BIGTIFF="IF_SAFER",
        )
