"""The pairs that the default model learns from: composed, real, labelled by hand, and drawn.

Everything becomes red, green and blue at roughly half a metre, with the classes of SenseEarth, and
one CSV names it all (docs/data.md): land cover wherever it is known at either date, and what
changed, which is unknown where nobody could say.

| part | pairs |
| --- | --- |
| composed | of scenes (scenes.py) and of tiles with land cover by hand |
| real | the same ground at two dates; the little changes there count as noise |
| changed | real pairs with changes drawn by hand (hand_labels.py), several times an epoch |
| tiles | images with land cover by hand as both dates, so nothing changed; several times an epoch |
| drawn | `terradelta.data.synthetic` |

Composed pairs of sites with several dates have two real dates, years apart, below the pastes.

Run: `python recipes/default/data.py --shared ../shared/data --output runs/default/data`.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from hand_labels import (
    ALL_CHANGES,
    FIRST_CHANGES,
    TEST_PLACES,
    HandLabels,
    find_split,
    list_drawn_sites,
    list_sites,
    read_pairs,
)
from PIL import Image
from scenes import (
    SEEDS,
    Scene,
    join_dates,
    make_collages,
    read_chesapeake,
    read_couples,
    read_dubai,
    read_restored,
    read_single_dates,
)
from tqdm import tqdm

from terradelta.classes import SENSEEARTH
from terradelta.data.composite import Composition, LabelledScene, compose_pair
from terradelta.data.images import IGNORE, read_image, write_change_mask, write_indexed
from terradelta.data.synthetic import draw_pair
from terradelta.outputs import stage_folder

SIZE_PX = 224
"""Training crops are smaller, so that they can be zoomed."""
SPLITS = ("train", "val", "test")
SHARES = (0.2, 0.12, 0.38, 0.1, 0.2)
"""Probability of each source: dubai72, kampala_buildings, naip_urbantree, chesapeake16, tiles."""
CHESAPEAKE_SCALE = 2
OPTIONS = Composition(
    light=0.45, season=0.2, blur_px=1.2, noise=6.0, largest_shift_px=2.0, objects=16
)
DRAWN_GSD_M = (0.3, 0.5, 0.8)


@dataclass(frozen=True)
class Round:
    """The pairs of one round of training; pairs of different rounds are composed differently."""

    changes: tuple[str, ...]
    """Folders of labels with real changes."""
    composed_pairs: int
    drawn_pairs: int
    """Pairs to train on; validation and test have as many in every round."""
    crops: int
    """Training pairs of each two dates of each real site."""
    changed_repeats: int
    tile_repeats: int
    """Times that a training pair is seen in an epoch, each in another crop and light."""
    changed_sites: Literal["unused", "single dates", "restored"] = "unused"
    """How pairs of sites with real changes serve as unchanged ground: not at all, each date twice
    and for composed pairs alone, or with what changed shown as before."""
    test_places: tuple[str, ...] = TEST_PLACES
    first_number: int = 0
    """Number of the first composed and the first drawn training pair, which is their seed."""

    def list_numbers(self, count: int, split: str, held_out: dict[str, int]) -> range:
        """Return the numbers of a split's composed or drawn pairs."""
        if split == "train":
            return range(self.first_number, self.first_number + count)
        return range(held_out[split])


FIRST = Round(FIRST_CHANGES, 4800, 1200, crops=8, changed_repeats=10, tile_repeats=5)
SECOND = Round(
    ALL_CHANGES,
    1600,
    400,
    crops=4,
    changed_repeats=6,
    tile_repeats=3,
    changed_sites="single dates",
    first_number=10_000,
)
OTHER_PLACES = Round(
    ALL_CHANGES,
    4000,
    800,
    crops=3,
    changed_repeats=10,
    tile_repeats=5,
    changed_sites="restored",
    test_places=("claremont", "banepa", "zanzibar"),
    first_number=20_000,
)
"""Without the places abroad of the others, with the one that they hold out."""
ROUNDS = {"first": FIRST, "second": SECOND, "other_places": OTHER_PLACES}
COMPOSED_HELD_OUT = {"val": 120, "test": 200}
DRAWN_HELD_OUT = {"val": 40, "test": 0}


def main():
    """Write all pairs and the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--round", choices=ROUNDS, default="second")
    options = parser.parse_args()
    write_pairs(options.shared, options.output, ROUNDS[options.round])


def write_pairs(shared: Path, output: Path, wanted: Round):
    """Write all pairs and their CSV, `output`/pairs.csv.

    Args:
        shared: The folder of `dubai72` and its neighbours.
        output: Folder to make; it appears whole or not at all.
        wanted: The round of training.
    """
    hand = HandLabels.read(shared)
    with stage_folder(output) as staged:
        rows = [*write_changed(shared, staged, wanted), *write_tiles(shared, hand, staged, wanted)]
        for split in SPLITS:
            rows += compose(shared, hand, staged, split, wanted)
            rows += cut_real(shared, hand, staged, split, wanted)
            rows += draw(staged, split, wanted)
        with (staged / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            columns = ("before_label", "after_label", "label")
            writer.writerow(["before", "after", *columns, "split", "name"])
            writer.writerows(rows)


def write_changed(shared: Path, output: Path, wanted: Round) -> Iterator[list[str]]:
    """Write the real pairs with drawn changes and yield their lines."""
    sites = list_sites(shared)
    for pair in read_pairs(shared, wanted.changes):
        split = find_split(pair.name, sites, wanted.test_places)
        change_HW = np.any([(ids_HW > 0) & (ids_HW != IGNORE) for ids_HW in pair.ids], axis=0)
        folder = output / f"changed-{split}"
        line = write_pair(folder, pair.name, split, pair.images, pair.ids, change_HW)
        yield from repeat(line, wanted.changed_repeats)


def write_tiles(shared: Path, hand: HandLabels, output: Path, wanted: Round) -> Iterator[list[str]]:
    """Write the images with land cover by hand and yield their lines."""
    for image in hand.tiles:
        image_CHW, ids_HW = read_tile(shared, hand, image)
        name = hand.tiles[image][0].name
        split = find_tile_split(shared, hand, image, wanted.test_places)
        unchanged_HW = np.zeros(ids_HW.shape, np.uint8)
        folder = output / f"tiles-{split}"
        pair = (image_CHW,) * 2, (ids_HW,) * 2
        yield from repeat(write_pair(folder, name, split, *pair, unchanged_HW), wanted.tile_repeats)


def repeat(line: list[str], times: int) -> Iterator[list[str]]:
    """Yield a line, of the train split several times under names of its own."""
    yield line
    if line[-2] == "train":
        for number in range(1, times):
            yield [*line[:-1], f"{line[-1]}-{number}"]


def read_tile(shared: Path, hand: HandLabels, image: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of an image around its tiles, and its class ids."""
    image_CHW = read_image(shared / image)[:3]
    ids_HW = hand.draw(image, image_CHW.shape[1:])
    if image.startswith("chesapeake16"):
        ids_HW = ids_HW.repeat(CHESAPEAKE_SCALE, 0).repeat(CHESAPEAKE_SCALE, 1)
        size = ids_HW.shape[::-1]
        picture = Image.fromarray(np.moveaxis(image_CHW, 0, -1)).resize(size)
        return np.moveaxis(np.asarray(picture), -1, 0), ids_HW
    place = hand.cut(image, image_CHW.shape[1:])
    return image_CHW[:, *place], ids_HW[place]


def find_tile_split(
    shared: Path, hand: HandLabels, image: str, test_places: tuple[str, ...] = TEST_PLACES
) -> str:
    """Return the split of an image with tiles, that of its site or of its forest patch."""
    stem = Path(image).stem
    if image.startswith("chesapeake16"):
        number = sorted(p.stem for p in (shared / "chesapeake16/images").iterdir()).index(stem)
        return ("val", "test", "train")[min(number % 8, 2)]
    is_pair = image.startswith("naip_change")
    name = stem if is_pair else hand.tiles[image][0].name
    return find_split(name, list_sites(shared), test_places)


def compose(
    shared: Path, hand: HandLabels, output: Path, split: str, wanted: Round
) -> list[list[str]]:
    """Write composed pairs of a split and return their lines."""
    # All scenes in memory: reading them again for each pair takes longer than composing it.
    sources = [list(scenes) for scenes in read_scenes(shared, hand, split, wanted)]
    folder = output / f"composed-{split}"

    def compose_one(number: int) -> list[str]:
        rng = np.random.default_rng((SEEDS[split], number))
        scene, other = (draw_scene(rng, sources) for _ in range(2))
        pair = compose_pair(rng, scene, other, SIZE_PX, OPTIONS)
        images = (pair.before_CHW, pair.after_CHW)
        classes = (pair.before_class_HW, pair.after_class_HW)
        change_HW = pair.change_HW.astype(np.uint8)
        return write_pair(folder, f"{number:05d}", split, images, classes, change_HW)

    numbers = wanted.list_numbers(wanted.composed_pairs, split, COMPOSED_HELD_OUT)
    with ThreadPoolExecutor() as threads:
        done = threads.map(compose_one, numbers)
        return list(tqdm(done, desc="composing", total=len(numbers), unit="pair", disable=None))


def draw_scene(rng: np.random.Generator, sources: list[list[LabelledScene]]) -> LabelledScene:
    """Return a scene of a source, all scenes with the same probability."""
    scenes = sources[rng.choice(len(sources), p=SHARES)]
    return scenes[rng.integers(len(scenes))]


def read_scenes(
    shared: Path, hand: HandLabels, split: str, wanted: Round
) -> Iterator[Iterator[LabelledScene]]:
    """Yield, source by source, the scenes that pairs of a split are composed from."""
    yield (LabelledScene(*scene[1:3]) for scene in read_dubai(shared / "dubai72", split))
    folder = shared / "kampala_buildings"
    yield (LabelledScene(*scene[1:3]) for scene in make_collages(folder, split))
    couples = read_sites(shared, hand, split, wanted)
    if wanted.changed_sites == "single dates":
        drawn = list_drawn_sites(wanted.changes)
        more = read_single_dates(shared / "naip_urbantree", split, hand, drawn)
        couples = chain(couples, more)
    yield (join_dates(*couple) for couple in couples)
    couples = read_chesapeake(shared / "chesapeake16", split)
    yield (join_dates(*couple) for couple in couples)
    abroad = (name for name in hand.tiles if name.startswith("land_cover_tiles"))
    yield (
        LabelledScene(image_CHW, np.where(ids_HW == IGNORE, 0, ids_HW))
        for image_CHW, ids_HW in (
            read_tile(shared, hand, image)
            for image in abroad
            # No place abroad decides, so those that teach serve for the validation pairs too.
            if (find_tile_split(shared, hand, image, wanted.test_places) == "test")
            == (split == "test")
        )
    )


def read_sites(
    shared: Path, hand: HandLabels, split: str, wanted: Round
) -> Iterator[tuple[Scene, Scene]]:
    """Yield every two dates of the sites of a split between which nothing changed."""
    folder = shared / "naip_urbantree"
    yield from read_couples(folder, split, hand, list_drawn_sites(wanted.changes))
    if wanted.changed_sites == "restored":
        changed = find_changed(shared, wanted.changes)
        yield from read_restored(folder, split, hand, changed)


@cache
def find_changed(shared: Path, changes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return where each site changed or nobody could say, (H, W) bool."""
    drawn = list_drawn_sites(changes)
    pairs = ((pair.name.rsplit("_", 2)[0], pair) for pair in read_pairs(shared, changes))
    return {site: np.any(pair.ids, axis=0) for site, pair in pairs if site in drawn}


def cut_real(
    shared: Path, hand: HandLabels, output: Path, split: str, wanted: Round
) -> list[list[str]]:
    """Write crops of real pairs of unchanged ground and return their lines."""
    couples = [
        *read_sites(shared, hand, split, wanted),
        *read_chesapeake(shared / "chesapeake16", split),
    ]
    rng = np.random.default_rng(SEEDS[split])
    folder = output / f"real-{split}"
    rows = []
    crops = wanted.crops if split == "train" else 1
    for number, (before, after) in enumerate(couples):
        ids_HW = join_dates(before, after).classes_HW
        for crop in range(crops):
            top, left = (int(rng.integers(side - SIZE_PX + 1)) for side in ids_HW.shape)
            place = slice(top, top + SIZE_PX), slice(left, left + SIZE_PX)
            name = f"{number:03d}_{crop}"
            images = (before.image_CHW[:, *place], after.image_CHW[:, *place])
            change_HW = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
            rows.append(write_pair(folder, name, split, images, (ids_HW[place],) * 2, change_HW))
    return rows


def draw(output: Path, split: str, wanted: Round) -> list[list[str]]:
    """Write drawn pairs and return their lines."""
    rows = []
    folder = output / f"drawn-{split}"
    numbers = wanted.list_numbers(wanted.drawn_pairs, split, DRAWN_HELD_OUT)
    for number in tqdm(numbers, desc="drawing", unit="pair", disable=None):
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
        write_indexed(folder / part / f"{name}.png", ids_HW.astype(np.uint8), SENSEEARTH.colours)
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
