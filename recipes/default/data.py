"""The pairs that the default model learns from: composed, real and unchanged, and drawn.

Everything becomes red, green and blue at roughly half a metre, with the classes of SenseEarth, and
one CSV names it all (docs/data.md): land cover wherever it is known at either date, and a change
mask that is exact (composed and drawn pairs) or zero (real pairs of the same ground; the little
changes there in two years count as noise).

| part | scenes | land cover |
| --- | --- | --- |
| composed | `dubai72`, collages of `kampala_buildings`, `naip_urbantree`, `chesapeake16` | below |
| unchanged | `naip_urbantree` (2016, 2018, 2020), `chesapeake16` (2011 to 2014) | where sure |
| drawn | `terradelta.data.synthetic` | everywhere |

Land cover of `naip_urbantree` is derived: NDVI above 0.15 is vegetation, which is tree at a tree's
point, unknown around it, and low elsewhere. The rest is building, ground, water or shadow, of which
the masks in `labels/` name what a trained network was sure of (labels.py). In `kampala_buildings`
pixels outside of buildings are ground or, by its greenness, vegetation.

Composed pairs of the last two sources have two real dates, years apart, below the pastes.

Run: `python recipes/default/data.py --shared ../shared/data --output runs/default/data`.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt, median_filter
from tqdm import tqdm

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.composite import Composition, LabelledScene, compose_pair
from terradelta.data.images import read_image, read_mask, write_change_mask, write_mask
from terradelta.data.synthetic import draw_pair
from terradelta.geo.grid import allow_no_place
from terradelta.outputs import stage_folder

LABELS = Path(__file__).with_name("labels")
SIZE_PX = 192
SPLITS = ("train", "val", "test")
SHARES = (0.25, 0.15, 0.45, 0.15)
"""Probability of each source: dubai72, kampala_buildings, naip_urbantree, chesapeake16."""
COMPOSED_PAIRS = {"train": 2800, "val": 120, "test": 200}
DRAWN_PAIRS = {"train": 800, "val": 40, "test": 0}
CROPS = {"train": 4, "val": 1, "test": 1}
"""Pairs of each two dates of each real site."""
SEEDS = {"train": 10, "val": 11, "test": 12}
OPTIONS = Composition(
    light=0.45, season=0.2, blur_px=1.2, noise=6.0, largest_shift_px=2.0, objects=16
)
DRAWN_GSD_M = (0.3, 0.5, 0.8)

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
FROM_DUBAI = np.array([0, BUILDING, GROUND, GROUND, LOW, WATER, 0], np.uint8)
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
COLLAGES = {"train": 60, "val": 10, "test": 16}
COLLAGE_TILES = 3


class Scene(NamedTuple):
    """An image of one date and its known land cover."""

    name: str
    image_CHW: np.ndarray
    """(3, H, W) uint8."""
    ids_HW: np.ndarray
    """(H, W) uint8, 0 where unknown."""


def main():
    """Write all pairs and the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    write_pairs(options.shared, options.output)


def write_pairs(shared: Path, output: Path):
    """Write all pairs and their CSV, `output`/pairs.csv.

    Args:
        shared: The folder of `dubai72` and its neighbours.
        output: Folder to make; it appears whole or not at all.
    """
    with stage_folder(output) as staged:
        rows = []
        for split in SPLITS:
            rows += compose(shared, staged, split)
            rows += cut_real(shared, staged, split)
            rows += draw(staged, split)
        with (staged / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            columns = ("before_label", "after_label", "label")
            writer.writerow(["before", "after", *columns, "split", "name"])
            writer.writerows(rows)


def compose(shared: Path, output: Path, split: str) -> list[list[str]]:
    """Write composed pairs of a split and return their lines."""
    # All scenes in memory: reading them again for each pair takes longer than composing it.
    sources = [list(scenes) for scenes in read_scenes(shared, split)]
    folder = output / f"composed-{split}"

    def compose_one(number: int) -> list[str]:
        rng = np.random.default_rng((SEEDS[split], number))
        scene, other = (draw_scene(rng, sources) for _ in range(2))
        pair = compose_pair(rng, scene, other, SIZE_PX, OPTIONS)
        images = (pair.before_CHW, pair.after_CHW)
        classes = (pair.before_class_HW, pair.after_class_HW)
        change_HW = pair.change_HW.astype(np.uint8)
        return write_pair(folder, f"{number:05d}", split, images, classes, change_HW)

    count = COMPOSED_PAIRS[split]
    with ThreadPoolExecutor() as threads:
        done = threads.map(compose_one, range(count))
        return list(tqdm(done, desc="composing", total=count, unit="pair", disable=None))


def draw_scene(rng: np.random.Generator, sources: list[list[LabelledScene]]) -> LabelledScene:
    """Return a scene of a source, all scenes with the same probability."""
    scenes = sources[rng.choice(len(sources), p=SHARES)]
    return scenes[rng.integers(len(scenes))]


def read_scenes(shared: Path, split: str) -> Iterator[Iterator[LabelledScene]]:
    """Yield, source by source, the scenes that pairs of a split are composed from."""
    yield (LabelledScene(*scene[1:]) for scene in read_dubai(shared / "dubai72", split))
    folder = shared / "kampala_buildings"
    yield (LabelledScene(*scene[1:]) for scene in make_collages(folder, split))
    couples = read_couples(shared / "naip_urbantree", split)
    yield (join_dates(*couple) for couple in couples)
    couples = read_chesapeake(shared / "chesapeake16", split)
    yield (join_dates(*couple) for couple in couples)


def join_dates(before: Scene, after: Scene) -> LabelledScene:
    """Return two dates of the same ground as one scene, with classes where both agree."""
    ids_HW = np.where(before.ids_HW == after.ids_HW, before.ids_HW, 0)
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
    """Return a tile at 0.15 m: buildings as labelled, otherwise ground or green."""
    reduction = KAMPALA_REDUCTION[path.stem.rsplit("-", 1)[1]]
    image = Image.fromarray(np.moveaxis(read_image(path), 0, -1)).reduce(reduction)
    every = slice(reduction // 2, None, reduction)
    is_building_HW = read_image(folder / "masks" / path.name)[0][every, every] > 0
    red, green, blue = np.moveaxis(np.asarray(image, np.float32), -1, 0)
    greenness_HW = (2 * green - red - blue) / np.maximum(red + green + blue, 1)
    ids_HW = np.select([greenness_HW > 0.12, greenness_HW < 0.05], [LOW, GROUND], default=0)
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


def read_couples(folder: Path, split: str) -> Iterator[tuple[Scene, Scene]]:
    """Yield every two dates of each site of a split's cities."""
    for site in list_urbantree(folder, split):
        yield from combinations([read_urbantree(path, LABELS) for path in site], 2)


def read_urbantree(path: Path, labels: Path | None = None) -> Scene:
    """Return a site at one date, with the land cover from its infrared and its trees.

    Args:
        path: Red, green, blue, infrared.
        labels: Folder of masks under the site's name, which fill the unknown rest.
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
    return Scene(path.stem, bands_CHW[:3], ids_HW.astype(np.uint8))


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


def cut_real(shared: Path, output: Path, split: str) -> list[list[str]]:
    """Write crops of real pairs of unchanged ground and return their lines."""
    couples = [
        *read_couples(shared / "naip_urbantree", split),
        *read_chesapeake(shared / "chesapeake16", split),
    ]
    rng = np.random.default_rng(SEEDS[split])
    folder = output / f"real-{split}"
    rows = []
    for number, (before, after) in enumerate(couples):
        ids_HW = join_dates(before, after).classes_HW
        for crop in range(CROPS[split]):
            top, left = (int(rng.integers(side - SIZE_PX + 1)) for side in ids_HW.shape)
            place = slice(top, top + SIZE_PX), slice(left, left + SIZE_PX)
            name = f"{number:03d}_{crop}"
            images = (before.image_CHW[:, *place], after.image_CHW[:, *place])
            change_HW = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
            rows.append(write_pair(folder, name, split, images, (ids_HW[place],) * 2, change_HW))
    return rows


def draw(output: Path, split: str) -> list[list[str]]:
    """Write drawn pairs and return their lines."""
    rows = []
    folder = output / f"drawn-{split}"
    for number in tqdm(range(DRAWN_PAIRS[split]), desc="drawing", unit="pair", disable=None):
        gsd_m = DRAWN_GSD_M[number % len(DRAWN_GSD_M)]
        pair = draw_pair((SEEDS[split], number), SIZE_PX, gsd_m=gsd_m)
        classes = pair.before_class_HW, pair.after_class_HW
        change_HW = (classes[0] != classes[1]).astype(np.uint8)
        images = (pair.before_CHW, pair.after_CHW)
        rows.append(write_pair(folder, f"{number:05d}", split, images, classes, change_HW))
    return rows


def write_pair(
    folder: Path,
    name: str,
    split: str,
    images: tuple[np.ndarray, np.ndarray],
    classes: tuple[np.ndarray, np.ndarray],
    change_HW: np.ndarray,
) -> list[str]:
    """Write the five files of a pair and return its line."""
    parts = ("im1", "im2", "full1", "full2", "change")
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for part, image_CHW in zip(parts[:2], images, strict=True):
        write_image(folder / part / f"{name}.png", image_CHW)
    for part, ids_HW in zip(parts[2:4], classes, strict=True):
        write_mask(folder / part / f"{name}.png", ids_HW, SENSEEARTH)
    write_change_mask(folder / "change" / f"{name}.png", change_HW)
    return list_files(folder, parts, name, split)


def write_image(path: Path, image_CHW: np.ndarray):
    """Write a picture, fast."""
    Image.fromarray(np.ascontiguousarray(np.moveaxis(image_CHW, 0, -1))).save(
        path, compress_level=1
    )


def list_files(folder: Path, parts: tuple[str, ...], name: str, split: str) -> list[str]:
    """Return a line of the CSV."""
    paths = [f"{folder.name}/{part}/{name}.png" for part in parts]
    return [*paths, split, f"{folder.name}-{name}"]


if __name__ == "__main__":
    main()
