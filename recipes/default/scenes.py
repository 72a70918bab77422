"""Scenes with known land cover: images of `../shared/data` and what is derived or drawn for them.

Land cover of `naip_urbantree` is derived: NDVI above 0.15 is vegetation, which is tree at a tree's
point, unknown around it, and low elsewhere. The rest is building, ground, water or shadow, of which
the masks in `labels/` name what a trained network was sure of (labels.py). In `kampala_buildings`
pixels outside of buildings are ground where they are not green. Vegetation of `dubai72` and of
Kampala is not labelled, as it may be grass or trees. Labels drawn by hand (hand_labels.py)
replace all these.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from hand_labels import HandLabels
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt, median_filter

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.composite import LabelledScene
from terradelta.data.images import IGNORE, read_image, read_mask
from terradelta.geo.grid import allow_no_place

LABELS = Path(__file__).with_name("labels")
SEEDS = {"train": 10, "val": 11, "test": 12}
WATER, GROUND, LOW, TREE, BUILDING = (
    SENSEEARTH.names.index(name)
    for name in ("water", "ground", "low vegetation", "tree", "building")
)
DUBAI = ClassTable(
    names=("unchanged", "building", "land", "road", "vegetation", "water", "black"),
    colours=(
        (155, 155, 155),
        (60, 16, 152),
        (132, 41, 246),
        (110, 193, 228),
        (254, 221, 58),
        (226, 169, 41),
        (0, 0, 0),
    ),
)
FROM_DUBAI = np.array([0, BUILDING, GROUND, GROUND, 0, WATER, 0], np.uint8)
FROM_CHESAPEAKE = np.array([0, WATER, TREE, LOW, GROUND, 0, GROUND], np.uint8)
"""Impervious ground that is not a road may be a roof."""
DUBAI_AREAS = {"train": (1, 4, 5, 6, 7), "val": (2,), "test": (3, 8)}
DUBAI_SCALES = (1.0, 1.8)
CITIES = {
    "train": ("long_beach", "palm_springs", "riverside"),
    "val": ("santa_monica",),
    "test": ("claremont",),
}
KAMPALA_REDUCTION = {"21": 2, "20": 1, "19": 1}
CROWN_PX, UNSURE_CROWN_PX = 5, 14
"""Around a tree's point, green pixels are its crown; further out they may be a lawn."""
RIM_PX = 3
COLLAGES = {"train": 60, "val": 10, "test": 16}
COLLAGE_TILES = 3


class Scene(NamedTuple):
    """An image of one date and its known land cover."""

    name: str
    image_CHW: np.ndarray
    """(3, H, W) uint8."""
    ids_HW: np.ndarray
    """(H, W) uint8, 0 where unknown."""
    is_drawn_HW: np.ndarray | bool = False
    """(H, W) bool, True where a hand drew the classes."""


def join_dates(before: Scene, after: Scene) -> LabelledScene:
    """Return two dates of the same ground as one scene.

    Classes are those that a hand drew at either date, elsewhere those on which both dates agree.
    """
    ids_HW = np.where(before.ids_HW == after.ids_HW, before.ids_HW, 0)
    for date, other in ((before, after), (after, before)):
        is_sure_HW = date.is_drawn_HW & ~np.asarray(other.is_drawn_HW)
        ids_HW = np.where(is_sure_HW, date.ids_HW, ids_HW)
    return LabelledScene(before.image_CHW, ids_HW, after.image_CHW)


def read_dubai(folder: Path, split: str) -> Iterator[Scene]:
    """Yield scenes of a split's areas, each at two scales."""
    for area in DUBAI_AREAS[split]:
        for path in sorted((folder / "images").glob(f"t{area}_*.jpg")):
            image = Image.fromarray(np.moveaxis(read_image(path), 0, -1))
            ids_HW = FROM_DUBAI[read_mask(folder / "masks" / f"{path.stem}.png", DUBAI)]
            for scale in DUBAI_SCALES:
                size = (round(image.width * scale), round(image.height * scale))
                yield Scene(
                    f"{path.stem}_{scale:g}",
                    np.moveaxis(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), -1, 0),
                    np.asarray(Image.fromarray(ids_HW).resize(size, Image.Resampling.NEAREST)),
                )


def make_collages(folder: Path, split: str) -> Iterator[Scene]:
    """Yield squares of tiles side by side: the tiles alone are smaller than a pair."""
    paths = sorted((folder / "images").iterdir())
    mine = [p for i, p in enumerate(paths) if split == ("val", "test", "train")[min(i % 10, 2)]]
    tiles = {zoom: [] for zoom in KAMPALA_REDUCTION}
    for path in mine:
        tiles[path.stem.rsplit("-", 1)[1]].append(read_kampala(folder, path))
    rng = np.random.default_rng(SEEDS[split])
    for number in range(COLLAGES[split]):
        # Tiles of one size, mostly of the finest zoom, which most places have.
        pool = tiles["21"] if number % 3 or not tiles["20"] else tiles["20"] + tiles["19"]
        across = COLLAGE_TILES if pool is tiles["21"] else 2
        chosen = [pool[i] for i in rng.integers(len(pool), size=across * across)]
        turned = [turn(tile, int(rng.integers(4))) for tile in chosen]
        rows = [turned[i : i + across] for i in range(0, len(turned), across)]
        yield Scene(
            f"kampala_{number}",
            np.concatenate([np.concatenate([t.image_CHW for t in r], 2) for r in rows], 1),
            np.block([[tile.ids_HW for tile in row] for row in rows]),
        )


def read_kampala(folder: Path, path: Path) -> Scene:
    """Return a tile at 0.15 m: buildings as labelled, otherwise ground where it is not green."""
    reduction = KAMPALA_REDUCTION[path.stem.rsplit("-", 1)[1]]
    image = Image.fromarray(np.moveaxis(read_image(path), 0, -1)).reduce(reduction)
    every = slice(reduction // 2, None, reduction)
    is_building_HW = read_image(folder / "masks" / path.name)[0][every, every] > 0
    red, green, blue = np.moveaxis(np.asarray(image, np.float32), -1, 0)
    greenness_HW = (2 * green - red - blue) / np.maximum(red + green + blue, 1)
    ids_HW = np.where(greenness_HW < 0.05, GROUND, 0)
    ids_HW = median_filter(ids_HW.astype(np.uint8), 5)
    # Outlines of OpenStreetMap are off by a few pixels.
    ids_HW[binary_dilation(is_building_HW, iterations=3)] = 0
    ids_HW[is_building_HW] = BUILDING
    return Scene(path.stem, np.moveaxis(np.asarray(image), -1, 0), ids_HW)


def turn(scene: Scene, quarters: int) -> Scene:
    """Return a scene after quarter turns."""
    image_CHW = np.rot90(scene.image_CHW, quarters, (1, 2))
    return Scene(scene.name, image_CHW, np.rot90(scene.ids_HW, quarters))


def list_urbantree(folder: Path, split: str) -> list[list[Path]]:
    """Return the files of each site of a split's cities, by year."""
    sites: dict[str, list[Path]] = {}
    for path in sorted((folder / "images").glob("*.tif")):
        if path.stem.startswith(CITIES[split]):
            sites.setdefault(name_site(path), []).append(path)
    return list(sites.values())


def name_site(path: Path) -> str:
    """Return the name of an image's site, for any year."""
    city, _, number = path.stem.rsplit("_", 2)
    return f"{city}_{number}"


def read_couples(
    folder: Path, split: str, hand: HandLabels, changed: set[str]
) -> Iterator[tuple[Scene, Scene]]:
    """Yield every two dates of each site of a split's cities, without the sites that changed."""
    for site in list_urbantree(folder, split):
        if name_site(site[0]) not in changed:
            yield from combinations([read_urbantree(path, LABELS, hand) for path in site], 2)


def read_single_dates(
    folder: Path, split: str, hand: HandLabels, changed: set[str]
) -> Iterator[tuple[Scene, Scene]]:
    """Yield each date of the sites that changed twice, so that nothing changed below the pastes."""
    for site in list_urbantree(folder, split):
        if name_site(site[0]) in changed:
            for path in site:
                scene = read_urbantree(path, LABELS, hand)
                yield scene, scene


def read_restored(
    folder: Path, split: str, hand: HandLabels, changed: dict[str, np.ndarray]
) -> Iterator[tuple[Scene, Scene]]:
    """Yield every two dates of the sites that changed, the later one as if they had not.

    Args:
        folder: The folder of the sites.
        split: "train", "val" or "test".
        hand: Labels drawn by hand.
        changed: (H, W) bool of each site, True where it changed or nobody could say; there, and
            `RIM_PX` around it, the later date shows the earlier one.
    """
    for site in list_urbantree(folder, split):
        if name_site(site[0]) in changed:
            is_old_HW = binary_dilation(changed[name_site(site[0])], iterations=RIM_PX)
            scenes = [read_urbantree(path, LABELS, hand) for path in site]
            for before, after in combinations(scenes, 2):
                image_CHW = np.where(is_old_HW, before.image_CHW, after.image_CHW)
                ids_HW = np.where(is_old_HW, before.ids_HW, after.ids_HW)
                is_drawn_HW = np.where(is_old_HW, before.is_drawn_HW, after.is_drawn_HW)
                yield before, Scene(after.name, image_CHW, ids_HW, is_drawn_HW)


def read_urbantree(path: Path, labels: Path | None = None, hand: HandLabels | None = None) -> Scene:
    """Return a site at one date, with the land cover from its infrared and its trees.

    Args:
        path: Red, green, blue, infrared.
        labels: Folder of masks under the site's name, which fill the unknown rest.
        hand: Labels drawn by hand, which replace the others.
    """
    with rasterio.open(path) as dataset:
        bands_CHW = dataset.read()
    red, _, _, infrared = bands_CHW.astype(np.float32)
    ndvi_HW = (infrared - red) / np.maximum(infrared + red, 1)
    distance_HW = np.full(red.shape, np.inf)
    points = path.parents[1] / "points" / f"{path.stem}.csv"
    # A site without trees has no file.
    if points.exists():
        is_clear_HW = np.ones(red.shape, bool)
        for line in points.read_text().splitlines()[1:]:
            column, row = (round(float(value)) for value in line.split(",")[:2])
            is_clear_HW[min(row, len(red) - 1), min(column, red.shape[1] - 1)] = False
        distance_HW = distance_transform_edt(is_clear_HW)
    ids_HW = np.select(
        [ndvi_HW <= 0.15, distance_HW <= CROWN_PX, distance_HW <= UNSURE_CROWN_PX],
        [0, TREE, 0],
        default=LOW,
    )
    ids_HW = median_filter(ids_HW.astype(np.uint8), 3)
    if labels is not None:
        more_HW = read_mask(labels / f"{name_site(path)}.png", SENSEEARTH)
        ids_HW = np.where(ids_HW == 0, more_HW, ids_HW)
    if hand is None:
        return Scene(path.stem, bands_CHW[:3], ids_HW.astype(np.uint8))
    drawn_HW = hand.draw(f"naip_urbantree/images/{path.name}", red.shape)
    ids_HW = np.where(drawn_HW > 0, drawn_HW, ids_HW)
    ids_HW[ids_HW == IGNORE] = 0
    return Scene(path.stem, bands_CHW[:3], ids_HW.astype(np.uint8), drawn_HW > 0)


def read_chesapeake(folder: Path, split: str) -> Iterator[tuple[Scene, Scene]]:
    """Yield the older and the newer date of each patch, at twice their resolution of 1 m."""
    paths = sorted((folder / "images").iterdir())
    mine = [p for i, p in enumerate(paths) if split == ("val", "test", "train")[min(i % 8, 2)]]
    for path in mine:
        (mask,) = (folder / "masks").glob(f"{path.stem}.*")
        with allow_no_place(), rasterio.open(mask) as dataset:
            ids_HW = FROM_CHESAPEAKE[dataset.read(1)]
        (old,) = (folder / "images_old").glob(f"{path.stem}.*")
        scenes = []
        for image in (old, path):
            picture = Image.fromarray(np.moveaxis(read_image(image)[:3], 0, -1))
            size = (2 * picture.width, 2 * picture.height)
            scenes.append(
                Scene(
                    path.stem,
                    np.moveaxis(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)), -1, 0),
                    ids_HW.repeat(2, 0).repeat(2, 1),
                )
            )
        yield scenes[0], scenes[1]
