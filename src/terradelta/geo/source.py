"""Opens one raster so that it reads like any other: georeferenced, in colours, with a true mask.

A raster may have ground control points instead of a transform, a colour table instead of
colours, or near infrared in a band declared as alpha. Such rasters are wrapped in a virtual raster.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.extensions import find_reader
from terradelta.geo.bands import Described, join_bands
from terradelta.geo.gdal_errors import is_gdal_error
from terradelta.geo.grid import OPEN_ERRORS, allow_no_place, cut_window
from terradelta.geo.listing import is_file, is_remote, locate, name_source, split_files
from terradelta.geo.pair_options import Bands
from terradelta.geo.placement import choose_reference, place_raster
from terradelta.geo.raster_record import RasterRecord
from terradelta.geo.readers import describe_empty, open_registered
from terradelta.geo.scaling import BandScaling
from terradelta.geo.validity import find_valid, require_nodata
from terradelta.geo.virtual import (
    NAMESPACE,
    copy_bands,
    copy_with_points,
    expand_palette,
    find_missing_sources,
    name_raster,
    open_virtual,
    stack_bands,
    tell_files,
)

WARP_TOLERANCE_PX = 0.01
"""Error of the approximated transformation; with GDAL's 0.125 a window differs from the same window
of a full read."""
ARCHIVES = {
    ".zip": "/vsizip/",
    ".tar": "/vsitar/",
    ".tgz": "/vsitar/",
    ".tar.gz": "/vsitar/",
    ".gz": "/vsigzip/",
}
NETWORK_SETTINGS = {
    "GDAL_HTTP_MAX_RETRY": "6",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
}
"""GDAL's options for servers that fail, are busy or hang; environment variables override them.
The delay in seconds about doubles with each try."""
READ_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before a window is read again over a network."""
HEADER_BYTES = 65_536
ALPHA_PROBES = 5
ALPHA_PROBE_SIZE_PX = 64
OPAQUE_SHARE = 0.9


@contextmanager
def open_source(
    path: str | Path, bands: Bands | None = None, nodata: float | None = None
) -> Iterator[DatasetReader]:
    """Open a raster for reading; a context manager.

    Args:
        path: A path, URL, `/vsi...` path, VRT, archive of one raster, or anything else GDAL opens.
        bands: Band numbers or names that will be read; an alpha band among them counts as data.
        nodata: A stored value that means no data, as if each band declared it.

    Raises:
        RasterError: If it cannot be opened, holds no bands, or can never hold that value.
    """
    # Closed, not entered: rasterio's own contexts must end in the thread that began them.
    with closing(open_raster(path)) as dataset, ExitStack() as exits:
        if nodata is not None:
            require_nodata(dataset, nodata)
        reference = choose_reference(dataset)
        if reference is None:
            place_raster(dataset)
        if _is_paletted(dataset):
            layers = expand_palette(dataset, nodata)
            yield exits.enter_context(open_virtual(dataset, layers, [0, 0, 0]))
        elif reference is not None:
            layers = copy_with_points(dataset, find_alpha(dataset, bands), nodata)
            pointed = exits.enter_context(open_virtual(dataset, layers, tell_files(dataset)))
            referenced = exits.enter_context(closing(_lay_down(pointed, *reference)))
            place_raster(referenced, name_raster(dataset))
            yield referenced
        elif _is_plain(dataset) and nodata is None:
            yield dataset
        else:
            layers = copy_bands(dataset, find_alpha(dataset, bands))
            files = tell_files(dataset)
            yield exits.enter_context(open_virtual(dataset, layers, files, nodata))


def require_plain(dataset: Described, bands: Sequence[int]):
    """Raise if the bands of a raster cannot be read as one array of real numbers.

    Raises:
        RasterError: If their data types differ or are complex.
    """
    kinds = [dataset.dtypes[band - 1] for band in bands]
    if len(set(kinds)) > 1 or kinds[0].startswith("complex"):
        name = name_raster(dataset)
        raise RasterError(
            f"{name} holds {', '.join(kinds)} in bands {', '.join(map(str, bands))}",
            fix="make them one real type, for example: "
            f"gdal_translate -ot Float32 {name} plain.tif",
        )


def has_false_alpha(dataset: DatasetReader, bands: Bands | None = None) -> bool:
    """Return whether a band that is declared alpha holds measurements, or is read as such.

    Many four-band images (NAIP is one) are written as RGB plus alpha although the fourth band is
    near infrared; its darkest pixels would count as holes. A true alpha band is mostly opaque
    or empty, so a few samples decide.
    """
    if ColorInterp.alpha not in dataset.colorinterp:
        return False
    number = dataset.colorinterp.index(ColorInterp.alpha) + 1
    if bands is not None and {str(number), "alpha"} & {str(band).lower() for band in bands}:
        return True
    kind = np.dtype(dataset.dtypes[number - 1])
    # Bands of 16 bits or floats may be masks of 8 bits, or of one.
    opaque = (1, 255, *((np.iinfo(kind).max,) if kind.kind in "ui" else ()))
    values = np.concatenate(
        [_probe(dataset, number, window).ravel() for window in _spread_windows(dataset)]
    )
    return bool(np.isin(values, (0, *opaque)).mean() < OPAQUE_SHARE)


def _probe(dataset: DatasetReader, band: int, window: Window) -> np.ndarray:
    try:
        return dataset.read(band, window=window)
    except RasterioError as error:
        raise _explain(name_raster(dataset), window, error) from error


def find_alpha(dataset: DatasetReader, bands: Bands | None = None) -> int | None:
    """Return the number of the alpha band that masks a raster; see `has_false_alpha`."""
    if ColorInterp.alpha not in dataset.colorinterp or has_false_alpha(dataset, bands):
        return None
    return dataset.colorinterp.index(ColorInterp.alpha) + 1


def _spread_windows(dataset: DatasetReader):
    size = min(ALPHA_PROBE_SIZE_PX, dataset.width, dataset.height)
    for row in np.linspace(0, dataset.height - size, ALPHA_PROBES).astype(int):
        for column in np.linspace(0, dataset.width - size, ALPHA_PROBES).astype(int):
            yield cut_window(int(column), int(row), size, size)


def open_raster(path: str | Path) -> DatasetReader:
    """Open a raster as it is; see `open_source` for one that reads like any other.

    Raises:
        RasterError: If it cannot be opened or holds no bands.
    """
    with allow_no_place():
        return open_header(path)


def open_header(path: str | Path) -> DatasetReader:
    """Open a raster as `open_raster` does, where warnings are handled already: threads cannot.

    Raises:
        RasterError: If it cannot be opened or holds no bands.
    """
    files = split_files(path)
    if len(files) == 1 and find_reader(files[0]) is not None:
        with closing(open_registered(files[0])) as source:
            return describe_empty(source, files[0])
    if len(files) == 1:
        return _open_file(files[0])
    for file in files:
        if find_reader(file) is not None:
            raise RasterError(
                f"{file} is read by a registered reader, and its bands cannot be joined to others",
                fix="let the reader return all bands",
            )
    with ExitStack() as opened:
        datasets = [opened.enter_context(closing(_open_file(file))) for file in files]
        return stack_bands(datasets, files, list(map(find_alpha, datasets)))


def _open_file(path: str) -> DatasetReader:
    location = locate(path)
    archive = next((a for end, a in ARCHIVES.items() if location.lower().endswith(end)), None)
    if archive is not None and is_file(location):
        location = f"{archive}{Path(location).resolve()}"
    if is_remote(location):
        for name, value in NETWORK_SETTINGS.items():
            # In the environment, which GDAL reads in every thread and child process.
            os.environ.setdefault(name, value)
    try:
        dataset = rasterio.open(location)
    except OPEN_ERRORS as error:
        if os.path.isdir(location):  # noqa: PTH112 - it returns False for names that are too long
            raise _refuse_folder(Path(location)) from error
        raise RasterError(
            f"{path} cannot be opened as a raster: {error}",
            fix="run the same command again when its server answers"
            if is_remote(location)
            else "give a raster that GDAL reads; `rio info FILE` shows whether it does",
        ) from error
    if dataset.count == 0:
        names = ", ".join(dataset.subdatasets) or "none"
        dataset.close()
        raise RasterError(
            f"{path} holds no bands, only subdatasets: {names}",
            fix="name one of the subdatasets instead of the container",
        )
    if dataset.driver == "VRT":
        # GDAL may silently read missing files as nodata.
        missing = find_missing_sources(path)
        if missing:
            dataset.close()
            raise _refuse_missing(path, missing)
    return dataset


def _refuse_folder(folder: Path) -> RasterError:
    joined = join_bands(folder, ("red", "green", "blue"))
    example = joined or "red.tif + green.tif + blue.tif"
    return RasterError(
        f"{folder} is a folder, not a raster",
        fix=f'give a raster; join files of one band each with " + ": "{example}"',
    )


def read_pixels(
    dataset: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    window: Window,
    shape: tuple[int, int] | None = None,
    name: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a window of bands, (C, H, W), and where it holds data, (H, W) bool.

    Floats are 0 where they are invalid. See `read_stored`.
    """
    image_CHW, valid_HW = read_stored(dataset, bands, window, shape, name)
    if np.issubdtype(image_CHW.dtype, np.floating):
        image_CHW = np.where(valid_HW, image_CHW, 0)
    return image_CHW, valid_HW


def read_stored(
    dataset: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    window: Window,
    shape: tuple[int, int] | None = None,
    name: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a window of bands as stored, (C, H, W), and where it holds data, (H, W) bool.

    Args:
        dataset: Result of `open_source`, or a warped view of it.
        bands: Band numbers from 1.
        window: The window to read.
        shape: Rows and columns of the result; by default its own.
        name: Name for errors.

    Raises:
        RasterError: If the pixels cannot be read.
    """
    shape = shape or (int(window.height), int(window.width))
    name = name or name_raster(dataset)
    pauses_seconds = list(READ_PAUSES_SECONDS if is_remote(name) else ())
    while True:
        try:
            image_CHW = dataset.read(list(bands), window=window, out_shape=(len(bands), *shape))
            return image_CHW, find_valid(dataset, bands, image_CHW, window)
        except RasterioError as error:
            # GDAL itself asks a busy server again, but not one that stops in the middle of an
            # answer.
            if pauses_seconds:
                time.sleep(pauses_seconds.pop(0))
                _forget(name)
                continue
            raise _explain(name, window, error) from error


def _refuse_missing(name: str, missing: Sequence[str]) -> RasterError:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return RasterError(
        f"{name} shows {missing[0]}{more}, which does not exist",
        fix="put it back where the virtual raster expects it, or build the virtual raster "
        "again with gdalbuildvrt",
    )


def _explain(name: str, window: Window, error: RasterioError) -> RasterError:
    """Return why pixels cannot be read."""
    missing = find_missing_sources(name)
    if missing:
        return _refuse_missing(name, missing)
    return RasterError(
        f"{name}: pixels cannot be read in rows {window.row_off} to "
        f"{window.row_off + window.height}: {error}",
        fix="run the same command again when its server answers: it resumes where it stopped"
        if is_remote(name)
        else "the file is probably truncated or damaged: fetch it again",
    )


def _forget(name: str):
    """Clear GDAL's cache of a raster: it keeps incomplete answers."""
    for location in map(locate, split_files(name)):
        uncached = rasterio.Env(CPL_VSIL_CURL_NON_CACHED=location)
        with suppress(RasterioError), allow_no_place(), uncached:
            # The cache of a file opened like this is dropped when it is closed.
            rasterio.open(location, sharing=False).close()


def describe_source(dataset: DatasetReader, path: str | Path) -> RasterRecord:
    """Return a description that identifies an input: name, size, shape, and a hash of its header.

    The hash covers GDAL's reading of the header and, for a local file, of its first 64 KiB.
    """
    scaling = BandScaling.of(dataset)
    facts = {
        "driver": dataset.driver,
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtypes": list(dataset.dtypes),
        "crs": dataset.crs.to_string() if dataset.crs else None,
        "transform": list(dataset.transform)[:6],
        "nodata": None if dataset.nodata is None else repr(dataset.nodata),
        **({} if scaling.is_identity else {key: list(n) for key, n in vars(scaling).items()}),
    }
    digest = hashlib.sha256(json.dumps([facts, dataset.tags()], sort_keys=True).encode())
    files = split_files(path)
    if len(files) > 1:
        # The order of the bands; such names stay the same with a new signature.
        digest.update(json.dumps([name_source(file) for file in files]).encode())
    local = [Path(file) for file in files if is_file(file)]
    for file in local:
        with file.open("rb") as opened:
            digest.update(opened.read(HEADER_BYTES))
    return RasterRecord(
        path=str(path),
        **facts,
        size_bytes=sum(file.stat().st_size for file in local) if local else None,
        header_sha256=digest.hexdigest(),
    )


def _is_plain(dataset: DatasetReader) -> bool:
    """Return whether a raster needs no wrapping."""
    if ColorInterp.alpha in dataset.colorinterp:
        return False
    has_nodata = any(value is not None for value in dataset.nodatavals)
    # Nodata values depend on which bands are in one file.
    return (
        not has_nodata
        or NAMESPACE in dataset.tag_namespaces()
        or len(set(tell_files(dataset))) == 1
    )


def _is_paletted(dataset: DatasetReader) -> bool:
    if dataset.count != 1 or dataset.colorinterp[0] != ColorInterp.palette:
        return False
    try:
        return bool(dataset.colormap(1))
    except ValueError:
        # It is declared as a palette but has none: its values are grey.
        return False


def _lay_down(dataset: DatasetReader, crs: CRS, options: dict[str, Any]) -> WarpedVRT:
    """Georeference a raster by its control points or sensor model; see `choose_reference`."""
    try:
        with allow_no_place():
            return WarpedVRT(
                dataset,
                src_crs=crs,
                resampling=Resampling.bilinear,
                tolerance=WARP_TOLERANCE_PX,
                add_alpha=True,
                **options,
            )
    except Exception as error:
        if not is_gdal_error(error):
            raise
        raise RasterError(
            f"{name_raster(dataset)} cannot be laid on the ground by its {len(dataset.gcps[0])} "
            f"control points or its sensor model: {error}",
            fix="georeference it, for example with gdalwarp or in QGIS's georeferencer",
        ) from error
