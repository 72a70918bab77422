"""Finds pixels that look like undeclared nodata: collars, fill values, blocks never written.

Reads a small picture of each image, or patches spread over a large one without overviews, of any
size.

Legend of the array names: C bands, H rows, W columns, N pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from scipy import ndimage

from terradelta.errors import TerradeltaError
from terradelta.geo.finding import Finding
from terradelta.geo.grid import cut_window
from terradelta.geo.listing import split_files
from terradelta.geo.mosaic import Mosaic
from terradelta.geo.pair import Images, RasterPair
from terradelta.geo.source import open_raster, read_stored
from terradelta.geo.validity import IMPOSSIBLE
from terradelta.geo.virtual import name_raster

PICTURE_SIDE_PX = 512
MAX_READ_PIXELS = 4096**2
"""Largest raster, or coarsest overview, that is read completely."""
PATCHES_PER_SIDE = 12
PATCH_SIZE_PX = 16
MAX_RASTERS = 9
"""Rasters of a mosaic that are examined."""
MAX_BLOCKS_PER_SIDE = 64
CANDIDATES = 3
MIN_COLLAR_SHARE = 0.01
MIN_FILL_SHARE = 0.001
CONSTANT_SHARE = 0.999
"""Share from which there is no image inside of the collar."""
EVERYWHERE = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Suspect:
    """A value that is probably not a measurement."""

    name: str
    """Why it is suspicious."""
    value: float
    share: float
    """Share of the pixels."""


@dataclass(frozen=True)
class _Picture:
    """A reduced image."""

    values_CHW: np.ndarray
    """As stored."""
    valid_HW: np.ndarray
    """Where they are data, as far as known."""


def find_collars(pair: RasterPair) -> Iterator[Finding]:
    """Yield values of a pair that probably mean no data, and the flag of `predict` for them."""
    dates = ("before", "after")
    try:
        suspects = [
            _find_suspects(images, bands, date.nodata)
            for images, bands, date in zip(
                pair.datasets, pair.bands, (pair.options.before, pair.options.after), strict=True
            )
        ]
    except TerradeltaError as error:
        yield Finding("collar", "FAIL", error.problem, error.fix)
        return
    for date, mine, others in zip(dates, suspects, suspects[::-1], strict=True):
        for suspect in mine:
            value = _write(suspect.value)
            is_on_both = suspect.value in [other.value for other in others]
            yield Finding(
                suspect.name,
                "WARN",
                f"{date}: {_describe(suspect)}",
                f"--nodata {value}" if is_on_both else f"--nodata {date}={value}",
                {"date": date, "value": suspect.value, "share": suspect.share},
            )


def _describe(suspect: _Suspect) -> str:
    value, share = _write(suspect.value), f"{suspect.share:.1%}"
    if suspect.name == "collar":
        return (
            f"{value} in all bands fills {share} of it from its edge inwards; not declared nodata"
        )
    if suspect.name == "sparse":
        return f"{share} of its blocks were never written and read as {value}"
    if suspect.name == "impossible":
        return f"{share} of it holds {value}, which no sensor measures: treated as nodata"
    return f"{share} of it holds {value}, far from all other values; not declared nodata"


def _write(value: float) -> str:
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


def _find_suspects(
    images: Images, bands: Sequence[int], nodata: float | None
) -> tuple[_Suspect, ...]:
    """Return the suspicious values of an image, each once, with its share over all rasters."""
    rasters = images.open_some(MAX_RASTERS) if isinstance(images, Mosaic) else [images]
    shares: dict[tuple[str, float], list[float]] = {}
    count = 0
    for count, dataset in enumerate(rasters, start=1):  # noqa: B007
        said = [value for value in (nodata, *dataset.nodatavals) if value is not None]
        picture = _read_picture(dataset, bands)
        for suspect in (*_look_at(picture), *_find_sparse(dataset, nodata)):
            if np.isclose(suspect.value, said).any():
                continue
            shares.setdefault((suspect.name, suspect.value), []).append(suspect.share)
    return tuple(
        _Suspect(name, value, sum(parts) / count) for (name, value), parts in shares.items()
    )


def _read_picture(dataset: DatasetReader, bands: Sequence[int]) -> _Picture:
    height, width = dataset.height, dataset.width
    reduction = max(dataset.overviews(bands[0]), default=1)
    if height * width / reduction**2 <= MAX_READ_PIXELS:
        shape = min(height, PICTURE_SIDE_PX), min(width, PICTURE_SIDE_PX)
        return _Picture(*read_stored(dataset, bands, cut_window(0, 0, width, height), shape))
    tall, wide = min(PATCH_SIZE_PX, height), min(PATCH_SIZE_PX, width)
    rows = np.linspace(0, height - tall, PATCHES_PER_SIDE).astype(int).tolist()
    columns = np.linspace(0, width - wide, PATCHES_PER_SIDE).astype(int).tolist()
    strips = []
    for row in rows:
        windows = (cut_window(column, row, wide, tall) for column in columns)
        parts = [read_stored(dataset, bands, window) for window in windows]
        strips.append([np.concatenate(layers, axis=-1) for layers in zip(*parts, strict=True)])
    values_CHW, valid_HW = (np.concatenate(layers, axis=-2) for layers in zip(*strips, strict=True))
    return _Picture(values_CHW, valid_HW)


def _look_at(picture: _Picture) -> Iterator[_Suspect]:
    yield from _find_impossible(picture)
    collars = list(_find_edges(picture))
    yield from collars
    known = {collar.value for collar in collars}
    yield from (fill for fill in _find_fill(picture) if fill.value not in known)


def _find_impossible(picture: _Picture) -> Iterator[_Suspect]:
    """Yield the most frequent number, if any, that no sensor measures."""
    if picture.values_CHW.dtype.kind != "f":
        return
    wrong_CHW = np.isfinite(picture.values_CHW) & (np.abs(picture.values_CHW) >= IMPOSSIBLE)
    if wrong_CHW.any():
        values, counts = np.unique(picture.values_CHW[wrong_CHW], return_counts=True)
        value = float(values[counts.argmax()])
        yield _Suspect("impossible", value, float(wrong_CHW.any(axis=0).mean()))


def _find_edges(picture: _Picture) -> Iterator[_Suspect]:
    """Yield values that all bands hold in areas that extend from the edge of the image."""
    values_HW = picture.values_CHW[0]
    is_even_HW = picture.valid_HW & (picture.values_CHW == values_HW).all(axis=0)
    frame_HW = np.zeros_like(is_even_HW)
    frame_HW[[0, -1], :] = True
    frame_HW[:, [0, -1]] = True
    values, counts = np.unique(values_HW[is_even_HW & frame_HW], return_counts=True)
    for value in values[np.argsort(-counts)[:CANDIDATES]]:
        is_value_HW = is_even_HW & (values_HW == value)
        # Known nodata may lie around it.
        parts_HW = np.zeros(values_HW.shape, np.int32)
        ndimage.label(is_value_HW | ~picture.valid_HW, EVERYWHERE, output=parts_HW)
        reached = np.unique(parts_HW[frame_HW])
        share = float((is_value_HW & np.isin(parts_HW, reached[reached > 0])).mean())
        if MIN_COLLAR_SHARE <= share < CONSTANT_SHARE:
            yield _Suspect("collar", float(value), share)


def _find_fill(picture: _Picture) -> Iterator[_Suspect]:
    """Yield values of a band that lie further from all others than these from each other."""
    found: dict[float, float] = {}
    for band_HW in picture.values_CHW:
        values_N = band_HW[picture.valid_HW].astype(np.float64)
        if not len(values_N):
            return
        for value in (values_N.min(), values_N.max()):
            others_N = values_N[values_N != value]
            share = (len(values_N) - len(others_N)) / picture.valid_HW.size
            if len(others_N) == 0 or share < MIN_FILL_SHARE:
                continue
            if np.abs(others_N - value).min() > np.ptp(others_N) > 0:
                found[float(value)] = max(share, found.get(float(value), 0))
    for value, share in found.items():
        yield _Suspect("fill", value, share)


def _find_sparse(dataset: DatasetReader, nodata: float | None) -> Iterator[_Suspect]:
    """Yield 0 if blocks of a GeoTIFF hold only 0, and 0 is not declared nodata."""
    for file in split_files(name_raster(dataset)):
        with closing(open_raster(file)) as raw:
            is_said = raw.nodata is not None or MaskFlags.per_dataset in raw.mask_flag_enums[0]
            if raw.driver != "GTiff" or is_said or nodata == 0:
                continue
            tall, wide = raw.block_shapes[0]
            rows, columns = -(-raw.height // tall), -(-raw.width // wide)
            offsets = [
                raw.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1)
                for row in _spread(rows)
                for column in _spread(columns)
            ]
        share = offsets.count(None) / len(offsets)
        if share:
            yield _Suspect("sparse", 0.0, share)


def _spread(count: int) -> list[int]:
    """Return the numbers of some of the blocks."""
    chosen = np.linspace(0, count - 1, min(count, MAX_BLOCKS_PER_SIDE))
    return chosen.round().astype(int).tolist()
