"""The accuracy of measured shifts on imagery with real change.

Shifts from -5 to 5 px in steps of 0.25 on both axes (the columns in another order than the rows),
applied to the after image through its spectrum. The pair's own shift is
measured first and subtracted. Patches are 256 px, as many as fit. Run:
`python benchmarks/registration.py [FOLDER_OF_NAIP_ND10]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio

from terradelta.data.synthetic import draw_pair
from terradelta.geo.registration import measure_stack

STEPS_PX = np.arange(-5, 5.01, 0.25)
BORDER_PX = 8
REACH_PX = 24
SIDE_PX = 256 + 2 * REACH_PX
DRAWN_SEEDS = range(1, 7)
YEARS = ("20100629", "20120731", "20150926", "20180716", "20190904", "20200831")


def main():
    """Measure and print a row for each kind of imagery."""
    kinds = {"drawn scenes, 720 px at 0.5 m": list(draw_scenes())}
    if len(sys.argv) > 1:
        kinds["NAIP 2009 against six other years, 5 m"] = list(read_naip(Path(sys.argv[1])))
    print(f"{'imagery':<42}{'shifts':>7}{'median':>9}{'95 %':>8}{'largest':>9}")
    for name, pairs in kinds.items():
        errors = np.concatenate([measure_errors(*pair) for pair in pairs])
        numbers = np.median(errors), np.percentile(errors, 95), errors.max()
        print(f"{name:<42}{len(errors):>7}" + "".join(f"{number:>8.3f} " for number in numbers))


def draw_scenes() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield grey pairs."""
    for seed in DRAWN_SEEDS:
        scene = draw_pair((77, seed), 720)
        yield scene.before_CHW.mean(axis=0), scene.after_CHW.mean(axis=0)


def read_naip(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield grey pairs of the first year and another one."""
    images = []
    for date in ("20090818", *YEARS):
        with rasterio.open(next(folder.glob(f"*_{date}.tif"))) as dataset:
            images.append(dataset.read((1, 2, 3))[:, :720, :720].mean(axis=0))
    for other in images[1:]:
        yield images[0], other


def measure_errors(before_HW: np.ndarray, after_HW: np.ndarray) -> np.ndarray:
    """Return the error of each shift in pixels, the larger of both axes."""
    patches_PHW = cut_patches(before_HW)
    own = measure_stack(patches_PHW, cut_patches(after_HW), REACH_PX)
    errors = []
    for number, rows_px in enumerate(STEPS_PX):
        columns_px = STEPS_PX[(7 * number + 3) % len(STEPS_PX)]
        moved_PHW = cut_patches(move(after_HW, rows_px, columns_px))
        found = measure_stack(patches_PHW, moved_PHW, REACH_PX)
        rows_error = found.rows_px - own.rows_px - rows_px
        columns_error = found.columns_px - own.columns_px - columns_px
        errors.append(max(abs(rows_error), abs(columns_error)))
    return np.array(errors)


def move(image_HW: np.ndarray, rows_px: float, columns_px: float) -> np.ndarray:
    """Move a picture's content down and to the right through its spectrum."""
    turns = [
        np.exp(-2j * np.pi * np.fft.fftfreq(length) * shift)
        for length, shift in zip(image_HW.shape, (rows_px, columns_px), strict=True)
    ]
    return np.fft.ifft2(np.fft.fft2(image_HW) * np.outer(*turns)).real


def cut_patches(image_HW: np.ndarray) -> np.ndarray:
    """Return the patches that fit inside of a picture, each with mean 0."""
    inner_HW = image_HW[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    starts = [range(0, length - SIDE_PX + 1, SIDE_PX) for length in inner_HW.shape]
    patches = [
        inner_HW[row : row + SIDE_PX, column : column + SIDE_PX]
        for row in starts[0]
        for column in starts[1]
    ]
    return np.stack([patch - patch.mean() for patch in patches])


if __name__ == "__main__":
    main()
