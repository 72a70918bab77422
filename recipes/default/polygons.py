"""Labels drawn by hand: polygons in JSON files, painted as class ids.

A file of `labels/tiles` labels one image, a file of `labels/changes` a pair:

| key | meaning |
| --- | --- |
| `images` | one file or two, before and after, below the folder that holds `naip_urbantree` |
| `window` | left, top, right, bottom of the labelled part, in pixels; default: all |
| `base` | label files to paint over, one for each image |
| `default` | without a base, what is painted over: a class, `unchanged` or `ignore` |
| `regions` | polygons, later ones over earlier ones: `polygon` and `class`, or `from` and `to` |
| `note` | what was doubtful |

Coordinates are pixels from the upper left corner of the window, not integers: (0, 0) is that corner
and (0.5, 0.5) the centre of the first pixel. `ignore` is 255, `unchanged` 0.

To look at a file, with its images six times enlarged:
`python recipes/default/polygons.py --shared ../shared/data FILE.json -o PAGES`.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw

from terradelta.classes import SENSEEARTH
from terradelta.data.images import IGNORE
from terradelta.geo.grid import allow_no_place

OVERSAMPLING = 4
"""A pixel gets the class of a sample an eighth of a pixel from its centre."""
ENLARGEMENT = 6
TICK_PX = 16


@dataclass(frozen=True)
class Region:
    """A polygon and what it is at each date."""

    ids: tuple[int, ...]
    """One class id for each image."""
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Drawing:
    """A file of polygons."""

    images: tuple[str, ...]
    window: tuple[int, int, int, int] | None
    base: tuple[str, ...]
    default: int
    regions: tuple[Region, ...]


def read_drawing(path: Path) -> Drawing:
    """Return the polygons of a file.

    Raises:
        ValueError: A class name is unknown, or a pair's region has no `from` and `to`.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    images = tuple(found["images"])
    regions = []
    for number, region in enumerate(found["regions"]):
        names = [region["class"]] * len(images) if "class" in region else _name_dates(region)
        if len(names) != len(images) or len(region["polygon"]) < 3:
            raise ValueError(f"{path}: region {number} does not fit {len(images)} images")
        ids = tuple(find_id(name) for name in names)
        regions.append(Region(ids, tuple((float(x), float(y)) for x, y in region["polygon"])))
    window = found.get("window")
    return Drawing(
        images,
        tuple(window) if window else None,
        tuple(found.get("base", ())),
        find_id(found.get("default", "unchanged")),
        tuple(regions),
    )


def _name_dates(region: dict[str, str]) -> list[str]:
    return [region["from"], region["to"]]


def find_id(name: str) -> int:
    """Return the class id of a name."""
    return IGNORE if name == "ignore" else SENSEEARTH.names.index(name)


def read_images(drawing: Drawing, shared: Path) -> list[np.ndarray]:
    """Return red, green and blue of each image's window, (3, H, W) uint8."""
    return [_read_window(shared / name, drawing.window)[:3] for name in drawing.images]


def _read_window(path: Path, window: tuple[int, int, int, int] | None) -> np.ndarray:
    with allow_no_place(), rasterio.open(path) as dataset:
        pixels_CHW = dataset.read()
    left, top, right, bottom = window or (0, 0, *pixels_CHW.shape[:0:-1])
    return pixels_CHW[:, top:bottom, left:right]


def paint(drawing: Drawing, shared: Path) -> list[np.ndarray]:
    """Return the class ids of each image, (H, W) uint8."""
    height, width = read_images(drawing, shared)[0].shape[1:]
    painted = []
    for date in range(len(drawing.images)):
        if drawing.base:
            ids_HW = _read_window(shared / drawing.base[date], None)[0]
        else:
            ids_HW = np.full((height, width), drawing.default, np.uint8)
        painted.append(paint_over(ids_HW, [(r.ids[date], r.corners) for r in drawing.regions]))
    return painted


def paint_over(
    ids_HW: np.ndarray, polygons: list[tuple[int, tuple[tuple[float, float], ...]]]
) -> np.ndarray:
    """Return class ids with polygons painted over them, later ones over earlier ones.

    Args:
        ids_HW: (H, W) uint8.
        polygons: Class id and corners of each.
    """
    size = (ids_HW.shape[1] * OVERSAMPLING, ids_HW.shape[0] * OVERSAMPLING)
    canvas = Image.fromarray(ids_HW).resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for class_id, corners in polygons:
        fine = [(x * OVERSAMPLING - 0.5, y * OVERSAMPLING - 0.5) for x, y in corners]
        pen.polygon(fine, class_id)
    centre = OVERSAMPLING // 2
    return np.asarray(canvas)[centre::OVERSAMPLING, centre::OVERSAMPLING]


def draw_pages(
    images: list[np.ndarray], labels: list[np.ndarray], side_px: int
) -> list[Image.Image]:
    """Return a page for each square of `side_px`: images above, their labels' outlines below."""
    height, width = labels[0].shape
    pages = []
    for top in range(0, height, side_px):
        for left in range(0, width, side_px):
            place = slice(top, top + side_px), slice(left, left + side_px)
            columns = [
                np.concatenate([_enlarge(image[:, *place]), _outline(image[:, *place], ids[place])])
                for image, ids in zip(images, labels, strict=True)
            ]
            page = Image.fromarray(np.concatenate(columns, axis=1))
            _mark_ticks(page, left, top)
            pages.append(page)
    return pages


def _enlarge(image_CHW: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image_CHW, (0.5, 99.5))
    stretched = np.clip((image_CHW - low) * 255 / max(high - low, 1), 0, 255).astype(np.uint8)
    return np.moveaxis(stretched, 0, -1).repeat(ENLARGEMENT, 0).repeat(ENLARGEMENT, 1)


def _outline(image_CHW: np.ndarray, ids_HW: np.ndarray) -> np.ndarray:
    large = _enlarge(image_CHW)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(SENSEEARTH.colours)] = SENSEEARTH.colours
    colours[IGNORE] = (255, 0, 255)
    ids = ids_HW.repeat(ENLARGEMENT, 0).repeat(ENLARGEMENT, 1)
    edge = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        for shift in (-1, 1, -2, 2):
            edge |= ids != np.roll(ids, shift, axis)
    large[edge & (ids > 0)] = colours[ids[edge & (ids > 0)]]
    rows, columns = np.indices(ids.shape)
    is_dotted = ((rows % 12) < 2) & ((columns % 12) < 2) & (ids > 0)
    large[is_dotted] = colours[ids[is_dotted]]
    return large


def _mark_ticks(page: Image.Image, left: int, top: int):
    pen = ImageDraw.Draw(page)
    for x in range(0, page.width, TICK_PX * ENLARGEMENT):
        for y in range(0, page.height, TICK_PX * ENLARGEMENT):
            pen.line([(x - 3, y), (x + 3, y)], "yellow")
            pen.line([(x, y - 3), (x, y + 3)], "yellow")
    half, column = page.height // 2, page.height // 2
    for start in range(0, page.width, column):
        for offset in range(0, column, TICK_PX * ENLARGEMENT):
            pen.text((start + offset + 2, 1), str(left + offset // ENLARGEMENT), "cyan")
            row = str(top + offset // ENLARGEMENT)
            for above in (0, half):
                pen.text((start + 1, above + offset + 2), row, "yellow")


def main():
    """Draw the pages of one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--side", type=int, default=128, help="pixels of a page's square")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pages")
    options = parser.parse_args()
    drawing = read_drawing(options.file)
    images, labels = read_images(drawing, options.shared), paint(drawing, options.shared)
    options.output.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(draw_pages(images, labels, options.side)):
        page.save(options.output / f"{options.file.stem}_{number}.png")


if __name__ == "__main__":
    main()
