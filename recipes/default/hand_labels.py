"""Land cover and change drawn by hand: where they lie, and in which split each place is.

| labels | from |
| --- | --- |
| `land_cover_tiles`, `suburb_tiles` | class masks, with the corrections of `labels/tiles` |
| other files of `labels/tiles` | polygons of polygons.py |
| `naip_change` | class masks of both dates, with the corrections of `labels/changes` |
| other files of `labels/changes`, and `labels/changes_second` | pairs of `naip_urbantree` |

A place is in one split, whatever its labels. Claremont is never trained on, and each place abroad
is held out of one of the trainings whose weights are averaged (data.py).

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from polygons import Drawing, find_id, paint, read_drawing, read_images

from terradelta.data.images import read_image

LABELS = Path(__file__).with_name("labels")
TEST_PLACES = ("claremont", "rio")
VAL_PLACES = ("santa_monica",)
VAL_STEP = 4
"""Every fourth site of `naip_change` outside of the test places decides, the others teach."""
MIN_SIDE_PX = 224
FIRST_CHANGES = ("changes",)
ALL_CHANGES = ("changes", "changes_second")
"""Folders of `labels` with real changes; the second was drawn when the first had been learned."""

Window = tuple[int, int, int, int]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class HandTile:
    """Land cover of a part of an image."""

    name: str
    image: str
    """File below the shared folder."""
    window: Window
    ids_HW: np.ndarray
    """(H, W) uint8, `IGNORE` where nobody could say."""


@dataclass(frozen=True)
class HandPair:
    """A real pair and what changed in it."""

    name: str
    images: tuple[np.ndarray, ...]
    """Before and after, (3, H, W) uint8."""
    ids: tuple[np.ndarray, ...]
    """(H, W) uint8 of each date: 0 where unchanged, `IGNORE` where nobody could say."""


@dataclass(frozen=True)
class HandLabels:
    """All land cover that was drawn, by image."""

    tiles: dict[str, list[HandTile]] = field(default_factory=dict)

    @classmethod
    def read(cls, shared: Path) -> HandLabels:
        """Return the land cover of all tiles."""
        found: dict[str, list[HandTile]] = {}
        for tile in _read_tiles(shared):
            found.setdefault(tile.image, []).append(tile)
        return cls(found)

    def draw(self, image: str, shape: tuple[int, int]) -> np.ndarray:
        """Return the class ids of an image, (H, W) uint8, 0 outside of its tiles."""
        ids_HW = np.zeros(shape, np.uint8)
        for tile in self.tiles.get(image, ()):
            left, top, right, bottom = tile.window
            ids_HW[top:bottom, left:right] = tile.ids_HW
        return ids_HW

    def cut(self, image: str, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Return the part of an image around its tiles, `MIN_SIDE_PX` or more where it has them."""
        windows = np.array([tile.window for tile in self.tiles[image]])
        spans = []
        for low, high, side in (
            (windows[:, 1].min(), windows[:, 3].max(), shape[0]),
            (windows[:, 0].min(), windows[:, 2].max(), shape[1]),
        ):
            missing = max(0, MIN_SIDE_PX - int(high - low))
            start = int(np.clip(low - missing // 2, 0, max(0, side - max(MIN_SIDE_PX, high - low))))
            spans.append(slice(start, min(side, start + max(MIN_SIDE_PX, int(high - low)))))
        return spans[0], spans[1]


def _read_tiles(shared: Path) -> Iterator[HandTile]:
    done = set()
    for folder in ("land_cover_tiles", "suburb_tiles"):
        with (shared / folder / "tiles.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = row["tile"]
                done.add(name)
                window = tuple(int(row[key]) for key in ("left", "top", "right", "bottom"))
                left, top, right, bottom = window
                image = row["source"]
                if folder == "land_cover_tiles":
                    # Its crops lie beside the masks, in the size that was labelled.
                    image = f"{folder}/images/{name}.png"
                    window = (0, 0, right - left, bottom - top)
                correction = LABELS / "tiles" / f"{name}.json"
                if correction.exists():
                    (ids_HW,) = paint(read_drawing(correction), shared)
                else:
                    ids_HW = read_image(shared / folder / "labels" / f"{name}.png")[0]
                if folder == "land_cover_tiles":
                    window = (0, 0, ids_HW.shape[1], ids_HW.shape[0])
                yield HandTile(name, image, window, ids_HW)
    for path in sorted((LABELS / "tiles").glob("*.json")):
        drawing = read_drawing(path)
        if path.stem not in done:
            (ids_HW,) = paint(drawing, shared)
            height, width = ids_HW.shape
            window = drawing.window or (0, 0, width, height)
            yield HandTile(path.stem, drawing.images[0], window, ids_HW)


def read_pairs(shared: Path, folders: tuple[str, ...] = ALL_CHANGES) -> Iterator[HandPair]:
    """Yield the real pairs with drawn changes.

    Args:
        shared: The folder of `naip_change` and its neighbours.
        folders: Folders of `labels`.
    """
    files = {path.stem: path for path in _list_changes(folders)}
    for site in list_sites(shared):
        if site in files:
            drawing = read_drawing(files.pop(site))
        else:
            images, base = (
                tuple(f"naip_change/{part}{date}/{site}.png" for date in (1, 2))
                for part in ("im", "label")
            )
            drawing = Drawing(images, None, base, find_id("unchanged"), ())
        yield _read_pair(site, drawing, shared)
    for name, path in files.items():
        yield _read_pair(name, read_drawing(path), shared)


def _read_pair(name: str, drawing: Drawing, shared: Path) -> HandPair:
    return HandPair(name, tuple(read_images(drawing, shared)), tuple(paint(drawing, shared)))


def list_sites(shared: Path) -> list[str]:
    """Return the names of the sites of `naip_change`."""
    return sorted(path.stem for path in (shared / "naip_change/im1").glob("*.png"))


def list_drawn_sites(folders: tuple[str, ...]) -> set[str]:
    """Return the sites of `naip_urbantree` whose changes are drawn, such as `claremont_34`."""
    years = "*_20[0-9][0-9]_20[0-9][0-9]"
    stems = (path.stem for path in _list_changes(folders) if path.match(f"{years}.json"))
    return {stem.rsplit("_", 2)[0] for stem in stems}


def _list_changes(folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((LABELS / folder).glob("*.json"))


def find_split(name: str, sites: list[str], test_places: tuple[str, ...] = TEST_PLACES) -> str:
    """Return the split of a pair or image: "train", "val" or "test".

    Args:
        name: Its name, which begins with the place and holds the site: `riverside_4`,
            `riverside_2018_21`, `rio_img50`.
        sites: The sites of `naip_change`.
        test_places: Places that are not trained on.
    """
    if name.startswith(test_places):
        return "test"
    free = [site for site in sites if not site.startswith(test_places)]
    return "val" if name.startswith(VAL_PLACES) or name in free[::VAL_STEP] else "train"
