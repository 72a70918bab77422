"""Converts images of any depth to the 8-bit red, green and blue of a picture.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

PERCENT = (2, 98)
"""Percentiles of the values that become black and white."""


def find_range(image_CHW: np.ndarray, valid_HW: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white: all values of 8-bit images, most of others.

    Args:
        image_CHW: Stored values; the first three bands are drawn.
        valid_HW: bool, where they are valid.
    """
    if image_CHW.dtype == np.uint8 or not valid_HW.any():
        return 0.0, 255.0
    low, high = np.percentile(image_CHW[:3, valid_HW], PERCENT)
    return float(low), float(max(high, low + 1e-9))


def draw_rgb(image_CHW: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Return the first three bands, or the first as grey, as (3, H, W) uint8.

    Args:
        image_CHW: Stored values.
        value_range: Values that become black and white; 8-bit values stay unchanged.
    """
    rgb_CHW = image_CHW[:3] if len(image_CHW) >= 3 else np.repeat(image_CHW[:1], 3, axis=0)
    if rgb_CHW.dtype == np.uint8:
        return rgb_CHW
    low, high = value_range
    share_CHW = (rgb_CHW.astype(np.float32) - low) / (high - low)
    return (255 * share_CHW.clip(0, 1)).astype(np.uint8)
