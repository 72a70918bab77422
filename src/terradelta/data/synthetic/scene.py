"""A drawn scene: two pictures of a place and the truth about both.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from terradelta.data.synthetic.materials import Palette
from terradelta.data.synthetic.place import Place
from terradelta.data.synthetic.render import (
    Light,
    cast_shadow,
    draw_fields,
    draw_index,
    render,
    shift_picture,
)
from terradelta.data.synthetic.shapes import AFTER, BEFORE, Frame
from terradelta.errors import ArgumentError

LARGEST_SHIFT_PX = 1.0
LARGEST_CHANGE_RATE = 0.4
STREET_M = 9.0
_MARGIN_PX = 4
_TALLEST_M = 15.0


class ScenePair(NamedTuple):
    """Two dates of a drawn place. The truth lies in the before image's pixels."""

    before_CHW: np.ndarray
    """(3, H, W) uint8 red, green, blue."""
    after_CHW: np.ndarray
    """(3, H, W) uint8 red, green, blue."""
    before_class_HW: np.ndarray
    """(H, W) uint8 land cover, 1 to 6, everywhere."""
    after_class_HW: np.ndarray
    """(H, W) uint8 land cover, 1 to 6, everywhere."""

    @property
    def change_HW(self) -> np.ndarray:
        """(H, W) bool, True where the land cover differs."""
        return self.before_class_HW != self.after_class_HW

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class ids before and after where changed, else 0, as an annotator would draw them."""
        return (
            np.where(self.change_HW, self.before_class_HW, 0).astype(np.uint8),
            np.where(self.change_HW, self.after_class_HW, 0).astype(np.uint8),
        )


class Scenery:
    """Properties shared by all parts of a scene: climate, seasons, light, rate of change.

    Args:
        seed: Seed of all of it; any int or sequence of ints of at least 0.
        change_rate: Probability that an object or plot changes; drawn from 0 to 0.4 if None.
    """

    def __init__(self, seed: int | tuple[int, ...], change_rate: float | None = None):
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        self.palette = Palette(rng)
        self.before = Light.draw(rng, largest_shift_px=0.0)
        self.after = Light.draw(rng, largest_shift_px=LARGEST_SHIFT_PX)
        drawn = 0.0 if rng.random() < 0.08 else rng.uniform(0.08, LARGEST_CHANGE_RATE)
        self.change_rate = drawn if change_rate is None else change_rate

    def draw(
        self, seed: tuple[int, ...], size: tuple[int, int], gsd_m: float, *, fenced: bool = False
    ) -> ScenePair:
        """Draw one place of (rows, columns) pixels.

        A `fenced` place is square, its streets run along rows and columns, half a street lies along
        its edge and nothing is cut by it, so that adjacent places have no seam.
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        height, width = size[0] + 2 * _MARGIN_PX, size[1] + 2 * _MARGIN_PX
        turn = 0.0 if fenced else rng.uniform(-math.pi / 4, math.pi / 4)
        frame = Frame(gsd_m, turn, (width / 2, height / 2))
        fenced_m = (size[0] * gsd_m - STREET_M) / 2
        extent_m = fenced_m if fenced else 0.75 * max(height, width) * gsd_m
        place = Place(rng, self.palette, frame, extent_m, self.change_rate, fenced=fenced)
        shapes = sorted(place.shapes, key=lambda shape: shape.layer)
        shared_FHW = draw_fields((height, width), rng)
        pictures, classes = [], []
        class_ids = np.array([shape.class_id for shape in shapes], np.uint8)
        heights = np.array([shape.height_px for shape in shapes], np.float32)
        # One border for both dates: Pillow's edges may differ by a pixel with the offset.
        longest = max(self.before.shadow_length, self.after.shadow_length)
        border_px = math.ceil(_TALLEST_M / gsd_m * longest)
        for date, light in ((BEFORE, self.before), (AFTER, self.after)):
            wide_HW = draw_index(shapes, date, (height, width), border_px=border_px)
            index_HW = wide_HW[border_px:-border_px, border_px:-border_px]
            shadow_HW = cast_shadow(heights[wide_HW], border_px, light)
            # Ground keeps its patches over the years, and half of its grain.
            fields_FHW = 0.75 * shared_FHW + 0.65 * draw_fields((height, width), rng)
            picture_CHW = render(shapes, index_HW, shadow_HW, date, fields_FHW, light, rng)
            pictures.append(shift_picture(picture_CHW, light.shift_px))
            classes.append(class_ids[index_HW])
        inside = slice(_MARGIN_PX, height - _MARGIN_PX), slice(_MARGIN_PX, width - _MARGIN_PX)
        return ScenePair(
            *(picture_CHW[:, *inside].copy() for picture_CHW in pictures),
            *(class_HW[inside].copy() for class_HW in classes),
        )


def draw_pair(
    seed: int | tuple[int, ...],
    size_px: int | tuple[int, int] = 256,
    *,
    gsd_m: float = 0.5,
    change_rate: float | None = None,
) -> ScenePair:
    """Draw two dates of a place that may have all six SENSEEARTH classes.

    Seasons, light, shadow, sensor and registration differ between the dates but are not change;
    buildings are built and demolished, groves felled and planted, fields flooded, dried and paved,
    sports fields laid out.

    Args:
        seed: The same seed draws the same bytes.
        size_px: Side, or (rows, columns).
        gsd_m: Ground size of a pixel in metres.
        change_rate: Probability that an object or plot changes; drawn from 0 to 0.4 if None.

    Raises:
        ArgumentError: If a size is below 32 px or the ground size is not between 0.1 and 2 m.
    """
    size = (size_px, size_px) if isinstance(size_px, int) else size_px
    check_size(min(size), gsd_m)
    parts = (seed,) if isinstance(seed, int) else seed
    return Scenery(parts, change_rate).draw((*parts, 0, 0), size, gsd_m)


def check_size(size_px: int, gsd_m: float):
    """Raise if a scene cannot be drawn at that size.

    Raises:
        ArgumentError: If it is too small, or the ground size is out of range.
    """
    if size_px < 32:
        raise ArgumentError(
            f"a scene of {size_px} px is smaller than a house", fix="draw at least 32 px"
        )
    if not 0.1 <= gsd_m <= 2:
        raise ArgumentError(
            f"pixels of {gsd_m} m were requested, and scenes are drawn at 0.1 to 2 m",
            fix="use a ground size in that range",
        )
