"""Draws pictures from shapes: light, shadow, texture and sensor of one date.

Legend of the array names: C bands, H rows, W columns. All randomness comes from the given
generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from terradelta.data.synthetic.shapes import BEFORE, Shape

GRAIN, MOTTLE, PATCHES, CANOPY = range(4)
_FIELD_SCALES_PX = (1.0, 3.0, 18.0)


@dataclass(frozen=True)
class Light:
    """Sun, air and sensor at one date."""

    azimuth: float
    """Direction that shadows fall in, radians in the picture."""
    shadow_length: float
    """Length of a shadow per height of its object."""
    shade: float
    """Share of light in shadow."""
    gain: tuple[float, float, float]
    """Factor of each band: brightness and colour cast."""
    haze: tuple[float, float, float]
    """Added to each band, 0 to 255."""
    contrast: float
    """Factor of the distance from mid-grey."""
    blur_px: float
    """Radius of the sensor's blur."""
    noise: float
    """Standard deviation of the sensor's noise, 0 to 255."""
    shift_px: tuple[float, float]
    """Misregistration along x and y."""

    @classmethod
    def draw(cls, rng: np.random.Generator, *, largest_shift_px: float) -> Light:
        """Return a random light."""
        warmth = rng.uniform(-0.07, 0.07)
        brightness = rng.uniform(0.78, 1.2)
        haze = rng.uniform(0, 22)
        tint = 1 + rng.uniform(-0.03, 0.03)
        return cls(
            azimuth=rng.uniform(0, math.tau),
            shadow_length=rng.uniform(0.3, 1.2),
            shade=rng.uniform(0.42, 0.65),
            gain=(brightness * (1 + warmth), brightness * tint, brightness * (1 - warmth)),
            haze=(haze, haze * 1.05, haze * 1.2),
            contrast=rng.uniform(0.85, 1.15),
            blur_px=rng.uniform(0.25, 0.75),
            noise=rng.uniform(1.0, 4.0),
            shift_px=tuple(rng.uniform(-largest_shift_px, largest_shift_px, 2)),
        )


def draw_index(
    shapes: list[Shape], date: int, size: tuple[int, int], *, border_px: int = 0
) -> np.ndarray:
    """Return which shape is on top at each pixel, (H, W) int32 positions in `shapes`.

    With a border the array is that many pixels wider on every side.
    """
    canvas = Image.new("I", (size[1] + 2 * border_px, size[0] + 2 * border_px), 0)
    draw = ImageDraw.Draw(canvas)
    for position, shape in enumerate(shapes):
        if shape.dates & date:
            draw.polygon(_vertices(shape.outline + border_px), fill=position)
    return np.asarray(canvas)


def cast_shadow(height_HW: np.ndarray, border_px: int, light: Light) -> np.ndarray:
    """Return where sunlight is blocked, (H, W) bool, without the border of the heights.

    Only the top shape casts a shadow, so hidden or felled objects do not.

    Args:
        height_HW: Heights in pixels of the top shapes, with a border.
        border_px: Width of the border, from which shadows still reach into the picture.
        light: Light, with the position of the sun.
    """
    inside = slice(border_px, -border_px), slice(border_px, -border_px)
    own_HW = height_HW[inside]
    shadow_HW = np.zeros(own_HW.shape, bool)
    reach_px = min(border_px, math.ceil(height_HW.max() * light.shadow_length))
    for distance in range(1, reach_px + 1):
        x = round(distance * math.cos(light.azimuth))
        y = round(distance * math.sin(light.azimuth))
        rows = slice(border_px - y, border_px - y + own_HW.shape[0])
        columns = slice(border_px - x, border_px - x + own_HW.shape[1])
        ray_HW = height_HW[rows, columns] - np.float32(distance / light.shadow_length)
        # Half a pixel of tolerance, so that a roof does not shade its own ridge or unit.
        shadow_HW |= ray_HW > own_HW + 0.5
    return shadow_HW


def draw_fields(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the noise fields grain, mottle, patches and canopy, (4, H, W), about -1 to 1."""
    fields = [_draw_noise(size, scale, rng) for scale in _FIELD_SCALES_PX]
    # Crowns side by side: bright bumps with dark gaps.
    bumps = _draw_noise(size, 4.5, rng)
    return np.stack([*fields, 0.28 * np.minimum(bumps, 0.6) - 0.12])


def render(
    shapes: list[Shape],
    index_HW: np.ndarray,
    shadow_HW: np.ndarray,
    date: int,
    fields_FHW: np.ndarray,
    light: Light,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the picture of one date, (3, H, W) uint8, without its shift."""
    which = 0 if date == BEFORE else 1
    colours = np.array([shape.colours[which] for shape in shapes], np.float32)
    sun = -math.cos(light.azimuth), -math.sin(light.azimuth)
    tilt = np.array([s.slope[0] * sun[0] + s.slope[1] * sun[1] for s in shapes], np.float32)
    colours *= (1 + 0.5 * tilt * min(light.shadow_length, 1))[:, None]
    textures = np.array([shape.texture for shape in shapes], np.float32)
    picture_HWC = colours[index_HW]
    amplitudes_HWF = textures[index_HW]
    relative_HW = 1 + np.einsum("hwf,fhw->hw", amplitudes_HWF, fields_FHW)
    relative_HW += _draw_rows(shapes, index_HW)
    picture_HWC *= relative_HW[..., None]
    shade = np.array([light.shade * 0.94, light.shade, light.shade * 1.12], np.float32)
    picture_HWC[shadow_HW] *= shade
    picture_HWC = picture_HWC * np.array(light.gain, np.float32) + np.array(light.haze, np.float32)
    picture_HWC = 118 + (picture_HWC - 118) * light.contrast
    picture = Image.fromarray(np.clip(picture_HWC, 0, 255).astype(np.uint8))
    blurred_HWC = np.asarray(picture.filter(ImageFilter.GaussianBlur(light.blur_px)), np.float32)
    noisy_HWC = blurred_HWC + light.noise * rng.standard_normal(blurred_HWC.shape, np.float32)
    return np.moveaxis(np.clip(np.rint(noisy_HWC), 0, 255).astype(np.uint8), -1, 0)


def shift_picture(picture_CHW: np.ndarray, shift_px: tuple[float, float]) -> np.ndarray:
    """Return a picture moved by (x, y) pixels, bilinearly; edge pixels are repeated."""
    x, y = shift_px
    height, width = picture_CHW.shape[1:]
    rows = np.clip(np.arange(height) - y, 0, height - 1)
    columns = np.clip(np.arange(width) - x, 0, width - 1)
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[:, None], columns - left
    source_CHW = picture_CHW.astype(np.float32)
    upper = source_CHW[:, top]
    lower = source_CHW[:, bottom]
    mixed = upper * (1 - down) + lower * down
    mixed = mixed[:, :, left] * (1 - across) + mixed[:, :, right] * across
    return np.rint(mixed).astype(np.uint8)


def _draw_noise(size: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    height, width = size
    coarse = rng.standard_normal(
        (math.ceil(height / scale_px) + 1, math.ceil(width / scale_px) + 1), np.float32
    )
    if scale_px == 1:
        return coarse[:height, :width]
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _draw_rows(shapes: list[Shape], index_HW: np.ndarray) -> np.ndarray:
    """Return the relative brightness of crop rows, 0 outside of them."""
    waves = np.array(
        [
            (
                math.tau / shape.row_period_px * math.cos(shape.row_angle),
                math.tau / shape.row_period_px * math.sin(shape.row_angle),
                0.1,
            )
            if shape.row_period_px
            else (0, 0, 0)
            for shape in shapes
        ],
        np.float32,
    )
    if not waves[:, 2].any():
        return np.zeros(index_HW.shape, np.float32)
    rows, columns = np.indices(index_HW.shape, np.float32)
    wave_HWN = waves[index_HW]
    phase = wave_HWN[..., 0] * columns + wave_HWN[..., 1] * rows
    return wave_HWN[..., 2] * np.sin(phase)


def _vertices(outline: np.ndarray) -> list[int]:
    # Pillow would round towards zero.
    return np.rint(outline).astype(int).ravel().tolist()
