"""Real pairs that no model of terradelta was trained on, and their known changes.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from PIL import Image

from terradelta.data.images import read_change_mask, read_image
from terradelta.geo.grid import allow_no_place


class RealPair(NamedTuple):
    """Two images of a place and, where it is known, what changed."""

    name: str
    before_CHW: np.ndarray
    """(3, H, W) uint8."""
    after_CHW: np.ndarray
    truth_HW: np.ndarray
    """(H, W) bool, True where changed by the data set's definition."""


def read_levir(shared: Path) -> Iterator[RealPair]:
    """Yield the ten LEVIR-CD pairs; their truth is changed buildings only."""
    folder = shared / "levir_eval10"
    for path in sorted((folder / "A").iterdir()):
        truth_HW = read_change_mask(folder / "label" / path.name) > 0
        images = (read_image(folder / date / path.name)[:3] for date in "AB")
        yield RealPair(path.stem, *images, truth_HW)


def read_oscd(shared: Path) -> Iterator[RealPair]:
    """Yield the Sentinel-2 pictures of two cities; their truth is urban change."""
    for folder in sorted(path for path in (shared / "oscd2").iterdir() if path.is_dir()):
        before, after = sorted((folder / "pair").iterdir())[:2]
        masks = sorted(folder.rglob("cm.png"))
        truth_HW = read_image(masks[0])[0] > 0
        yield RealPair(folder.name, read_image(before)[:3], read_image(after)[:3], truth_HW)


def read_unchanged(shared: Path) -> Iterator[RealPair]:
    """Yield places at dates two years and more apart, where hardly anything changed.

    Sites of the city of naip_urbantree and patches of chesapeake16 that the default model was not
    trained on.
    """
    sites: dict[str, list[Path]] = {}
    for path in sorted((shared / "naip_urbantree/images").glob("claremont_*.tif")):
        sites.setdefault(path.stem.rsplit("_", 1)[1], []).append(path)
    for number, dates in sites.items():
        for first, second in combinations(dates, 2):
            images = [_read_rgb(path) for path in (first, second)]
            years = "-".join(path.stem.split("_")[-2] for path in (first, second))
            yield RealPair(f"claremont {number} {years}", *images, _nothing(images[0]))
    folder = shared / "chesapeake16"
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        if number % 8 == 1:
            (old,) = (folder / "images_old").glob(f"{path.stem}.*")
            images = [_enlarge(read_image(image)[:3]) for image in (old, path)]
            yield RealPair(path.stem, *images, _nothing(images[0]))


def _read_rgb(path: Path) -> np.ndarray:
    with allow_no_place(), rasterio.open(path) as dataset:
        return dataset.read((1, 2, 3))


def _enlarge(image_CHW: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(np.moveaxis(image_CHW, 0, -1))
    size = (2 * picture.width, 2 * picture.height)
    return np.moveaxis(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)), -1, 0)


def _nothing(image_CHW: np.ndarray) -> np.ndarray:
    return np.zeros(image_CHW.shape[1:], bool)
