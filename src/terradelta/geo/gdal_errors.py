"""Recognizes errors of GDAL, some of which have no public class in rasterio."""

from __future__ import annotations


def is_gdal_error(error: Exception) -> bool:
    """Return whether an error comes from rasterio or, through it, from GDAL.

    `rasterio.shutil.copy`, `rasterio.warp.transform` and `WarpedVRT` raise `RasterioError`, and
    also errors whose base class rasterio keeps private.
    """
    return type(error).__module__.partition(".")[0] == "rasterio"
