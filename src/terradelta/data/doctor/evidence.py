"""Measures images only: where dates differ, whether they align, which resemble each other.

Legend of the array names: C bands, H rows, W columns, P patches, N values.
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from terradelta.geo.registration import UNKNOWN, Shift, measure_stack

SIGNATURE_SIDE = 32
COARSE_SIDE = SIGNATURE_SIDE // 4
_WINDOW_PX = 17
_LEAST_VARIANCE = 0.1
"""Contrast of standardised images; with less detail the correlation is unreliable."""
_LEVELS = 512
_MOST_PIXELS_A_SIDE = 512
_PATCH_SIDES_PX = (64, 256)
_PATCHES_PER_SIDE = 4


def digest(image_CHW: np.ndarray) -> bytes:
    """Return a key that only images with the same pixels share."""
    head = f"{image_CHW.shape} {image_CHW.dtype}".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(image_CHW).tobytes()).digest()


def sign(image_CHW: np.ndarray) -> np.ndarray:
    """Return the image's detail on 32 x 32 cells as a unit vector, (1024,) float32.

    Brightness, contrast and structure coarser than 8 x 8 cells are removed, so that the product of
    two such vectors measures whether they show the same objects in the same places. It was 0.99 for
    the same image with noise or other light, 0.2 to 0.9 for other years of a place.
    """
    grey = Image.fromarray(_standardise(image_CHW).mean(axis=0))
    cells = grey.resize((SIGNATURE_SIDE, SIGNATURE_SIDE), Image.Resampling.BOX)
    coarse = cells.resize((COARSE_SIDE, COARSE_SIDE), Image.Resampling.BOX)
    smooth = coarse.resize((SIGNATURE_SIDE, SIGNATURE_SIDE), Image.Resampling.BICUBIC)
    detail_N = (np.asarray(cells) - np.asarray(smooth)).ravel()
    return detail_N / max(float(np.linalg.norm(detail_N)), 1e-6)


def rate_change(before_CHW: np.ndarray, after_CHW: np.ndarray, changed_HW: np.ndarray) -> float:
    """Return the probability that a changed pixel differs more than an unchanged one.

    The area under the ROC curve of 1 - the dates' correlation in a window of 17 x 17 pixels: 1/2
    is chance, less means that "changed" is where the images agree. Differences of brightness
    would mislead if most has changed, because then the rest differs in light.
    NaN if all pixels are of one kind.
    """
    step = max(1, min(changed_HW.shape) // _MOST_PIXELS_A_SIDE)
    greys = (_standardise(image).mean(axis=0) for image in (before_CHW, after_CHW))
    difference_HW = 1 - _correlate_windows(*greys)[::step, ::step]
    changed_HW = changed_HW[::step, ::step]
    if changed_HW.all() or not changed_HW.any():
        return float("nan")
    level_HW = np.clip(difference_HW / 2 * (_LEVELS - 1), 0, _LEVELS - 1).astype(int)
    changed_N = np.bincount(level_HW[changed_HW], minlength=_LEVELS)
    unchanged_N = np.bincount(level_HW[~changed_HW], minlength=_LEVELS)
    below_N = np.cumsum(unchanged_N) - unchanged_N / 2
    return float((changed_N * below_N).sum() / changed_N.sum() / unchanged_N.sum())


def find_shift(before_CHW: np.ndarray, after_CHW: np.ndarray) -> Shift:
    """Return the shift of the after image, from up to 16 patches; see geo/registration."""
    shortest_px = min(before_CHW.shape[1:])
    smallest_px, largest_px = _PATCH_SIDES_PX
    side_px = min(largest_px, shortest_px // 2)
    if side_px < smallest_px:
        return UNKNOWN
    starts = [
        np.linspace(0, length - side_px, min(_PATCHES_PER_SIDE, length // side_px)).astype(int)
        for length in before_CHW.shape[1:]
    ]
    greys_HW = [_standardise(image).mean(axis=0) for image in (before_CHW, after_CHW)]
    patches = [
        [grey_HW[row : row + side_px, column : column + side_px] for grey_HW in greys_HW]
        for row in starts[0]
        for column in starts[1]
    ]
    kept = [pair for pair in patches if all(patch_HW.std() > 0 for patch_HW in pair)]
    if not kept:
        return UNKNOWN
    before, after = (
        [patch_HW.astype(float) for patch_HW in date] for date in zip(*kept, strict=True)
    )
    return measure_stack(before, after, reach=min(24, side_px // 8))


def _standardise(image_CHW: np.ndarray) -> np.ndarray:
    """Return bands of mean 0 and standard deviation 1, float32; a constant band is 0."""
    bands_CHW = np.nan_to_num(image_CHW.astype(np.float32), posinf=0.0, neginf=0.0)
    bands_CHW -= bands_CHW.mean(axis=(1, 2), keepdims=True)
    return bands_CHW / np.maximum(bands_CHW.std(axis=(1, 2), keepdims=True), 1e-6)


def _correlate_windows(before_HW: np.ndarray, after_HW: np.ndarray) -> np.ndarray:
    """Return the correlation, -1 to 1, of the dates in the window around each pixel."""
    products = before_HW, after_HW, before_HW**2, after_HW**2, before_HW * after_HW
    before_HW, after_HW, before_squares_HW, after_squares_HW, product_HW = map(_blur, products)
    variances = before_squares_HW - before_HW**2, after_squares_HW - after_HW**2
    before_variance_HW, after_variance_HW = (np.maximum(v, 0) for v in variances)
    covariance_HW = product_HW - before_HW * after_HW
    return covariance_HW / np.sqrt(before_variance_HW * after_variance_HW + _LEAST_VARIANCE**2)


def _blur(image_HW: np.ndarray) -> np.ndarray:
    """Return the mean of the window around each pixel, by sums along both axes."""
    reach = _WINDOW_PX // 2
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (reach + 1, reach)
        sums = np.pad(image_HW, width, mode="edge").cumsum(axis=axis, dtype=np.float64)
        length = image_HW.shape[axis]
        upper = np.take(sums, range(_WINDOW_PX, _WINDOW_PX + length), axis)
        image_HW = (upper - np.take(sums, range(length), axis)) / _WINDOW_PX
    return image_HW
