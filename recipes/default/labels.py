"""Name the buildings and the bare ground of naip_urbantree by a trained network.

The infrared tells plants and water; nobody labelled the rest. A network that learned buildings
elsewhere (teacher.yaml) looks at the three years of a site, flipped and turned, at two scales.
Where the mean of all is sure, and no year is green, a pixel gets its answer. Roofs that stood for
four years are seen three times in other light, so the vote is better than a look.

Run: `python recipes/default/labels.py --shared ../shared/data --model runs/default/teacher/best
--output runs/default/labels`.

Legend of the array names: C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import label, median_filter
from tqdm import tqdm

from data import BUILDING, CITIES, GROUND, list_urbantree, read_urbantree
from terradelta.classes import SENSEEARTH
from terradelta.data.images import write_mask
from terradelta.models.bundle import load_model
from terradelta.outputs import stage_folder
from terradelta.predict.engine import Predictor
from terradelta.predict.folders import find_probabilities

SCALES = (1.0, 1.5)
SURE = {BUILDING: 0.6, GROUND: 0.6}
SMALLEST_BUILDING_PX = 60
SMOOTH_PX = 5


def main():
    """Write a mask for each image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    predictor = Predictor([load_model(options.model)], tta="d4")
    sites = [
        site
        for split in CITIES
        for site in list_urbantree(options.shared / "naip_urbantree", split)
    ]
    with stage_folder(options.output, overwrite=options.overwrite) as staged:
        for site in tqdm(sites, desc="labelling", unit="site", disable=None):
            dates = [read_urbantree(path) for path in site]
            probability_KHW = np.mean([ask(predictor, date.image_CHW) for date in dates], axis=0)
            is_green_HW = np.any([date.ids_HW > 0 for date in dates], axis=0)
            ids_HW = choose(probability_KHW, is_green_HW)
            for path in site:
                write_mask(staged / f"{path.stem}.png", ids_HW, SENSEEARTH)


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


def choose(probability_KHW: np.ndarray, is_green_HW: np.ndarray) -> np.ndarray:
    """Return building or ground where it is sure, else 0, (H, W) uint8."""
    ids_HW = np.zeros(is_green_HW.shape, np.uint8)
    for class_id, least in SURE.items():
        ids_HW[(probability_KHW[class_id - 1] >= least) & ~is_green_HW] = class_id
    ids_HW = median_filter(ids_HW, SMOOTH_PX)
    owner_HW, _ = label(ids_HW == BUILDING)
    is_small = np.bincount(owner_HW.ravel()) < SMALLEST_BUILDING_PX
    is_small[0] = False
    ids_HW[is_small[owner_HW]] = 0
    return ids_HW


if __name__ == "__main__":
    main()
