"""Finds the form of a mask, also of masks that the loader refuses, and its class ids if possible.

Some colours of the SenseEarth table, read in the reverse order (blue, green, red), are also in the
table: reversed water is playground. So all masks together decide the order of the channels:
a mask with a colour that fits only one order decides for those that fit both.

Legend of the array names: C channels, H rows, W columns, N pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from terradelta.classes import ClassTable
from terradelta.data.images import (
    CHANGE_THRESHOLD,
    IGNORE,
    MAX_STRAY_SHARE,
    Pixels,
    find_strays,
    read_pixels,
)
from terradelta.errors import DataError

NEAR_COLOUR = 48
"""Largest difference of a channel attributed to lossy compression."""
MIN_NEAR_SHARE = 0.9
"""Share of the pixels that must be that close to a colour of the table."""

Form = Literal[
    "ids",  # class ids and `IGNORE`, or 0/1 of a change mask; any palette that does not differ
    "colours",  # RGB of the class table
    "ambiguous",  # colours that are in the table in either order of the channels
    "mask-bgr",
    "palette-bgr",  # right indices, colours in reverse order
    "palette-order",  # the colours of the table, but not in its order
    "mask-channels",  # three copies of an otherwise right mask
    "change-255",  # a change mask of 0 and 255, the usual form
    "change-stray",  # the same, and a few pixels of other values
    "mask-0-255",  # 0 and 255 where class ids belong
    "mask-no-class",  # 0 and 255 among masks with classes, so 255 may be `IGNORE`
    "mask-ignore",  # class ids above 0, and 255
    "mask-stray",  # class ids, and a few pixels of other values
    "mask-lossy",
    "mask-values",
    "unreadable",
]


@dataclass(frozen=True)
class MaskForm:
    """The form of one mask file."""

    path: Path
    form: Form
    problem: str | None = None
    """The reader's error if the file could not be read."""
    has_class: bool = False
    """Whether it is known to hold the id of a class."""


def inspect_mask(path: Path, classes: ClassTable, is_change_mask: bool) -> MaskForm:
    """Return the form of a mask; a file that cannot be read has the form "unreadable"."""
    try:
        pixels = read_pixels(path)
    except DataError as error:
        return MaskForm(path, "unreadable", error.problem)
    if pixels.bands_CHW.dtype.kind not in "uib" or len(pixels.bands_CHW) not in (1, 3):
        bands, dtype = len(pixels.bands_CHW), pixels.bands_CHW.dtype.name
        return MaskForm(path, "unreadable", f"{path} has {bands} bands of {dtype}")
    if is_change_mask:
        return MaskForm(path, _tell_change_form(pixels))
    form = _tell_colour_form if len(pixels.bands_CHW) == 3 else _tell_index_form
    found = form(pixels, classes)
    ids_HW = pixels.bands_CHW[0]
    has_class = found == "ids" and bool(((ids_HW > 0) & (ids_HW <= classes.num_classes)).any())
    return MaskForm(path, found, has_class=has_class)


def settle_forms(forms: Iterable[MaskForm]) -> tuple[MaskForm, ...]:
    """Decide the forms of single masks that only the others can decide.

    Masks whose colours fit both orders of channels by those that fit only one: those of the same
    folder decide first, then all. Masks of 0 and 255 by whether others hold classes.
    """
    forms = tuple(forms)
    if any(form.has_class for form in forms):
        forms = tuple(
            replace(form, form="mask-no-class") if form.form == "mask-0-255" else form
            for form in forms
        )
    folders: dict[Path, set[Form]] = defaultdict(set)
    for form in forms:
        folders[form.path.parent].add(form.form)
    known = set().union(*folders.values())
    return tuple(
        replace(form, form=_choose_order(folders[form.path.parent], known))
        if form.form == "ambiguous"
        else form
        for form in forms
    )


def _choose_order(*witnesses: set[Form]) -> Form:
    for known in witnesses:
        if ("mask-bgr" in known) != ("colours" in known):
            return "mask-bgr" if "mask-bgr" in known else "colours"
    return "colours"


def read_any_mask(form: MaskForm, classes: ClassTable, is_change_mask: bool) -> np.ndarray | None:
    """Return the intended (H, W) uint8 class ids, None if they are ambiguous.

    A change mask gives 1 = changed (before any finding about its polarity).
    """
    if form.form in ("unreadable", "mask-values"):
        return None
    pixels = read_pixels(form.path)
    first_HW = pixels.bands_CHW[0]
    if is_change_mask:
        if form.form in ("mask-lossy", "change-stray"):
            return (pixels.bands_CHW.mean(axis=0) >= CHANGE_THRESHOLD).astype(np.uint8)
        return (_paint_black_and_white(pixels)[0] != 0).astype(np.uint8)
    match form.form:
        case "ids" | "palette-bgr" | "mask-channels" | "mask-no-class":
            return first_HW.astype(np.uint8)
        case "colours":
            return _find_colours(pixels.bands_CHW, classes)[0]
        case "mask-bgr":
            return _find_colours(pixels.bands_CHW[::-1], classes)[0]
        case "palette-order":
            return _find_colours(_paint(pixels), classes)[0]
        case "mask-ignore":
            return np.where(first_HW == IGNORE, 0, first_HW).astype(np.uint8)
        case "mask-stray":
            return np.where(first_HW > classes.num_classes, 0, first_HW).astype(np.uint8)
        case "mask-0-255" if classes.num_classes == 1:
            return (first_HW != 0).astype(np.uint8)
    return None


def _tell_change_form(pixels: Pixels) -> Form:
    bands_CHW = _paint_black_and_white(pixels)
    values = set(np.unique(bands_CHW).tolist())
    alike = all((band == bands_CHW[0]).all() for band in bands_CHW[1:])
    if alike and (values <= {0, 1} or values <= {0, 255}):
        if len(pixels.bands_CHW) == 3:
            return "mask-channels"
        return "ids" if values <= {0, 1} else "change-255"
    if bands_CHW.dtype != np.uint8:
        return "mask-values"
    if alike and not pixels.is_jpeg and find_strays(bands_CHW[0]) is not None:
        return "change-stray"
    distance_CHW = np.minimum(bands_CHW, 255 - bands_CHW)
    is_near = (distance_CHW <= NEAR_COLOUR).mean() >= MIN_NEAR_SHARE
    few = len(values) <= 8 and not pixels.is_jpeg  # classes, and no noise about two values
    return "mask-lossy" if is_near and values & set(range(128, 256)) and not few else "mask-values"


def _tell_index_form(pixels: Pixels, classes: ClassTable) -> Form:
    values = np.unique(pixels.bands_CHW).tolist()
    if pixels.is_jpeg:
        return "mask-lossy"
    num_ids = classes.num_classes + 1
    if pixels.palette is not None:
        table = np.array(classes.colours, np.uint8)
        if (pixels.palette[:num_ids] == table).all() and set(values) <= set(range(num_ids)):
            return "ids"
        # The whole palette, not only the used colours: colours of some classes fit either way.
        if (pixels.palette[:num_ids, ::-1] == table).all() and set(values) <= set(range(num_ids)):
            return "palette-bgr"
        ids_HW, known_HW = _find_colours(_paint(pixels), classes)
        if known_HW.all():
            return "ids" if (ids_HW == pixels.bands_CHW[0]).all() else "palette-order"
    return _tell_values(values, pixels.bands_CHW[0], num_ids)


def _tell_values(values: list, band_HW: np.ndarray, num_ids: int) -> Form:
    if set(values) <= set(range(num_ids)):
        return "ids"
    if set(values) <= {0, 255}:
        return "mask-0-255"
    if set(values) <= {*range(num_ids), IGNORE}:
        return "ids" if 0 in values else "mask-ignore"
    is_known_HW = (band_HW >= 0) & (band_HW < num_ids)
    if is_known_HW.mean() >= 1 - MAX_STRAY_SHARE:
        return "mask-stray"
    return "mask-values"


def _tell_colour_form(pixels: Pixels, classes: ClassTable) -> Form:
    bands_CHW = pixels.bands_CHW
    if bands_CHW.dtype != np.uint8:
        return "mask-values"
    if pixels.is_jpeg:
        return "mask-lossy"
    _, forward_HW = _find_colours(bands_CHW, classes)
    _, backward_HW = _find_colours(bands_CHW[::-1], classes)
    if forward_HW.all() and backward_HW.all():
        return "ambiguous"
    if forward_HW.all():
        return "colours"
    if backward_HW.all():
        return "mask-bgr"
    if (bands_CHW == bands_CHW[0]).all():
        values = np.unique(bands_CHW[0]).tolist()
        form = _tell_values(values, bands_CHW[0], classes.num_classes + 1)
        if form == "ids":
            return "mask-channels"
        if form in ("mask-0-255", "mask-ignore", "mask-stray"):
            return form
    return "mask-lossy" if _is_near_table(bands_CHW, classes) else "mask-values"


def _is_near_table(bands_CHW: np.ndarray, classes: ClassTable) -> bool:
    """Whether most pixels nearly have a colour of the table, and few have exactly one."""
    colours, counts_N = np.unique(bands_CHW.reshape(3, -1), axis=1, return_counts=True)
    differences = np.abs(colours.T[:, None].astype(int) - np.array(classes.colours)[None])
    distance_N = differences.max(axis=2).min(axis=1)
    near_share = counts_N[distance_N <= NEAR_COLOUR].sum() / counts_N.sum()
    # A few colours were painted; compression makes hundreds.
    return bool(near_share >= MIN_NEAR_SHARE and len(counts_N) > 2 * len(classes.colours))


def _find_colours(bands_CHW: np.ndarray, classes: ClassTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W) ids of colours, and where a colour is one of the table."""
    packed_HW = _pack(*bands_CHW.astype(np.uint32))
    ids_HW = np.zeros(packed_HW.shape, np.uint8)
    known_HW = np.zeros(packed_HW.shape, bool)
    for class_id, colour in enumerate(classes.colours):
        match_HW = packed_HW == _pack(*colour)
        ids_HW[match_HW & ~known_HW] = class_id
        known_HW |= match_HW
    return ids_HW, known_HW


def _pack(red, green, blue):
    return (red << 16) | (green << 8) | blue


def _paint(pixels: Pixels) -> np.ndarray:
    """Return the (3, H, W) colours of an indexed image."""
    assert pixels.palette is not None
    return pixels.palette[pixels.bands_CHW[0]].transpose(2, 0, 1)


def _paint_black_and_white(pixels: Pixels) -> np.ndarray:
    """Return a change mask as the loader reads it: a palette counts if black and white."""
    if pixels.palette is not None and {tuple(c) for c in pixels.palette.tolist()} == {
        (0, 0, 0),
        (255, 255, 255),
    }:
        return _paint(pixels)
    return pixels.bands_CHW
