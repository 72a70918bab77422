"""Records of the rasters that a map was made from, and of the files that they were read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from terradelta.fields import COUNT, UNLESS_NONE, Within, written_if

LARGEST_SIDE_PX = 2**31 - 1

Count = Annotated[int, COUNT]
Side = Annotated[int, Within(least=1, most=LARGEST_SIDE_PX)]
Kept = Any
"""A value that is only recorded: a raster may hold anything, and it is written unchanged."""


@dataclass(frozen=True, kw_only=True)
class RasterRecord:
    """A raster or mosaic that was read."""

    path: str | tuple[str, ...]
    driver: str = ""
    sources: Count | None = field(default=None, metadata=UNLESS_NONE)
    """Rasters of a mosaic."""
    sheets: Count | None = field(default=None, metadata=UNLESS_NONE)
    """Number of its pixel lattices."""
    width: Side
    height: Side
    bands: Count
    dtypes: tuple[str, ...]
    crs: str | None = None
    transform: Kept = None
    nodata: Kept = None
    scales: Kept = field(default=None, metadata=UNLESS_NONE)
    """Scale of stored numbers, if they are not the values."""
    offsets: Kept = field(default=None, metadata=UNLESS_NONE)
    dates: tuple[str, ...] | None = field(
        default=None, metadata=written_if(lambda raster: raster.sources is not None)
    )
    """The first and the last moment of the STAC items of a mosaic."""
    size_bytes: Count | None = None
    header_sha256: str


@dataclass(frozen=True)
class OriginRecord:
    """A file that a raster was read from, as it was then."""

    path: str
    size_bytes: Count
    modified_ns: int
    sampled_bytes: Count
    """Bytes that the hash covers, if the file has more; see `describe_origins`."""
    sha256: str
