"""Pictures of the best, the median and the worst real pairs: before, after, answer, truth.

LEVIR-CD may be shown for academic use only and OSCD's labels are not free either, so what this
draws of them stays in the work folder; NAIP is in the public domain.

Run: `python benchmarks/real/pictures.py --shared ../shared/data --output runs/real-pictures`.

Legend of the array names: C bands, H rows, W columns, last 3 red, green, blue.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hand_drawn import find_split, list_sites, read_pairs
from pairs import RealPair, read_levir, read_oscd, read_unchanged
from PIL import Image
from table import Tally

from terradelta.data.images import IGNORE
from terradelta.inference.folders import ImagePair, predict_images
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.outputs import stage_folder

SIDE_PX = 384
GAP_PX = 6
TRUTH = (214, 39, 40)
IGNORED = (245, 222, 245)
LEAST_CHANGE = 0.01
"""A pair with less true change says little about it."""


def main():
    """Draw a sheet of each set of pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    predictor = Predictor([load_model(options.model)])
    sets = {
        "levir": (read_levir(options.shared), "F1"),
        "unchanged": (read_unchanged(options.shared), "flagged"),
        "oscd": (read_oscd(options.shared), "F1"),
    }
    with stage_folder(options.output, overwrite=True) as staged:
        draw_changes(predictor, options.shared, staged / "changes.png")
        for name, (pairs, number) in sets.items():
            draw_sheet(predictor, pairs, number, staged / f"{name}.png")


def draw_changes(predictor: Predictor, shared: Path, path: Path):
    """Draw real changes of the test city: before, after, classes as answered and as drawn."""
    sites, found = list_sites(shared), []
    for pair in read_pairs(shared):
        known_HW = (pair.ids[0] != IGNORE) & (pair.ids[1] != IGNORE)
        true_HW = (pair.ids[1] > 0) & known_HW
        if find_split(pair.name, sites) != "test" or true_HW.mean() < LEAST_CHANGE:
            continue
        before_HW, after_HW = predict_images(predictor, ImagePair(*pair.images))
        counts = Tally()
        counts.add((before_HW > 0) & known_HW, true_HW)
        found.append((counts.compute()["F1"], pair, after_HW))
    found.sort(key=lambda row: -row[0])
    rows = []
    for place in sorted({0, len(found) // 2, len(found) - 1}):
        value, pair, after_HW = found[place]
        print(f"{path.stem}: {pair.name}, F1 of change {value:.3f}")
        before_HW3, after_HW3 = (np.moveaxis(image, 0, -1) for image in pair.images)
        panels = [before_HW3, after_HW3]
        for ids_HW in (after_HW, pair.ids[1]):
            panel_HW3 = after_HW3.mean(axis=-1, keepdims=True).repeat(3, axis=-1) / 2 + 110
            is_class_HW = (ids_HW > 0) & (ids_HW != IGNORE)
            panel_HW3[is_class_HW] = np.array(predictor.classes.colours)[ids_HW[is_class_HW]]
            panel_HW3[ids_HW == IGNORE] = IGNORED
            panels.append(panel_HW3)
        rows.append(_join(panels))
    _save(rows, path)


def draw_sheet(predictor: Predictor, pairs: Iterable[RealPair], number: str, path: Path):
    """Draw the pairs with the highest, the middle and the lowest number, one a row."""
    found = []
    for pair in pairs:
        classes = predict_images(predictor, ImagePair(pair.before_CHW, pair.after_CHW))
        counts = Tally()
        counts.add(classes[1] > 0, pair.truth_HW)
        found.append((counts.compute()[number], pair, classes[1]))
    found.sort(key=lambda row: -row[0])
    rows = []
    for place in sorted({0, len(found) // 2, len(found) - 1}):
        value, pair, after_HW = found[place]
        print(f"{path.stem}: {pair.name}, {number} {value:.3f}")
        rows.append(_draw_row(pair, after_HW, predictor.classes.colours))
    _save(rows, path)


def _save(rows: list[np.ndarray], path: Path):
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    Image.fromarray(np.concatenate([part for row in rows for part in (row, gap)][:-1])).save(path)


def _draw_row(pair: RealPair, after_HW: np.ndarray, colours: Iterable) -> np.ndarray:
    before_HW3, after_HW3 = (np.moveaxis(i, 0, -1) for i in (pair.before_CHW, pair.after_CHW))
    grey_HW3 = after_HW3.mean(axis=-1, keepdims=True).repeat(3, axis=-1) / 2 + 110
    answer_HW3, truth_HW3 = grey_HW3.copy(), grey_HW3.copy()
    changed_HW = after_HW > 0
    answer_HW3[changed_HW] = np.array(tuple(colours))[after_HW[changed_HW]]
    truth_HW3[pair.truth_HW] = TRUTH
    return _join((before_HW3, after_HW3, answer_HW3, truth_HW3))


def _join(panels: Iterable[np.ndarray]) -> np.ndarray:
    gap = np.full((SIDE_PX, GAP_PX, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (_shrink(panel), gap)]
    return np.concatenate(parts[:-1], axis=1)


def _shrink(panel_HW3: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(panel_HW3.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
