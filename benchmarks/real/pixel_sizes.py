"""Scores on real changes in coarser pixels: seen as they are, and enlarged for the model.

The pairs of Claremont (recipes/default/hand_labels.py) have pixels of 0.6 m. Their means over
squares stand for a coarser sensor; the truth is that of the pixel in the middle.

Run: `python benchmarks/real/pixel_sizes.py --shared ../shared/data [--model NAME=FOLDER ...]`.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from affine import Affine
from hand_drawn import HandPair, find_split, list_sites, read_pairs, write_changes
from rasterio.crs import CRS

from terradelta.geo.grid import Grid
from terradelta.geo.scale import SeenPixels, find_seen_pixels
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL

SIDE_M = 0.6
FACTORS = (1, 2, 3, 4, 5)
WORDS = {SeenPixels(): "as they are"}


def main():
    """Print a table for each pixel size and way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", nargs="*", default=[f"default={DEFAULT_MODEL}"])
    options = parser.parse_args()
    predictors = {}
    for text in options.model:
        name, _, folder = text.partition("=")
        predictors[name] = Predictor([load_model(folder)], Runtime(precision="fp32"))
    sites = list_sites(options.shared)
    pairs = [p for p in read_pairs(options.shared) if find_split(p.name, sites) == "test"]
    for factor in FACTORS:
        coarse = [coarsen(pair, factor) for pair in pairs]
        side_m = factor * SIDE_M
        grid = Grid(CRS.from_epsg(32611), Affine(side_m, 0, 5e5, 0, -side_m, 4e6), 100, 100)
        for name, predictor in predictors.items():
            chosen = find_seen_pixels(grid, predictor.needs.resolution_m)
            for seen in dict.fromkeys((SeenPixels(), chosen)):
                predictor.see(seen)
                title = f"{side_m:.1f} m, {WORDS.get(seen, str(seen))}"
                print(write_changes(title, coarse, {name: predictor}))


def coarsen(pair: HandPair, factor: int) -> HandPair:
    """Return the pair in larger pixels."""
    height, width = (side // factor * factor for side in pair.ids[0].shape)
    images = []
    for image_CHW in pair.images:
        squares = image_CHW[:, :height, :width].reshape(
            len(image_CHW), height // factor, factor, width // factor, factor
        )
        images.append(squares.mean(axis=(2, 4)).round().astype(np.uint8))
    middle = slice(factor // 2, None, factor)
    ids = tuple(ids_HW[:height, :width][middle, middle] for ids_HW in pair.ids)
    return HandPair(pair.name, tuple(images), ids)


if __name__ == "__main__":
    main()
