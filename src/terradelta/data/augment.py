"""Flips, rotations by right angles, crops, zooms and colour changes of a pair and its labels.

Shapes: B batch, C bands, H rows, W columns. All randomness comes from the given generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from terradelta.data.dataset import PairSample
from terradelta.errors import ArgumentError, DataError


@dataclass(frozen=True)
class View:
    """One of the eight symmetries of a square: a left-right flip, then quarter turns."""

    name: str
    quarter_turns: int = 0
    """Number of counter-clockwise quarter turns, 0 to 3."""
    flip: bool = False
    """Whether left and right are swapped before turning."""


IDENTITY = View("identity")
FLIP_HORIZONTAL = View("flip_horizontal", flip=True)
FLIP_VERTICAL = View("flip_vertical", 2, flip=True)
TURN_90 = View("turn_90", 1)
TURN_180 = View("turn_180", 2)
TURN_270 = View("turn_270", 3)
TRANSPOSE = View("transpose", 1, flip=True)
TRANSVERSE = View("transverse", 3, flip=True)

VIEW_SETS: dict[str, tuple[View, ...]] = {
    "none": (IDENTITY,),
    "flips": (IDENTITY, FLIP_HORIZONTAL, FLIP_VERTICAL, TURN_180),
    "d4": (
        IDENTITY,
        FLIP_HORIZONTAL,
        FLIP_VERTICAL,
        TURN_90,
        TURN_180,
        TURN_270,
        TRANSPOSE,
        TRANSVERSE,
    ),
    "seed6": (IDENTITY, FLIP_HORIZONTAL, FLIP_VERTICAL, TURN_90, TURN_180, TURN_270),
}
"""Named sets of views: `seed6` is the reference implementation's, `d4` has all eight."""

VIEWS = VIEW_SETS["seed6"]
"""The six views of the reference implementation."""


def apply_view(tensor: Tensor, view: View) -> Tensor:
    """Flip and turn the last two axes (H, W); quarter turns swap their sizes."""
    if view.flip:
        tensor = tensor.flip(-1)
    return torch.rot90(tensor, view.quarter_turns, (-2, -1)) if view.quarter_turns else tensor


def undo_view(tensor: Tensor, view: View) -> Tensor:
    """Invert `apply_view` on the last two axes."""
    if view.quarter_turns:
        tensor = torch.rot90(tensor, -view.quarter_turns, (-2, -1))
    return tensor.flip(-1) if view.flip else tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training pair, in this order: crop, zoom, view, colours, swap of dates.

    Both dates and both labels get one crop, one zoom and one view; each date gets its own colours;
    labels keep theirs. The defaults are the reference implementation's: one of six views,
    uniformly. A sample that is not square after the crop would change its shape by a quarter turn
    and not fit into a batch, so then a quarter turn becomes a half turn.

    Raises:
        ArgumentError: If a field is out of its range.
    """

    views: str = "seed6"
    """Name of the set in `VIEW_SETS` to draw from."""
    crop_size_px: int | None = None
    """Side of the square to cut out; None keeps the whole image."""
    zoom: float = 0.0
    """The square is cut out smaller or larger and resized to its side: by a factor from
    1 / (1 + zoom) to 1 + zoom, log-uniformly, and never larger than the image. Images are
    interpolated bilinearly, with antialiasing where they are reduced; labels take the nearest."""
    brightness: float = 0.0
    """Both dates are multiplied by a factor from 1 - brightness to 1 + brightness."""
    contrast: float = 0.0
    """Distances from the mean are multiplied by a factor from 1 - contrast to 1 + contrast."""
    colour: float = 0.0
    """Each band is multiplied by its own factor from 1 - colour to 1 + colour."""
    swap_dates: bool = False
    """Whether before and after are swapped, with their labels, half of the time."""

    def __post_init__(self):
        if self.views not in VIEW_SETS:
            raise ArgumentError(
                f"there is no set of views {self.views!r}", fix=f"use one of {', '.join(VIEW_SETS)}"
            )
        if self.crop_size_px is not None and self.crop_size_px < 1:
            raise ArgumentError(
                f"crop_size_px is {self.crop_size_px}, and it must be 1 or more",
                fix="give the side of the crop in pixels, or leave it out",
            )
        if self.zoom and self.crop_size_px is None:
            raise ArgumentError(
                f"zoom is {self.zoom} without a crop, and zoomed images would differ in size",
                fix="set crop_size_px too: --crop-size-px 256",
            )
        for name in ("zoom", "brightness", "contrast", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(
                    f"{name} is {getattr(self, name)}, and it must be 0 to 1", fix="try 0.2"
                )

    def __call__(self, sample: PairSample, generator: torch.Generator) -> PairSample:
        """Return a changed copy of an unbatched sample; all randomness comes from `generator`.

        Raises:
            DataError: If the sample is smaller than the crop: nothing is padded, as padded labels
                would count as unchanged.
        """
        *layers, index = sample
        if self.crop_size_px is not None:
            layers = _crop(layers, self.crop_size_px, self.zoom, generator)
        layers = _turn(layers, VIEW_SETS[self.views], generator)
        before, after, before_labels, after_labels, change = layers
        if self.brightness or self.contrast or self.colour:
            before = self._recolour(before, generator)
            after = self._recolour(after, generator)
        if self.swap_dates and torch.rand((), generator=generator) < 0.5:
            before, after = after, before
            before_labels, after_labels = after_labels, before_labels
        return PairSample(before, after, before_labels, after_labels, change, index)

    def _recolour(self, image_CHW: Tensor, generator: torch.Generator) -> Tensor:
        def draw_factors(spread: float, num: int) -> Tensor:
            return 1 + spread * (2 * torch.rand((num, 1, 1), generator=generator) - 1)

        pixels_CHW = image_CHW.float()
        pixels_CHW = pixels_CHW * draw_factors(self.brightness, 1)
        pixels_CHW = pixels_CHW * draw_factors(self.colour, len(image_CHW))
        mean = pixels_CHW.mean()
        pixels_CHW = mean + (pixels_CHW - mean) * draw_factors(self.contrast, 1)
        if image_CHW.dtype == torch.uint8:
            return pixels_CHW.round().clamp(0, 255).to(torch.uint8)
        return pixels_CHW


def _draw_integer(stop: int, generator: torch.Generator) -> int:
    return int(torch.randint(stop, (), generator=generator))


def _crop(
    layers: list[Tensor], size_px: int, zoom: float, generator: torch.Generator
) -> list[Tensor]:
    height, width = layers[0].shape[-2:]
    if min(height, width) < size_px:
        raise DataError(
            f"the image is {height} x {width} pixels, and the crop {size_px} x {size_px}",
            fix=f"set crop_size_px to {min(height, width)} or less, or leave out small images",
        )
    side_px = size_px
    if zoom:
        exponent = 2 * float(torch.rand((), generator=generator)) - 1
        side_px = min(max(1, round(size_px * (1 + zoom) ** exponent)), height, width)
    top = _draw_integer(height - side_px + 1, generator)
    left = _draw_integer(width - side_px + 1, generator)
    squares = [layer[..., top : top + side_px, left : left + side_px] for layer in layers]
    return squares if side_px == size_px else [_resize(square, size_px) for square in squares]


def _resize(layer: Tensor, size_px: int) -> Tensor:
    """Return a square image (C, H, W) or label (H, W) with another side."""
    if layer.ndim == 2:
        nearest = (torch.arange(size_px) + 0.5) * (layer.shape[-1] / size_px)
        return layer[nearest.long()][:, nearest.long()]
    size = (size_px, size_px)
    (resized,) = interpolate(layer[None].float(), size, mode="bilinear", antialias=True)
    return resized.round().to(layer.dtype) if layer.dtype == torch.uint8 else resized


def _turn(
    layers: list[Tensor], views: tuple[View, ...], generator: torch.Generator
) -> list[Tensor]:
    view = views[_draw_integer(len(views), generator)]
    height, width = layers[0].shape[-2:]
    if height != width and view.quarter_turns % 2:
        view = View(f"{view.name}_as_half_turn", 2, view.flip)
    return [apply_view(layer, view).contiguous() for layer in layers]
