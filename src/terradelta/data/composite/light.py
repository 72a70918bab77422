"""Light, season and sensor of one date of a composed pair.

Legend of the array names: C bands, H rows, W columns. All randomness comes from the given
generator. With every option at 0 a picture is unchanged, bit for bit.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from terradelta.data.composite.options import Composition
from terradelta.data.synthetic.render import shift_picture

_SEASON_EDGE_PX = 2.0
_FACTOR_STEPS = 100
"""Grey levels of the image that holds the classes' factors: steps of 1 %."""


def expose(
    image_CHW: np.ndarray,
    classes_HW: np.ndarray,
    shift_px: tuple[float, float],
    rng: np.random.Generator,
    options: Composition,
) -> np.ndarray:
    """Return a picture as from another sensor on another day, (C, H, W) uint8.

    Args:
        image_CHW: Float32 grey levels, 0 to 255.
        classes_HW: Its land cover: each class has its own season.
        shift_px: Misregistration along x and y; edge pixels are repeated.
        rng: Draws light, season, blur and noise.
        options: Their spreads.
    """
    if options.season:
        image_CHW = image_CHW * _draw_season(classes_HW, len(image_CHW), rng, options.season)
    if options.light:
        image_CHW = _relight(image_CHW, rng, options.light)
    picture_CHW = shift_picture(_to_bytes(image_CHW), shift_px)
    if options.blur_px:
        picture = Image.fromarray(np.moveaxis(picture_CHW, 0, -1))
        blur = ImageFilter.GaussianBlur(rng.uniform(0, options.blur_px))
        picture_CHW = np.moveaxis(np.asarray(picture.filter(blur)), -1, 0)
    if options.noise:
        deviation = np.float32(rng.uniform(0, options.noise))
        noise_CHW = deviation * rng.standard_normal(picture_CHW.shape, np.float32)
        picture_CHW = _to_bytes(picture_CHW + noise_CHW)
    return picture_CHW


def draw_field(size: tuple[int, int], cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise, (H, W) float32 of about -2 to 2, with `cells` bumps along a side."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def draw_gain(bands: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Return a factor for each band, (C, 1, 1): brightness, and a third as much colour cast."""
    brightness = rng.uniform(1 - spread, 1 + spread)
    cast = rng.uniform(1 - spread / 3, 1 + spread / 3, (bands, 1, 1))
    return (brightness * cast).astype(np.float32)


def _draw_season(
    classes_HW: np.ndarray, bands: int, rng: np.random.Generator, spread: float
) -> np.ndarray:
    """Return each pixel's factors, (C, H, W), blurred to hide the classes' outlines."""
    factors = np.stack([draw_gain(bands, spread, rng).ravel() for _ in range(256)])
    steps = np.rint(factors * _FACTOR_STEPS).astype(np.uint8)
    picture = Image.fromarray(steps[classes_HW]).filter(ImageFilter.GaussianBlur(_SEASON_EDGE_PX))
    return np.moveaxis(np.asarray(picture, np.float32), -1, 0) / _FACTOR_STEPS


def _relight(image_CHW: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    gamma = np.float32(np.exp(rng.uniform(-spread, spread)))
    haze = np.float32(rng.uniform(0, 60 * spread))
    illumination_HW = 1 + spread / 6 * draw_field(image_CHW.shape[1:], 3, rng)
    lit_CHW = 255 * (image_CHW.clip(0, 255) / 255) ** gamma
    return lit_CHW * draw_gain(len(image_CHW), spread, rng) * illumination_HW + haze


def _to_bytes(image_CHW: np.ndarray) -> np.ndarray:
    return np.rint(image_CHW).clip(0, 255).astype(np.uint8)
