"""A map in the terminal, two rows of pixels a line of text."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

UPPER_HALF_BLOCK = "\u2580"


def print_map(path: Path, max_columns: int = 96):
    """Print a paletted raster in 24-bit colours, as wide as the terminal allows."""
    with rasterio.open(path) as source:
        columns = min(max_columns, shutil.get_terminal_size().columns, source.width)
        rows = 2 * max(1, round(source.height * columns / source.width / 2))
        values_HW = source.read(1, out_shape=(rows, columns), resampling=Resampling.mode)
        colours = np.array([source.colormap(1)[value][:3] for value in range(256)])
    for upper, lower in zip(values_HW[::2], values_HW[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{r};{g};{b}m\x1b[48;2;{r2};{g2};{b2}m{UPPER_HALF_BLOCK}"
            for (r, g, b), (r2, g2, b2) in zip(colours[upper], colours[lower], strict=True)
        )
        print("".join(cells) + "\x1b[0m")
