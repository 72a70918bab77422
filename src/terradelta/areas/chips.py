"""Small pictures of a place at both dates, for the interpreters of a sample.

Legend of the array names: C bands, H rows, W columns, N places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from terradelta.geo.grid import cut_window
from terradelta.geo.pair import RasterPair
from terradelta.geo.stretch import draw_rgb, find_range

PICTURE_PX = 480
"""Approximate width of a chip; a pixel of the map is a whole number of its pixels."""
OVERVIEW_PX = 512
FRAME = (255, 0, 255)
NO_DATA = (90, 90, 90)


class PointChip(NamedTuple):
    """The files of the two pictures of a place."""

    before: Path
    """PNG of the earlier date."""
    after: Path
    """PNG of the later date."""


def write_chips(
    pair: RasterPair, places: Iterable[tuple[str, int, int]], folder: Path, size_px: int
) -> Iterator[PointChip]:
    """Draw the surroundings of pixels, each in the middle of its chips, in a frame.

    All chips of a date get the same stretch, unless they are 8-bit already.

    Args:
        pair: The two rasters; the first three bands are drawn as red, green, blue.
        places: Name, row and column of each, on the part of the grid that was mapped.
        folder: Folder for NAME_before.png and NAME_after.png.
        size_px: Width and height of a chip in pixels of the map.

    Yields:
        The files of each place.

    Raises:
        RasterError: If pixels cannot be read.
    """
    ranges = _find_ranges(pair)
    for name, row, column in places:
        window = _around(row, column, size_px)
        images = _read(pair, window)
        paths = PointChip(folder / f"{name}_before.png", folder / f"{name}_after.png")
        for path, image_CHW, value_range in zip(paths, images[:2], ranges, strict=True):
            _draw(image_CHW, images[2], value_range).save(path)
        yield paths


def _around(row: int, column: int, size_px: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a square with a pixel in its middle."""
    return row - size_px // 2, column - size_px // 2, size_px, size_px


def _read(
    pair: RasterPair, window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both dates of a window and its valid pixels; the window may reach beyond the map."""
    top, left, height, width = window
    top, left = top + int(pair.area.row_off), left + int(pair.area.col_off)
    inner_top, inner_left = max(0, top), max(0, left)
    inner_bottom = min(pair.grid.height, top + height)
    inner_right = min(pair.grid.width, left + width)
    read = pair.read(
        cut_window(inner_left, inner_top, inner_right - inner_left, inner_bottom - inner_top)
    )
    rows = slice(inner_top - top, inner_bottom - top)
    columns = slice(inner_left - left, inner_right - left)

    def place(part: np.ndarray) -> np.ndarray:
        whole = np.zeros((*part.shape[:-2], height, width), part.dtype)
        whole[..., rows, columns] = part
        return whole

    return place(read.before_CHW), place(read.after_CHW), place(read.data_HW)


def _find_ranges(pair: RasterPair) -> list[tuple[float, float]]:
    """Return the values drawn as black and white for each date."""
    scale = max(1.0, max(pair.area.height, pair.area.width) / OVERVIEW_PX)
    shape = round(pair.area.height / scale) or 1, round(pair.area.width / scale) or 1
    overview = pair.read_overview(shape)
    return [
        find_range(image_CHW, overview.data_HW)
        for image_CHW in (overview.before_CHW, overview.after_CHW)
    ]


def _draw(
    image_CHW: np.ndarray, data_HW: np.ndarray, value_range: tuple[float, float]
) -> Image.Image:
    shade_HWC = np.moveaxis(draw_rgb(image_CHW, value_range), 0, -1).copy()
    shade_HWC[~data_HW] = NO_DATA
    size_px = len(shade_HWC)
    zoom = max(1, PICTURE_PX // size_px)
    picture = Image.fromarray(np.kron(shade_HWC, np.ones((zoom, zoom, 1), np.uint8)))
    edge = size_px // 2 * zoom
    # Around the pixel, not on it.
    ImageDraw.Draw(picture).rectangle(
        (edge - 2, edge - 2, edge + zoom + 1, edge + zoom + 1), None, FRAME, width=2
    )
    return picture
