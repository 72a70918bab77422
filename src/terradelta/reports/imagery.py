"""Pictures of a pair of rasters: the whole, and the surroundings of a patch.

Legend of the array names: C bands, H rows, W columns; last C red, green, blue, alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from PIL import Image
from rasterio.windows import Window

from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.pair import RasterPair
from terradelta.geo.stretch import draw_rgb, find_range

MAX_SIDE_PX = 1400
CHIP_SIZE_PX = 208
SMALLEST_CHIP_PX = 56
"""Side of a chip on the ground, in pixels of the map: smaller ones show no surroundings."""
CHIP_MARGIN = 1.7
"""Side of a chip, as a multiple of the side of its patch."""
READ_FACTOR = 2
"""How many times finer a picture is read than it is shown: averaging avoids jagged edges."""
OUTLINE_TOLERANCE_PX = 0.6
"""Tolerance of an outline drawn on a chip; a large patch has very many corners."""


@dataclass(frozen=True)
class PatchChip:
    """A square of ground around a patch."""

    window: Window
    """In pixels of the map."""
    outline: str
    """SVG path of the patch, in pixels of the chip's picture."""


def choose_shape(grid: Grid) -> tuple[int, int]:
    """Return rows and columns of a picture of a whole map."""
    scale = max(1.0, max(grid.width, grid.height) / MAX_SIDE_PX)
    return max(1, round(grid.height / scale)), max(1, round(grid.width / scale))


def place_chip(outline: shapely.Polygon, grid: Grid) -> PatchChip:
    """Return the square around a patch, within the map.

    Args:
        outline: The patch, in the map's CRS.
        grid: The map's pixels.
    """
    pixels = shapely.transform(outline, lambda points_N2: _to_pixels(points_N2, grid))
    left, top, right, bottom = shapely.bounds(pixels)
    side = max(right - left, bottom - top) * CHIP_MARGIN
    side = int(np.ceil(min(max(side, SMALLEST_CHIP_PX), grid.width, grid.height)))
    column = int(np.clip(round((left + right - side) / 2), 0, grid.width - side))
    row = int(np.clip(round((top + bottom - side) / 2), 0, grid.height - side))
    scale = CHIP_SIZE_PX / side
    shown = shapely.transform(pixels, lambda points_N2: (points_N2 - (column, row)) * scale)
    return PatchChip(
        cut_window(column, row, side, side),
        _draw_path(shapely.simplify(shown, OUTLINE_TOLERANCE_PX)),
    )


def _to_pixels(points_N2: np.ndarray, grid: Grid) -> np.ndarray:
    columns, rows = ~grid.transform @ (points_N2[:, 0], points_N2[:, 1])  # pyright: ignore[reportOperatorIssue]
    return np.stack([columns, rows], axis=1)


def _draw_path(polygon: shapely.Geometry) -> str:
    rings = shapely.get_rings(polygon)
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring.coords[:-1]) + "z" for ring in rings
    )


class Imagery:
    """Pictures of both dates, all with the same stretch of values.

    Args:
        pair: The rasters; their first three bands are drawn as red, green, blue. Values other than
            8-bit ones are stretched from their 2nd to their 98th percentile over the whole.
        shape: Rows and columns of the picture of the whole.
    """

    def __init__(self, pair: RasterPair, shape: tuple[int, int]):
        self._pair = pair
        rows, columns = shape
        area = pair.area
        factor = min(READ_FACTOR, max(1, int(area.width) // columns))
        whole = pair.read_overview((rows * factor, columns * factor))
        images = whole.before_CHW, whole.after_CHW
        self._ranges = [find_range(image_CHW, whole.valid_HW) for image_CHW in images]
        self.before, self.after = (
            draw_photograph(image_CHW, whole.valid_HW, value_range, shape)
            for image_CHW, value_range in zip(images, self._ranges, strict=True)
        )

    def cut(self, chip: PatchChip) -> tuple[np.ndarray, np.ndarray]:
        """Return before and after of a chip, (H, W, 4) uint8."""
        area, window = self._pair.area, chip.window
        place = cut_window(
            int(area.col_off + window.col_off),
            int(area.row_off + window.row_off),
            int(window.width),
            int(window.height),
        )
        side = min(int(window.width), READ_FACTOR * CHIP_SIZE_PX)
        images = self._pair.read_overview((side, side), place)
        before, after = (
            draw_photograph(image_CHW, images.valid_HW, value_range, (CHIP_SIZE_PX, CHIP_SIZE_PX))
            for image_CHW, value_range in zip(images[:2], self._ranges, strict=True)
        )
        return before, after


def draw_photograph(
    image_CHW: np.ndarray,
    valid_HW: np.ndarray,
    value_range: tuple[float, float],
    shape: tuple[int, int],
) -> np.ndarray:
    """Return an RGBA picture of this shape, clear where invalid."""
    colours_CHW = draw_rgb(image_CHW, value_range)
    alpha_1HW = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    image = Image.fromarray(
        np.ascontiguousarray(np.moveaxis(np.concatenate([colours_CHW, alpha_1HW]), 0, -1))
    )
    rows, columns = shape
    if image.size == (columns, rows):
        return np.asarray(image)
    shrinks = image.width > columns
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(image.resize((columns, rows), method))
