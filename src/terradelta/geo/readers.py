"""Your own sources of pixels: readers registered for a scheme or an ending of a path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.dtypes import dtype_rev
from rasterio.io import DatasetReader

from terradelta.errors import ArgumentError, RasterError, TerradeltaError
from terradelta.extensions import READERS, find_reader
from terradelta.geo.grid import Grid, allow_no_place
from terradelta.geo.listing import LIST_ENDINGS, OBJECT_STORES, STAC_ENDINGS
from terradelta.geo.virtual import NAMESPACE, name_gdal_type
from terradelta.protocols import Source

_TAKEN = (*LIST_ENDINGS, *STAC_ENDINGS, *OBJECT_STORES, "http", "https", "file", "zip", "tar")
_NAME = re.compile(r"\.[a-z0-9._-]+|[a-z][a-z0-9+-]*")


def register_reader(name: str, create: Callable[[str], Source]):
    """Add a reader of rasters, whose paths may then be used wherever rasters are read.

    `check`, `predict`, `plan` and `view` accept these paths: alone, in mosaics with files, and as
    masks. A package offers one as an entry point of the group "terradelta.readers"; this needs no
    call, and is the only way for the workers of a cluster, which are other processes.

    Args:
        name: A scheme, such as "cube" for paths that begin with cube://; or an ending, such as
            ".npz". An ending comes before GDAL's own reader of such files.
        create: Opens a path; see `terradelta.protocols.Source`. It may be called several times for
            one path.

    Raises:
        ArgumentError: If the name is taken or is neither a scheme nor an ending.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise ArgumentError(
            f"{name!r} cannot be the name of a reader",
            fix="use a scheme in lower case such as 'cube', or an ending such as '.npz', but none "
            f"of {', '.join(_TAKEN)}",
        )
    READERS.register(name, create)


def open_registered(path: str) -> Source:
    """Open a path with its registered reader; `close` it.

    Raises:
        RasterError: If the reader fails, or its source lacks an attribute.
    """
    name = find_reader(path)
    assert name is not None
    try:
        source = READERS[name](path)
        _require_source(source, path, name)
        return source
    except TerradeltaError:
        raise
    except Exception as error:
        raise RasterError(
            f"{path} cannot be opened by the reader {name!r}: {type(error).__name__}: {error}",
            fix="give a path that this reader can read, or correct the reader",
        ) from error


@dataclass(frozen=True)
class _Stated:
    """The attributes of a source."""

    grid: Grid
    count: int
    dtype: str
    nodata: float | None
    band_names: tuple[str | None, ...]
    version: str


def _state(source: Source) -> _Stated:
    return _Stated(
        source.grid,
        source.count,
        source.dtype,
        source.nodata,
        tuple(source.band_names),
        source.version,
    )


def _require_source(source: Source, path: str, name: str):
    stated = _state(source)
    if not isinstance(stated.grid, Grid) or stated.grid.crs is None:
        what, wanted = f"the grid {stated.grid!r}", "a terradelta.Grid with a CRS"
    elif not isinstance(stated.count, int) or stated.count < 1:
        what, wanted = f"the count {stated.count!r}", "a whole number of 1 or more"
    elif stated.dtype not in dtype_rev or np.dtype(stated.dtype).kind not in "uif":
        what, wanted = f"the dtype {stated.dtype!r}", "an integer or a float, such as 'uint16'"
    elif len(stated.band_names) != stated.count:
        what = f"{len(stated.band_names)} band_names and the count {stated.count}"
        wanted = "a name or None for each band"
    elif not _holds(stated.dtype, stated.nodata):
        what = f"the nodata {stated.nodata!r} and the dtype {stated.dtype!r}"
        wanted = "a value of that type, or None"
    else:
        return
    raise RasterError(
        f"{path}: the source of the reader {name!r} has {what}, expected {wanted}",
        fix="correct the reader",
    )


def _holds(dtype: str, nodata: float | None) -> bool:
    if nodata is None or np.dtype(dtype).kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(nodata).is_integer() and limits.min <= nodata <= limits.max


def describe_empty(source: Source, path: str) -> DatasetReader:
    """Return a raster that has everything of a source except the pixels, like a header."""
    stated = _state(source)
    value = "" if stated.nodata is None else f"<NoDataValue>{float(stated.nodata)!r}</NoDataValue>"
    bands = "".join(
        f'<VRTRasterBand dataType="{name_gdal_type(stated.dtype)}" band="{number}">'
        + (f"<Description>{escape(name)}</Description>" if name else "")
        + f"{value}</VRTRasterBand>"
        for number, name in enumerate(stated.band_names, start=1)
    )
    grid = stated.grid
    assert grid.crs is not None
    place = ", ".join(repr(number) for number in grid.transform.to_gdal())
    files = " ".join("0" for _ in stated.band_names)
    with allow_no_place():
        return rasterio.open(
            f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">'
            f"<SRS>{escape(grid.crs.to_wkt())}</SRS><GeoTransform>{place}</GeoTransform>"
            f'<Metadata><MDI key="version">{escape(stated.version)}</MDI></Metadata>'
            f'<Metadata domain="{NAMESPACE}"><MDI key="name">{escape(path)}</MDI>'
            f'<MDI key="files">{files}</MDI></Metadata>{bands}</VRTDataset>'
        )
