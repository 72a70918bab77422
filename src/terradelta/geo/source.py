"""One raster, opened so that it reads like any other: referenced, in colours, its mask honest.

What GDAL opens may carry ground control points instead of a transform, a colour table instead of
colours, or near infrared where its header says alpha. Each is wrapped in a virtual raster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.grid import allow_no_place, cut_window
from terradelta.geo.listing import is_file, is_remote, locate, name_source, split_files
from terradelta.geo.virtual import (
    drop_alpha,
    expand_palette,
    name_raster,
    open_virtual,
    stack_bands,
)

Bands = Sequence[int | str]

WARP_TOLERANCE_PX = 0.01
"""Of the approximated transformation; with GDAL's 0.125 a window differs from the same window of a
full read."""
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
"""What GDAL does about a server that fails, is busy or hangs; the environment has the last word.
The delay in seconds about doubles from try to try."""
READ_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Before a window is read once more over a network."""
HEADER_BYTES = 65_536
ALPHA_PROBES = 5
ALPHA_PROBE_SIZE_PX = 64
OPAQUE_SHARE = 0.9


class Described(Protocol):
    """What tells the bands of a raster from each other."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def descriptions(self) -> Sequence[str | None]: ...  # noqa: D102
    @property
    def colorinterp(self) -> Sequence[ColorInterp]: ...  # noqa: D102
    @property
    def dtypes(self) -> Sequence[str]: ...  # noqa: D102


@contextmanager
def open_source(path: str | Path, bands: Bands | None = None) -> Iterator[DatasetReader]:
    """Open a raster for reading; a context manager.

    Args:
        path: A path, URL, `/vsi...` path, VRT, archive of one raster, or whatever else GDAL opens.
        bands: Band numbers or names that will be read; an alpha band among them is data.

    Raises:
        RasterError: If it cannot be opened or holds no bands.
    """
    # Closed and not entered: rasterio's own contexts must end in the thread that began them.
    with closing(open_raster(path)) as dataset:
        if _is_paletted(dataset):
            with open_virtual(dataset, expand_palette(dataset)) as expanded:
                yield expanded
        elif _needs_reference(dataset):
            with closing(_reference(dataset)) as referenced:
                yield referenced
        elif ColorInterp.alpha in dataset.colorinterp:
            with open_virtual(dataset, drop_alpha(dataset), *_choose_mask(dataset, bands)) as plain:
                yield plain
        else:
            yield dataset


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


def describe_bands(dataset: Described) -> dict[int, str]:
    """Return number (from 1) and lower-case name of each band; "" where nothing names it."""
    names = {}
    for number, (text, colour) in enumerate(
        zip(dataset.descriptions, dataset.colorinterp, strict=True), start=1
    ):
        is_named = colour not in (ColorInterp.undefined, ColorInterp.gray)
        names[number] = (text or (colour.name if is_named else "")).lower()
    return names


def select_bands(
    dataset: Described, band_names: Sequence[str], bands: Bands | None = None
) -> list[int]:
    """Return the numbers (from 1) of the bands of a raster that hold what a model needs.

    By default they are found by their names or colour interpretation, and a raster of nameless
    bands, just as many as the model needs (alpha not counted), is taken in its own order.

    Raises:
        ArgumentError: If `bands` has another length than `band_names`.
        RasterError: If a band does not exist or cannot be told from the others.
    """
    known = describe_bands(dataset)
    if bands is not None:
        if len(bands) != len(band_names):
            raise ArgumentError(
                f"--bands names {len(bands)} bands ({', '.join(map(str, bands))}) but the model "
                f"needs {len(band_names)} ({', '.join(band_names)})",
                fix="name one band for each that the model needs, in that order",
            )
        return [_find_band(dataset, known, band) for band in bands]
    if all(name in known.values() for name in band_names):
        return [_find_band(dataset, known, name) for name in band_names]
    data_bands = {number: name for number, name in known.items() if name != "alpha"}
    if len(data_bands) == len(band_names) and all(map(_says_nothing, data_bands.values())):
        return list(data_bands)
    raise RasterError(
        f"{name_raster(dataset)} has the bands {_list(known)}, and the model needs "
        f"{', '.join(band_names)}",
        fix=f"say which they are, for example --bands "
        f"{','.join(str(n + 1) for n in range(len(band_names)))}",
    )


def has_false_alpha(dataset: DatasetReader, bands: Bands | None = None) -> bool:
    """Return whether a band that is declared alpha holds measurements, or is to be read as such.

    Many four-band images (NAIP is one) are written as RGB plus alpha although the fourth band is
    near infrared; its darkest pixels would be taken for holes. A true alpha band is mostly opaque
    or empty, so a few probes tell.
    """
    if ColorInterp.alpha not in dataset.colorinterp:
        return False
    number = dataset.colorinterp.index(ColorInterp.alpha) + 1
    if bands is not None and {str(number), "alpha"} & {str(band).lower() for band in bands}:
        return True
    kind = np.dtype(dataset.dtypes[number - 1])
    opaque = (np.iinfo(kind).max,) if kind.kind in "ui" else (1, 255)
    values = np.concatenate(
        [dataset.read(number, window=window).ravel() for window in _spread_windows(dataset)]
    )
    return bool(np.isin(values, (0, *opaque)).mean() < OPAQUE_SHARE)


def _has_true_alpha(dataset: DatasetReader) -> bool:
    return ColorInterp.alpha in dataset.colorinterp and not has_false_alpha(dataset)


def _spread_windows(dataset: DatasetReader):
    size = min(ALPHA_PROBE_SIZE_PX, dataset.width, dataset.height)
    for row in np.linspace(0, dataset.height - size, ALPHA_PROBES).astype(int):
        for column in np.linspace(0, dataset.width - size, ALPHA_PROBES).astype(int):
            yield cut_window(int(column), int(row), size, size)


def _find_band(dataset: Described, known: dict[int, str], band: int | str) -> int:
    text = str(band).lower()
    # Superscripts are digits too, and of 4,300 digits Python makes no number.
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else None
    for candidate, name in known.items():
        if candidate == number or (number is None and name == text):
            return candidate
    raise RasterError(
        f"{name_raster(dataset)} has no band {band}; it has {_list(known)}",
        fix="name bands that the raster has with --bands, by number from 1 or by name",
    )


def _says_nothing(name: str) -> bool:
    return re.fullmatch(r"((band|layer|channel)?[ _-]*\d+)?", name) is not None


def _list(known: dict[int, str]) -> str:
    return ", ".join(f"{number} {name or '(unnamed)'}" for number, name in known.items())


def open_raster(path: str | Path) -> DatasetReader:
    """Open a raster as it is; `open_source` makes it readable like any other.

    Raises:
        RasterError: If it cannot be opened or holds no bands.
    """
    with allow_no_place():
        return open_header(path)


def open_header(path: str | Path) -> DatasetReader:
    """Open a raster as `open_raster` does, where warnings are taken care of: threads can't.

    Raises:
        RasterError: If it cannot be opened or holds no bands.
    """
    files = split_files(path)
    if len(files) == 1:
        return _open_file(files[0])
    with ExitStack() as opened:
        datasets = [opened.enter_context(closing(_open_file(file))) for file in files]
        return stack_bands(datasets, files, list(map(_has_true_alpha, datasets)))


def _open_file(path: str) -> DatasetReader:
    location = locate(path)
    archive = next((a for end, a in ARCHIVES.items() if location.lower().endswith(end)), None)
    if archive is not None and is_file(location):
        location = f"{archive}{Path(location).resolve()}"
    if is_remote(location):
        for name, value in NETWORK_SETTINGS.items():
            # In the environment, where every thread's and child's GDAL looks.
            os.environ.setdefault(name, value)
    try:
        dataset = rasterio.open(location)
    except RasterioError as error:
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
            f"{path} holds no bands but subdatasets: {names}",
            fix="name one of the subdatasets instead of the container",
        )
    return dataset


def read_pixels(
    dataset: DatasetReader | WarpedVRT,
    bands: Sequence[int],
    window: Window,
    shape: tuple[int, int] | None = None,
    name: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a window of bands, (C, H, W), and where it holds data, (H, W) bool.

    Args:
        dataset: What `open_source` opened, or that as it is warped.
        bands: Which bands, by number from 1; not finite numbers are no data.
        window: Which part.
        shape: Rows and columns to return it as; by default its own.
        name: What to call it in an error.

    Raises:
        RasterError: If the pixels cannot be read.
    """
    shape = shape or (int(window.height), int(window.width))
    name = name or name_raster(dataset)
    pauses_seconds = list(READ_PAUSES_SECONDS if is_remote(name) else ())
    while True:
        try:
            image_CHW = dataset.read(list(bands), window=window, out_shape=(len(bands), *shape))
            valid_HW = _read_mask(dataset, window, shape) > 0
            break
        except RasterioError as error:
            # GDAL itself asks a busy server again, but not one that breaks off in mid-answer.
            if pauses_seconds:
                time.sleep(pauses_seconds.pop(0))
                _forget(name)
                continue
            raise RasterError(
                f"{name}: pixels cannot be read in rows {window.row_off} to "
                f"{window.row_off + window.height}: {error}",
                fix="run the same command again when its server answers: it goes on where it was"
                if is_remote(name)
                else "the file is probably truncated or damaged: fetch it again",
            ) from error
    if np.issubdtype(image_CHW.dtype, np.floating):
        finite_HW = np.isfinite(image_CHW).all(axis=0)
        image_CHW = np.where(finite_HW, image_CHW, 0)
        valid_HW &= finite_HW
    return image_CHW, valid_HW


def _forget(name: str):
    """Have GDAL forget what it has fetched of a raster: it keeps answers that were broken off."""
    for location in map(locate, split_files(name)):
        uncached = rasterio.Env(CPL_VSIL_CURL_NON_CACHED=location)
        with suppress(RasterioError), allow_no_place(), uncached:
            # What is opened so is dropped when it is closed.
            rasterio.open(location, sharing=False).close()


def _read_mask(
    dataset: DatasetReader | WarpedVRT, window: Window, shape: tuple[int, int]
) -> np.ndarray:
    colours = dataset.colorinterp
    # A WarpedVRT says that all is valid also where its nodata value is not.
    is_plain = not isinstance(dataset, WarpedVRT)
    if is_plain and all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums):
        # GDAL would make it pixel by pixel, of the whole window however small `shape` is.
        return np.full(shape, 255, np.uint8)
    if ColorInterp.alpha not in colours:
        return dataset.dataset_mask(window=window, out_shape=shape)
    # The alpha band itself: GDAL takes it for a mask only beside one or three 8-bit bands.
    alpha = colours.index(ColorInterp.alpha) + 1
    return dataset.read(alpha, window=window, out_shape=shape)


def describe_source(dataset: DatasetReader, path: str | Path) -> dict[str, Any]:
    """Return what identifies an input: name, size, shape, and a hash of its header.

    The hash is of what GDAL reads of the header and, for a local file, of its first 64 KiB.
    """
    facts = {
        "driver": dataset.driver,
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtypes": list(dataset.dtypes),
        "crs": dataset.crs.to_string() if dataset.crs else None,
        "transform": list(dataset.transform)[:6],
        "nodata": None if dataset.nodata is None else repr(dataset.nodata),
    }
    digest = hashlib.sha256(json.dumps([facts, dataset.tags()], sort_keys=True).encode())
    files = split_files(path)
    if len(files) > 1:
        # The order of the bands; such names stay when an address is signed anew.
        digest.update(json.dumps([name_source(file) for file in files]).encode())
    local = [Path(file) for file in files if is_file(file)]
    for file in local:
        with file.open("rb") as opened:
            digest.update(opened.read(HEADER_BYTES))
    return {
        "path": str(path),
        **facts,
        "size_bytes": sum(file.stat().st_size for file in local) if local else None,
        "header_sha256": digest.hexdigest(),
    }


def _is_paletted(dataset: DatasetReader) -> bool:
    return dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette


def _needs_reference(dataset: DatasetReader) -> bool:
    return dataset.crs is None and bool(dataset.gcps[0] or dataset.rpcs)


def _reference(dataset: DatasetReader) -> WarpedVRT:
    """Lay a raster of control points or a sensor model on a grid."""
    try:
        with allow_no_place():
            return WarpedVRT(
                dataset,
                # Rational polynomials are of WGS 84.
                src_crs=dataset.gcps[1] if dataset.gcps[0] else CRS.from_epsg(4326),
                resampling=Resampling.bilinear,
                tolerance=WARP_TOLERANCE_PX,
                add_alpha=True,
            )
    except (RasterioError, CPLE_BaseError) as error:
        raise RasterError(
            f"{dataset.name} cannot be laid on the ground by its {len(dataset.gcps[0])} control "
            f"points or its sensor model: {error}",
            fix="georeference it, for example with gdalwarp or in QGIS's georeferencer",
        ) from error


def _choose_mask(dataset: DatasetReader, bands: Bands | None) -> tuple[str, float | None]:
    """Return what masks a raster with an alpha band: that band, or at least its nodata value."""
    if has_false_alpha(dataset, bands):
        return "", dataset.nodata
    # GDAL takes alpha for a mask only where it is the second or the fourth band.
    return str(dataset.colorinterp.index(ColorInterp.alpha) + 1), None
