"""The data sets of the leaderboard: small, of 128 px, in train/, val/ and test/ folders.

- `drawn`: terradelta's drawn scenes, other seeds in each split.
- `naip`: ten summers of one site in North Dakota (5 m). Labels are derived, not drawn by people:
  water where NDWI > 0.1, else vegetation where NDVI > 0.1, else ground, small patches dissolved.
  Both indices use the near infrared, which the images lack. Split by columns of the site, with a
  gap; the dates of a pair are any two of the ten.

Labels hold a class where it changed and 0 elsewhere, as SECOND's do, so that unchanged ground is
unlabelled. Run: `python benchmarks/ual/data.py --shared ../shared/data --output DIR`.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.features import sieve
from rasterio.vrt import WarpedVRT

from terradelta.classes import SENSEEARTH
from terradelta.data.images import write_mask
from terradelta.data.synthetic import write_folders
from terradelta.outputs import stage_folder

SIZE_PX = 128
PAIRS = {"train": 400, "val": 60, "test": 100}
WATER, GROUND, VEGETATION = 1, 2, 3
INDEX_THRESHOLD = 0.1
MIN_PATCH_PX = 12
NAIP_COLUMNS = {"train": (0, 540), "val": (556, 700), "test": (716, 934)}
NAIP_ROWS = 723
MAX_CHANGED = 0.6
"""Crops with more are drawn again: whole fields that turn are no test of unchanged ground."""


def write_drawn(output: Path):
    """Write the drawn scenes."""
    with stage_folder(output, overwrite=True) as staged:
        for seed, (split, pairs) in enumerate(PAIRS.items(), start=31):
            write_folders(staged / split, pairs, seed, size_px=SIZE_PX)


def write_naip(shared: Path, output: Path):
    """Write crops of the NAIP site between any two of its years."""
    years_CHW = list(read_years(shared / "naip_nd10"))
    labels_HW = [derive_labels(year_CHW) for year_CHW in years_CHW]
    with stage_folder(output, overwrite=True) as staged:
        for number, (split, pairs) in enumerate(PAIRS.items()):
            rng = np.random.default_rng((32, number))
            folder = staged / split
            for name in ("im1", "im2"):
                (folder / name).mkdir(parents=True)
            for index in range(pairs):
                place, (first, second) = draw_place(rng, labels_HW, NAIP_COLUMNS[split])
                changed_HW = labels_HW[first][place] != labels_HW[second][place]
                for name, year in (("im1", first), ("im2", second)):
                    rgb_CHW = years_CHW[year][:3, *place]
                    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(rgb_CHW, 0, -1)))
                    image.save(folder / name / f"{index:04d}.png")
                for name, year in (("label1", first), ("label2", second)):
                    mask_HW = np.where(changed_HW, labels_HW[year][place], 0).astype(np.uint8)
                    write_mask(folder / name / f"{index:04d}.png", mask_HW, SENSEEARTH)


def read_years(folder: Path) -> Iterator[np.ndarray]:
    """Yield the images of all years, (4, H, W) uint8, on the grid of the first."""
    paths = sorted(folder.glob("*.tif"))
    with rasterio.open(paths[0]) as first:
        grid = {"crs": first.crs, "transform": first.transform, "width": first.width}
        grid["height"] = min(first.height, NAIP_ROWS)
    for path in paths:
        with (
            rasterio.open(path) as source,
            WarpedVRT(source, resampling=Resampling.bilinear, tolerance=0.01, **grid) as aligned,
        ):
            yield aligned.read(indexes=[1, 2, 3, 4])


def derive_labels(image_CHW: np.ndarray) -> np.ndarray:
    """Return (H, W) class ids by the indices of a red, green, blue and near-infrared image."""
    red, green, _, infrared = image_CHW.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        water_HW = (green - infrared) / (green + infrared) > INDEX_THRESHOLD
        plants_HW = (infrared - red) / (infrared + red) > INDEX_THRESHOLD
    labels_HW = np.where(water_HW, WATER, np.where(plants_HW, VEGETATION, GROUND))
    return sieve(labels_HW.astype(np.uint8), MIN_PATCH_PX)


def draw_place(
    rng: np.random.Generator, labels_HW: list[np.ndarray], columns: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Return a square within some columns and two different years."""
    while True:
        top = int(rng.integers(NAIP_ROWS - SIZE_PX + 1))
        left = int(rng.integers(columns[0], columns[1] - SIZE_PX + 1))
        place = slice(top, top + SIZE_PX), slice(left, left + SIZE_PX)
        first, second = (int(year) for year in rng.choice(len(labels_HW), 2, replace=False))
        if (labels_HW[first][place] != labels_HW[second][place]).mean() <= MAX_CHANGED:
            return place, (first, second)


def describe(folder: Path) -> str:
    """Return the share of changed pixels and of the classes among them, split by split."""
    lines = []
    for split in PAIRS:
        masks = [
            np.asarray(Image.open(path))
            for name in ("label1", "label2")
            for path in sorted((folder / split / name).glob("*.png"))
        ]
        counts = np.bincount(np.concatenate([mask_HW.ravel() for mask_HW in masks]), minlength=7)
        shares = counts[1:] / counts[1:].sum()
        classes = ", ".join(
            f"{name} {share:.0%}"
            for name, share in zip(SENSEEARTH.names[1:], shares, strict=True)
            if share
        )
        lines.append(
            f"{folder.name} {split}: changed {1 - counts[0] / counts.sum():.1%}; {classes}"
        )
    return "\n".join(lines)


def main():
    """Write the data sets and say what is in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with naip_nd10")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    write_drawn(options.output / "drawn")
    write_naip(options.shared, options.output / "naip")
    for name in ("drawn", "naip"):
        print(describe(options.output / name))


if __name__ == "__main__":
    main()
