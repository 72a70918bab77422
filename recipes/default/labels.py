"""Name the buildings and the bare ground of naip_urbantree by a trained network: `labels/`.

The infrared shows plants; the rest is not labelled. A network trained on buildings maps the
three years of a site at two scales. The probability of building minus that of bare ground is
averaged, brought to the image's own edges (guided filter), and where it is high or low, and no year
is green or dark, a pixel gets its answer. Roofs that stood for four years are seen three times in
other light, so the vote is better than a single date. Where an inspection of the masks found large
halls unlabelled or taken for ground, and courts, cars and bare soil for buildings, corrections.csv
holds the right classes: polygons in pixels, drawn by eye.

The masks are kept in git, as a new network would label differently. They were made
by the default model of commit 092feda. A network trained only on roofs of Dubai and Kampala
maps the grey ones of California as ground; a model trained on its labels found 71 % of
LEVIR's new buildings instead of 95 %.

Run: `python recipes/default/labels.py --shared ../shared/data --output labels`.

Legend of the array names: C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scenes import BUILDING, CITIES, GROUND, list_urbantree, name_site, read_urbantree
from scipy.ndimage import label, median_filter, uniform_filter
from tqdm import tqdm

from terradelta.classes import SENSEEARTH
from terradelta.data.images import write_mask
from terradelta.inference.folders import find_probabilities
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.outputs import stage_folder

CORRECTIONS = Path(__file__).with_name("corrections.csv")
SCALES = (1.0, 1.5)
LEAST_BUILDING = 0.6
MOST_GROUND = 0.1
"""Large pale roofs lie between this and 0.3."""
DARKEST_GREY = 70
"""Below it lies shadow, which gets no label."""
SMALLEST_BUILDING_PX = 60
SMOOTH_PX = 5
FILTER_REACH_PX = 5
FILTER_SOFTNESS = 0.0015


def main():
    """Write a mask for each site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    write_labels(options.shared, options.model, options.output)


def write_labels(shared: Path, model: Path, output: Path):
    """Write a mask for each site of naip_urbantree, the same for its years.

    Args:
        shared: The folder of `naip_urbantree`.
        model: Folder of the network that labels.
        output: Folder to make; it appears whole or not at all.
    """
    predictor = Predictor([load_model(model)])
    folder = shared / "naip_urbantree"
    polygons = read_corrections()
    sites = [site for split in CITIES for site in list_urbantree(folder, split)]
    with stage_folder(output) as staged:
        for site in tqdm(sites, desc="labelling", unit="site", disable=None):
            dates = [read_urbantree(path) for path in site]
            probability_KHW = np.mean([ask(predictor, date.image_CHW) for date in dates], axis=0)
            images = np.stack([date.image_CHW for date in dates])
            is_known_HW = np.any([date.ids_HW > 0 for date in dates], axis=0)
            is_dark_HW = (images.max(axis=1) < DARKEST_GREY).any(axis=0)
            ids_HW = choose(probability_KHW, images.mean(axis=0), ~(is_known_HW | is_dark_HW))
            name = name_site(site[0])
            write_mask(staged / f"{name}.png", correct(ids_HW, polygons.get(name, [])), SENSEEARTH)


def read_corrections() -> dict[str, list[tuple[int, list[int]]]]:
    """Return class id and corners (x, y, x, y ...) of the polygons of each site."""
    polygons: dict[str, list[tuple[int, list[int]]]] = {}
    with CORRECTIONS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            corners = [int(text) for text in row["corners"].split()]
            class_id = SENSEEARTH.names.index(row["class"])
            polygons.setdefault(row["site"], []).append((class_id, corners))
    return polygons


def correct(ids_HW: np.ndarray, polygons: list[tuple[int, list[int]]]) -> np.ndarray:
    """Return a mask with polygons drawn over it."""
    picture = Image.fromarray(ids_HW)
    for class_id, corners in polygons:
        ImageDraw.Draw(picture).polygon(corners, fill=class_id)
    return np.asarray(picture)


def ask(predictor: Predictor, image_CHW: np.ndarray) -> np.ndarray:
    """Return the land cover's probabilities of one image, (K, H, W), averaged over scales."""
    answers = []
    height, width = image_CHW.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(image_CHW, 0, -1)))
    for scale in SCALES:
        size = (round(scale * width), round(scale * height))
        pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
        scaled_CHW = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))
        answer = find_probabilities(predictor, scaled_CHW, scaled_CHW).before_KHW
        answers.append(
            [
                np.asarray(Image.fromarray(part_HW).resize((width, height)), np.float32)
                for part_HW in answer
            ]
        )
    return np.mean(answers, axis=0)


def choose(
    probability_KHW: np.ndarray, image_CHW: np.ndarray, is_open_HW: np.ndarray
) -> np.ndarray:
    """Return building or ground where they are clear, otherwise 0, (H, W) uint8.

    Args:
        probability_KHW: Probability of each class.
        image_CHW: The image whose edges outlines follow, 0 to 255.
        is_open_HW: Pixels to label.
    """
    building_HW, ground_HW = (probability_KHW[i - 1] for i in (BUILDING, GROUND))
    share_HW = building_HW / np.maximum(building_HW + ground_HW, 1e-6)
    share_HW = filter_guided(share_HW, image_CHW / 255)
    ids_HW = np.select(
        [~is_open_HW, share_HW >= LEAST_BUILDING, share_HW <= MOST_GROUND],
        [0, BUILDING, GROUND],
        default=0,
    )
    ids_HW = median_filter(ids_HW.astype(np.uint8), SMOOTH_PX)
    owner_HW, _ = label(ids_HW == BUILDING)
    is_small = np.bincount(owner_HW.ravel()) < SMALLEST_BUILDING_PX
    is_small[0] = False
    ids_HW[is_small[owner_HW]] = 0
    return ids_HW


def filter_guided(values_HW: np.ndarray, guide_CHW: np.ndarray) -> np.ndarray:
    """Return values smoothed within the edges of a guide (He et al., 2013, equations 19 to 21)."""

    def average(layers: np.ndarray) -> np.ndarray:
        size = (1,) * (layers.ndim - 2) + (2 * FILTER_REACH_PX + 1,) * 2
        return uniform_filter(layers, size)

    mean_CHW, mean_HW = average(guide_CHW), average(values_HW)
    covariance_CHW = average(guide_CHW * values_HW) - mean_CHW * mean_HW
    between = average(guide_CHW[:, None] * guide_CHW[None]) - mean_CHW[:, None] * mean_CHW[None]
    between = np.moveaxis(between, (0, 1), (2, 3)) + FILTER_SOFTNESS * np.eye(len(guide_CHW))
    slope_HWC1 = np.linalg.solve(between, np.moveaxis(covariance_CHW, 0, -1)[..., None])
    slope_CHW = np.moveaxis(slope_HWC1[..., 0], -1, 0)
    offset_HW = mean_HW - (slope_CHW * mean_CHW).sum(axis=0)
    return (average(slope_CHW) * guide_CHW).sum(axis=0) + average(offset_HW)


if __name__ == "__main__":
    main()
