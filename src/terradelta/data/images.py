"""Reading and writing image and mask files; bad files raise errors that name them.

PNG, JPEG and BMP are read by Pillow, GeoTIFF and 16-bit PNG by rasterio (Pillow would silently cut
16-bit colour to 8 bits). Shapes: C bands, H rows, W columns (`bands_CHW`, `ids_HW`).
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from terradelta.classes import BINARY, ClassTable, Colour
from terradelta.errors import ArgumentError, DataError
from terradelta.outputs import stage_file

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF_SUFFIXES)
"""File name endings, in lower case, that are read as images; all others are ignored."""

_IMAGE_DTYPES = ("uint8", "uint16", "int16", "float32")
_UNREADABLE = (
    OSError,  # RasterioIOError is one
    RasterioError,
    SyntaxError,  # Pillow's error for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
IGNORE = 255
"""Class id of pixels that count neither in a loss nor in a score; class tables end at 254."""
CHANGE_THRESHOLD = 128
MAX_STRAY_SHARE = 0.001
"""Share of a mask's pixels that may hold stray values."""
MAX_STRAY_DISTANCE = 48
"""Largest distance from 0 or 255 of a value that is read as it."""
_MOST_SHOWN = 8
_MOST_MEMORY_BYTES = 4 * 2**30
_MOST_PNG_RATIO = 8300
"""Deflate expands a byte to at most 1,032, each of up to eight pixels."""
_MOST_RATIO = 20_000
"""The same for other formats, which compress a mask of one value even more."""
_SPARED_BYTES = 64 * 2**20
"""Smaller images are accepted with any ratio."""


@dataclass(frozen=True)
class Pixels:
    """The content of a file, before it is known whether it is an image or a mask."""

    bands_CHW: np.ndarray
    """Bands without alpha; a palette image has one band, the indices."""
    palette: np.ndarray | None
    """(256, 3) uint8 colours of the indices."""
    is_jpeg: bool


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (C, H, W) of uint8, uint16, int16 or float32.

    Palette images become RGB, one band stays one band, float64 becomes float32. An alpha channel of
    a PNG is dropped. A GeoTIFF band declared as alpha is dropped if it holds only 0 and the type's
    maximum; with other values it is data, because GDAL declares the fourth band of every
    four-band uint8 file as alpha, including near infrared.

    Raises:
        DataError: If the file is missing, broken or of another data type.
    """
    path = Path(path)
    pixels = read_pixels(path)
    if pixels.palette is not None:
        return np.ascontiguousarray(pixels.palette[pixels.bands_CHW[0]].transpose(2, 0, 1))
    bands_CHW = pixels.bands_CHW
    if bands_CHW.dtype == np.float64:
        bands_CHW = bands_CHW.astype(np.float32)
    if bands_CHW.dtype.name not in _IMAGE_DTYPES:
        raise DataError(
            f"{path} holds pixels of {bands_CHW.dtype.name}, and images are of"
            f" {', '.join(_IMAGE_DTYPES)}",
            fix="convert it, for example with gdal_translate -ot Float32",
        )
    return bands_CHW


def read_mask(path: str | Path, classes: ClassTable, may_ignore: bool = False) -> np.ndarray:
    """Read a land-cover mask as (H, W) uint8 class ids.

    Three channels are colours of the class table. One channel holds class ids. In a palette
    image the colours decide if all those it uses are in the class table, otherwise the indices do.

    Args:
        path: The file.
        classes: Its class table.
        may_ignore: Accept `IGNORE` among class ids, for pixels that nobody could label.

    Raises:
        DataError: If the file cannot be read, is a JPEG (its compression alters ids), or holds
            colours or ids that the class table does not have.
    """
    path = Path(path)
    pixels = read_pixels(path)
    if pixels.is_jpeg:
        raise DataError(
            f"{path} is a JPEG, whose lossy compression alters class ids and colours",
            fix="make the mask again as PNG or GeoTIFF",
        )
    num_bands = len(pixels.bands_CHW)
    if num_bands == 3:
        return _colours_to_ids(path, pixels.bands_CHW, classes)
    if num_bands != 1:
        raise DataError(
            f"{path} has {num_bands} bands, and a mask has 1 (class ids) or 3 (colours)",
            fix="save the mask as an indexed or RGB image",
        )
    ids_HW = pixels.bands_CHW[0]
    values = _distinct(ids_HW)
    if pixels.palette is not None:
        is_ignored = may_ignore and tuple(pixels.palette[IGNORE].tolist()) not in classes.colours
        used = [index for index in values if not (is_ignored and index == IGNORE)]
        id_of_index = _match_palette(pixels.palette, used, classes)
        if id_of_index is not None:
            if is_ignored:
                id_of_index[IGNORE] = IGNORE
            return id_of_index[ids_HW]
    _check_ids(path, [v for v in values if not may_ignore or v != IGNORE], classes)
    return ids_HW.astype(np.uint8)


def read_change_mask(path: str | Path) -> np.ndarray:
    """Read a change mask as (H, W) uint8, 1 = changed, from values 0/1 or 0/255.

    Three channels are accepted if they are identical. A palette of only black and white
    is read by its colours (white = changed); with any other palette the indices count. Among 0 and
    255, a few pixels of other values are read as the nearer one; see `find_strays`.

    Raises:
        DataError: If the file cannot be read or holds other values.
    """
    path = Path(path)
    pixels = read_pixels(path)
    bands_CHW = pixels.bands_CHW
    if pixels.palette is not None and {tuple(c) for c in pixels.palette.tolist()} == {
        (0, 0, 0),
        (255, 255, 255),
    }:
        bands_CHW = pixels.palette[bands_CHW[0]].transpose(2, 0, 1)
    if len(bands_CHW) not in (1, 3) or any((band != bands_CHW[0]).any() for band in bands_CHW[1:]):
        raise DataError(
            f"{path} has {len(bands_CHW)} bands, and a change mask has 1 or 3 identical ones",
            fix="save changed as 255 and unchanged as 0 in a single-channel PNG"
            " (land-cover masks belong in two label folders, one for each date)",
        )
    values = _distinct(bands_CHW[0])
    if set(values) <= {0, 1}:
        return bands_CHW[0].astype(np.uint8)
    if pixels.is_jpeg or find_strays(bands_CHW[0]) is None:
        fix = (
            "save changed as 255 and unchanged as 0; `terradelta doctor DATA` names each such file"
        )
        if pixels.is_jpeg:
            fix = f"JPEG compression blurs masks: cut it at 128, {fix}, and save it as PNG"
        raise DataError(
            f"{path} holds the values {_shorten(values)}, and a change mask holds 0 and 1,"
            " or 0 and 255",
            fix=fix,
        )
    return (bands_CHW[0] >= CHANGE_THRESHOLD).astype(np.uint8)


def find_strays(band_HW: np.ndarray) -> np.ndarray | None:
    """Return where a mask of 0 and 255 holds other values, (H, W) bool.

    Editors and resampling leave a few pixels of 254, or of 3, in masks that are otherwise right.

    Returns:
        None if it is not such a mask: another data type, 1 among its values, which means changed
        elsewhere, values far from both, or too many of them.
    """
    if band_HW.dtype != np.uint8:
        return None
    stray_HW = (band_HW != 0) & (band_HW != 255)
    strays = band_HW[stray_HW]
    is_far = np.minimum(strays, 255 - strays) > MAX_STRAY_DISTANCE
    if strays.size > MAX_STRAY_SHARE * band_HW.size or is_far.any() or (strays == 1).any():
        return None
    return stray_HW


def write_mask(
    path: str | Path, ids_HW: np.ndarray, classes: ClassTable, may_ignore: bool = False
) -> None:
    """Write (H, W) class ids as an indexed PNG with the class table's palette.

    The file appears under its name only when it is complete. `read_mask` returns the same ids.

    Args:
        path: The file.
        ids_HW: Class ids.
        classes: Their class table.
        may_ignore: Accept `IGNORE` among them.

    Raises:
        ArgumentError: If the array is not two-dimensional or holds ids that are not in the table.
    """
    path, ids_HW = Path(path), np.asarray(ids_HW)
    if ids_HW.ndim != 2 or ids_HW.dtype.kind not in "uib":
        raise ArgumentError(
            f"a mask is (H, W) of integers, got shape {ids_HW.shape} of {ids_HW.dtype} for {path}",
            fix="pass class ids, not scores or colours",
        )
    if path.suffix.lower() != ".png":
        raise ArgumentError(
            f"masks are written as .png, got {path.name}", fix=f"use {path.stem}.png"
        )
    known = ids_HW[ids_HW != IGNORE] if may_ignore else ids_HW
    if known.size and not 0 <= known.min() <= known.max() <= classes.num_classes:
        raise ArgumentError(
            f"the mask for {path} holds ids {known.min()} to {known.max()}, and the class table"
            f" has 0 to {classes.num_classes}",
            fix="pass the class table that the ids belong to",
        )
    write_indexed(path, ids_HW.astype(np.uint8), classes.colours)


def write_indexed(path: Path, values_HW: np.ndarray, colours: Sequence[Colour]) -> None:
    """Write (H, W) uint8 values as an indexed PNG; the file appears only when it is complete."""
    image = Image.fromarray(values_HW)
    palette = list(colours)
    if IGNORE in values_HW:
        # Pillow stores as many bits as the palette needs, and 255 needs all.
        unused = next(grey for grey in range(256) if (grey,) * 3 not in colours)
        palette += [(unused,) * 3] * (IGNORE + 1 - len(palette))
    image.putpalette([value for colour in palette for value in colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    with stage_file(path) as staged:
        image.save(staged, format="PNG")


def write_change_mask(path: str | Path, change_HW: np.ndarray) -> None:
    """Write an (H, W) change mask, 1 or True = changed, as an indexed PNG of values 0 and 1.

    Raises:
        ArgumentError: If the array is not two-dimensional or holds other values.
    """
    write_mask(path, change_HW, BINARY)


def read_pixels(path: Path) -> Pixels:
    """Return the content of an image or mask file without alpha.

    Raises:
        DataError: If it is missing, broken, not an image by its name, or too large.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(
            f"{path} is not an image file by its name: {suffix or 'no ending'}",
            fix=f"use one of {' '.join(IMAGE_SUFFIXES)}",
        )
    try:
        if suffix in TIFF_SUFFIXES or _is_16_bit_png(path):
            return _read_with_rasterio(path)
        return _read_with_pillow(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", fix="check the path") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} is too large for an image file: {error}",
            fix="convert it to a tiled GeoTIFF (.tif)",
        ) from error
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as an image ({_size(path)} bytes): {error}",
            fix="the file is truncated, corrupt or has a wrong ending: fetch or make it again",
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_16_bit_png(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(25)
    return len(header) == 25 and header.startswith(b"\x89PNG\r\n\x1a\n") and header[24] == 16


def _read_with_pillow(path: Path) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    with image:
        is_jpeg = image.format == "JPEG"
        _check_memory(path, image.height, image.width, len(image.getbands()), image.format)
        image.load()
        if image.mode == "P":
            colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(colours)] = colours
            return Pixels(np.asarray(image)[None], palette, is_jpeg)
        if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
            image = image.convert("RGB")
        array = np.asarray(image)
        if image.mode == "1":
            array = array.astype(np.uint8)
        if image.mode in ("LA", "RGBA"):
            array = array[..., :-1]
    bands_CHW = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    return Pixels(np.ascontiguousarray(bands_CHW), None, is_jpeg)


def _read_with_rasterio(path: Path) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            pixel_bytes = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
            _check_memory(path, dataset.height, dataset.width, pixel_bytes, dataset.driver)
            bands_CHW = dataset.read()
            meanings = dataset.colorinterp
            palette = None
            if meanings[0] == ColorInterp.palette and bands_CHW.dtype == np.uint8:
                palette = np.zeros((256, 3), np.uint8)
                for index, colour in dataset.colormap(1).items():
                    palette[index] = colour[:3]
    drop_any_alpha = path.suffix.lower() not in TIFF_SUFFIXES
    kept = [
        band
        for band, meaning in zip(bands_CHW, meanings, strict=True)
        if meaning != ColorInterp.alpha or not (drop_any_alpha or _is_opacity_mask(band))
    ]
    return Pixels(np.stack(kept) if len(kept) < len(bands_CHW) else bands_CHW, palette, False)


def _check_memory(path: Path, height: int, width: int, pixel_bytes: int, kind: str | None) -> None:
    """Refuse an image that is too large for memory, or for the size of its file.

    Damaged headers request terabytes.
    """
    memory_bytes = width * height * pixel_bytes
    if memory_bytes > _MOST_MEMORY_BYTES:
        raise DataError(
            f"{path} is {height} x {width} pixels, {memory_bytes / 2**30:.1f} GiB,"
            f" and images of a data set are at most {_MOST_MEMORY_BYTES // 2**30} GiB",
            fix="cut it into tiles; if it is small, its header is damaged: fetch it again",
        )
    ratio = _MOST_PNG_RATIO if kind == "PNG" else _MOST_RATIO
    if memory_bytes > ratio * _size(path) + _SPARED_BYTES:
        raise DataError(
            f"{path} has {_size(path):,} bytes, and its header says {height} x {width} pixels,"
            f" {memory_bytes:,} bytes",
            fix="the file is truncated, empty or damaged: fetch or make it again",
        )


def _is_opacity_mask(band_HW: np.ndarray) -> bool:
    """Whether a band declared as alpha holds only 0 and the largest value of its type."""
    if band_HW.dtype.kind not in "ui":
        return False
    return bool(((band_HW == 0) | (band_HW == np.iinfo(band_HW.dtype).max)).all())


def _distinct(array: np.ndarray) -> Sequence[int | float]:
    """Return the sorted values of an array; much faster than np.unique for bytes."""
    if array.dtype == np.uint8:
        return np.bincount(array.ravel(), minlength=256).nonzero()[0].tolist()
    return np.unique(array).tolist()


def _ids_of_colours(classes: ClassTable) -> dict[Colour, int]:
    id_of_colour = {colour: i for i, colour in enumerate(classes.colours)}
    if len(id_of_colour) < len(classes.colours):
        raise ArgumentError(
            f"the class table draws several ids in one colour: {_name_colours(classes)}",
            fix="give each id its own colour, or use masks of class ids",
        )
    return id_of_colour


def _match_palette(palette: np.ndarray, used: Sequence, classes: ClassTable) -> np.ndarray | None:
    """Return the class id of each palette index, or None if a used colour belongs to no class."""
    colours: dict[int, Colour] = {index: tuple(palette[index].tolist()) for index in used}
    if not set(colours.values()) <= set(classes.colours):
        return None
    if all(classes.colours[i : i + 1] == (colour,) for i, colour in colours.items()):
        return np.arange(256, dtype=np.uint8)  # in the table's own order, as write_mask writes
    id_of_colour = _ids_of_colours(classes)
    id_of_index = np.zeros(256, np.uint8)
    for index, colour in colours.items():
        id_of_index[index] = id_of_colour[colour]
    return id_of_index


def _colours_to_ids(path: Path, bands_CHW: np.ndarray, classes: ClassTable) -> np.ndarray:
    if bands_CHW.dtype != np.uint8:
        raise DataError(
            f"{path} is a colour mask of {bands_CHW.dtype.name}, and colours are uint8",
            fix="save the mask with 8 bits a channel",
        )
    packed_CHW = bands_CHW.astype(np.uint32)
    packed_HW = (packed_CHW[0] << 16) | (packed_CHW[1] << 8) | packed_CHW[2]
    ids_HW = np.zeros(packed_HW.shape, np.uint8)
    known_HW = np.zeros(packed_HW.shape, bool)
    for (red, green, blue), class_id in _ids_of_colours(classes).items():
        match_HW = packed_HW == ((red << 16) | (green << 8) | blue)
        ids_HW[match_HW] = class_id
        known_HW |= match_HW
    if not known_HW.all():
        raise _unknown_colours(path, packed_HW[~known_HW], packed_HW.size, classes)
    return ids_HW


def _unknown_colours(
    path: Path, unknown: np.ndarray, num_pixels: int, classes: ClassTable
) -> DataError:
    packed, counts = np.unique(unknown, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    colours = [(p >> 16, p >> 8 & 255, p & 255) for p in packed.tolist()]
    shares = [f"{colours[i]} {counts[i] / num_pixels:.2%}" for i in order[:_MOST_SHOWN]]
    if len(order) > _MOST_SHOWN:
        shares.append(f"and {len(order) - _MOST_SHOWN} more")
    fix = "give the class table of this data set, or repaint the mask in the table's colours"
    if set(colours) <= {(i, i, i) for i in range(classes.num_classes + 1)}:
        fix = "the channels look like three copies of the class ids: save one of them"
    return DataError(
        f"{path} holds colours of no class: {', '.join(shares)} of the pixels;"
        f" the class table has {_name_colours(classes)}",
        fix=fix,
    )


def _name_colours(classes: ClassTable) -> str:
    named = zip(classes.names, classes.colours, strict=True)
    return ", ".join(f"{i} {name} {colour}" for i, (name, colour) in enumerate(named))


def _check_ids(path: Path, values: Sequence, classes: ClassTable) -> None:
    allowed = set(range(classes.num_classes + 1))
    if set(values) <= allowed:
        return
    fix = (
        "give the class table of this data set, or renumber the mask; `terradelta doctor DATA "
        "--fix COPY` writes a copy in which a few stray pixels are not labelled"
    )
    if set(values) <= {0, 255}:
        fix = (
            "this looks like a 0/255 change mask: put it into a folder named label beside the"
            " images (binary layout); a land-cover mask holds class ids"
        )
    raise DataError(
        f"{path} holds the values {_shorten(values)}, and the class ids are 0 to"
        f" {classes.num_classes}",
        fix=fix,
    )


def _shorten(values: Sequence) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_MOST_SHOWN])
    if len(values) > _MOST_SHOWN:
        shown += f", ... {values[-1]:g} ({len(values)} values)"
    return shown
