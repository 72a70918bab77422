"""Reads the header of a raster, once for each file of a mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from terradelta.errors import RasterError
from terradelta.extensions import find_reader
from terradelta.geo.bands import describe_bands
from terradelta.geo.grid import Grid, allow_no_place
from terradelta.geo.listing import is_file, is_remote, locate, split_files
from terradelta.geo.placement import choose_reference, place_raster
from terradelta.geo.scaling import BandScaling
from terradelta.geo.source import describe_source, open_header, open_source
from terradelta.geo.virtual import count_bands

FETCHED_AT_ONCE = 32
"""Threads: reading a header over a network is mostly waiting."""
MAX_REMEMBERED = 100_000


class Header(NamedTuple):
    """The header of one raster of a mosaic, as read: colours in place of a palette."""

    name: str
    """Its grid."""
    grid: Grid
    """Its pixels."""
    dtypes: tuple[str, ...]
    """Of its bands."""
    colorinterp: tuple[ColorInterp, ...]
    """Of its bands."""
    descriptions: tuple[str | None, ...]
    """Of its bands."""
    nodata: float | None
    """Of its first band."""
    sha256: str
    """Hash of the header; see `describe_source`."""
    scaling: BandScaling
    """Scale and offset of its stored numbers."""
    counts: tuple[int, ...]
    """Number of bands of each of its files."""

    @property
    def data_dtypes(self) -> dict[int, str]:
        """Number and data type of the bands except alpha."""
        pairs = zip(self.dtypes, self.colorinterp, strict=True)
        return {
            number: dtype
            for number, (dtype, colour) in enumerate(pairs, start=1)
            if colour != ColorInterp.alpha
        }

    @property
    def names(self) -> dict[int, str]:
        """Number and name of each band; see `describe_bands`."""
        return describe_bands(self)


def read_headers(paths: Sequence[str]) -> list[Header]:
    """Return the headers of rasters, opening each file once per process.

    Raises:
        RasterError: If one cannot be opened or has no coordinate reference system.
    """
    headers = []
    with allow_no_place(), ThreadPoolExecutor(FETCHED_AT_ONCE, "headers") as pool:
        for first in range(0, len(paths), FETCHED_AT_ONCE):
            part = paths[first : first + FETCHED_AT_ONCE]
            list(pool.map(_fetch, filter(is_remote, chain.from_iterable(map(split_files, part)))))
            # A registered source is read each time: a change of it cannot be detected.
            headers += [
                _read_header(path, _stamp(path))
                if find_reader(path) is None
                else _read_header.__wrapped__(path, ())
                for path in part
            ]
    return headers


def _fetch(path: str):
    """Let GDAL fetch a header and cache it until the raster is opened.

    rasterio holds Python's lock while it opens a raster, so that it would wait for servers one
    after the other, but not while it reads; and GDAL opens other files while it reads a virtual
    raster.
    """
    size = 'RasterXSize="1" RasterYSize="1"'
    rectangle = 'xOff="0" yOff="0" xSize="1" ySize="1"'
    xml = (
        '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{escape(locate(path))}</SourceFilename>"
        f'<SourceBand>1</SourceBand><SourceProperties {size} DataType="Byte"/>'
        f"<SrcRect {rectangle}/><DstRect {rectangle}/></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    # Errors appear when it is opened.
    with suppress(RasterioError), rasterio.open(xml) as dataset:
        dataset.read(1)


def _stamp(path: str) -> tuple[tuple[int, int], ...]:
    """Return a key that changes with a raster; GDAL itself caches remote ones."""
    statuses = (Path(file).stat() for file in split_files(path) if is_file(file))
    return tuple((status.st_mtime_ns, status.st_size) for status in statuses)


@lru_cache(MAX_REMEMBERED)
def _read_header(path: str, stamp: tuple[tuple[int, int], ...]) -> Header:
    with open_header(path) as raw:
        has_place = raw.crs is not None and choose_reference(raw) is None
        is_plain = has_place and ColorInterp.palette not in raw.colorinterp
        if is_plain:
            return _summarize(raw, raw, path)
        # An alpha band is kept: checking it would need its pixels.
        with open_source(path) as dataset:
            return _summarize(dataset, raw, path)


def _summarize(dataset: DatasetReader, raw: DatasetReader, path: str) -> Header:
    placement = place_raster(dataset, path)
    grid = placement.grid
    if grid.crs is None:
        reason = (
            f"{placement.caution.message}, so"
            if placement.caution
            else (f"{path} has no coordinate reference system, so")
        )
        raise RasterError(
            f"{reason} it cannot be part of a mosaic",
            fix=f"assign one, for example: gdal_edit.py -a_srs EPSG:CODE {path}",
        )
    return Header(
        path,
        replace(grid, crs=_share(grid.crs.to_wkt())),
        dataset.dtypes,
        dataset.colorinterp,
        dataset.descriptions,
        dataset.nodata,
        describe_source(raw, path).header_sha256,
        BandScaling.of(dataset),
        tuple(count_bands(dataset)),
    )


@lru_cache(4096)
def _share(wkt: str) -> CRS:
    """Return one object per CRS: thousands of rasters share few, which are slow to compare."""
    return CRS.from_wkt(wkt)
