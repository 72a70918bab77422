"""The part of an image for which a network answers, where the rest would be thrown away.

Legend of the tensor names: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from torch import Tensor

Side = TypeVar("Side", int, Tensor)


class Crop(NamedTuple):
    """A part of an image, in pixels.

    Its numbers are `int`; while a graph is traced they are 0-dimensional int64 tensors, so that one
    graph answers for any part.
    """

    top: int
    bottom: int
    """The row after the last one."""
    left: int
    right: int
    """The column after the last one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def widen(self, margin_px: int, multiple_px: int, size: tuple[int, int]) -> Crop:
        """Return a crop with a margin around this one, as far as the image reaches.

        Args:
            margin_px: Width of the margin.
            multiple_px: Its sides are rounded outwards to multiples of this, which divides those of
                the image.
            size: Height and width of the image.
        """
        margin_px = -(-margin_px // multiple_px) * multiple_px
        height, width = size
        return Crop(
            _limit(self.top // multiple_px * multiple_px - margin_px, 0, height),
            _limit(-(-self.bottom // multiple_px) * multiple_px + margin_px, 0, height),
            _limit(self.left // multiple_px * multiple_px - margin_px, 0, width),
            _limit(-(-self.right // multiple_px) * multiple_px + margin_px, 0, width),
        )

    def within(self, outer: Crop) -> Crop:
        """Return this crop in the pixels of another one that contains it."""
        return Crop(
            self.top - outer.top,
            self.bottom - outer.top,
            self.left - outer.left,
            self.right - outer.left,
        )

    def take(self, x_BCHW: Tensor, stride_px: int) -> Tensor:
        """Return the part of features or scores, (B, ..., h, w).

        Args:
            x_BCHW: Features of the whole image.
            stride_px: Pixels of the image for each of them; it divides the crop's sides.
        """
        top, bottom, left, right = (side // stride_px for side in self)
        return x_BCHW[..., top:bottom, left:right]


def _limit(side: Side, low: int, high: int) -> Side:
    if isinstance(side, Tensor):
        return side.clamp(low, high)
    return min(max(side, low), high)
