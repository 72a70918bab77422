"""Pictures of a few validation pairs: images, truth and prediction.

Legend of the array names: C bands, H rows, W columns, last 3 red, green, blue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from terradelta.classes import ClassTable
from terradelta.evaluation.model_scores import answer_pair
from terradelta.geo.stretch import draw_rgb, find_range
from terradelta.inference.predictor import Predictor
from terradelta.outputs import stage_file
from terradelta.protocols import PairDataset

SIDE_PX = 256
GAP_PX = 4


def draw_pairs(predictor: Predictor, dataset: PairDataset, number: int, path: Path):
    """Draw some pairs of a data set, one a row, spread evenly over it.

    The columns are before, after, true land cover before and after, predicted land cover before and
    after; land cover is white where nothing changed.

    Args:
        predictor: The models.
        dataset: Labelled pairs.
        number: Number of pairs, limited by the data set.
        path: The picture to write.
    """
    places = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
    rows = [_draw_row(predictor, dataset, index) for index in places.tolist()]
    width = max(row.shape[1] for row in rows)
    sheet = Image.new("RGB", (width, sum(len(row) + GAP_PX for row in rows) - GAP_PX), "white")
    top = 0
    for row in rows:
        sheet.paste(Image.fromarray(row), (0, top))
        top += len(row) + GAP_PX
    path.parent.mkdir(parents=True, exist_ok=True)
    with stage_file(path) as staged:
        sheet.save(staged)


def _draw_row(predictor: Predictor, dataset: PairDataset, index: int) -> np.ndarray:
    sample = dataset[index]
    images = sample.before_CHW.numpy(), sample.after_CHW.numpy()
    predicted = answer_pair(predictor, dataset, sample)
    true = sample.before_labels_HW.numpy(), sample.after_labels_HW.numpy()
    panels = [
        *map(_stretch, images),
        *(_colour(classes_HW, dataset.classes) for classes_HW in (*true, *predicted)),
    ]
    height, width = panels[0].shape[:2]
    scale = min(1.0, SIDE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    gap = np.full((size[1], GAP_PX, 3), 255, np.uint8)
    row = [part for panel in panels for part in (_shrink(panel, size), gap)]
    return np.concatenate(row[:-1], axis=1)


def _stretch(image_CHW: np.ndarray) -> np.ndarray:
    """Return a picture, (H, W, 3) uint8."""
    everywhere_HW = np.ones(image_CHW.shape[1:], bool)
    rgb_CHW = draw_rgb(image_CHW, find_range(image_CHW, everywhere_HW))
    return np.ascontiguousarray(np.moveaxis(rgb_CHW, 0, -1))


def _colour(classes_HW: np.ndarray, classes: ClassTable) -> np.ndarray:
    return np.asarray(classes.colours, np.uint8)[classes_HW]


def _shrink(panel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(panel).resize(size, Image.Resampling.NEAREST))
