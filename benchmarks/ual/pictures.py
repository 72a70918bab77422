"""Draws test pairs and the maps of networks trained with different losses: pictures.png.

Run after runs.py, with its folders: `python benchmarks/ual/pictures.py --data DIR --work DIR`. Of
each benchmark it takes the pair whose share of change is the median, and the runs of seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from runs import BENCHMARKS, HERE, LOSSES, MAIN_MODEL, Run

from terradelta.classes import ClassTable
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.layouts import find_pairs
from terradelta.inference.folders import ImagePair, predict_images
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model

UNCHANGED = (255, 255, 255)
SEED = 0


def main():
    """Draw two rows of panels, before and after, for each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what data.py has written")
    parser.add_argument("--work", type=Path, required=True, help="where runs.py kept its runs")
    options = parser.parse_args()
    columns = ("image", "truth", *LOSSES)
    figure = Figure(figsize=(1.5 * len(columns), 3.1 * len(BENCHMARKS)), layout="constrained")
    axes = figure.subplots(2 * len(BENCHMARKS), len(columns))
    for number, benchmark in enumerate(BENCHMARKS):
        pairs = find_pairs(options.data / benchmark, "test")
        dataset = ChangeDataset(pairs)
        shares = [float((sample.change_HW > 0).float().mean()) for sample in dataset]
        sample = dataset[int(np.argsort(shares)[len(shares) // 2])]
        columns_of_maps = [
            (
                sample.before_CHW.numpy().transpose(1, 2, 0),
                sample.after_CHW.numpy().transpose(1, 2, 0),
            ),
            tuple(
                colour(labels_HW.numpy(), pairs.classes)
                for labels_HW in (sample.before_labels_HW, sample.after_labels_HW)
            ),
            *(
                answer(options.work / Run(benchmark, loss, *MAIN_MODEL, SEED).name, sample)
                for loss in LOSSES
            ),
        ]
        for column, panels in enumerate(columns_of_maps):
            for row, panel in enumerate(panels):
                place = axes[2 * number + row, column]
                place.imshow(panel)
                place.set(xticks=[], yticks=[])
                if column == 0:
                    place.set_ylabel(f"{benchmark}, {('before', 'after')[row]}")
                if number == row == 0:
                    place.set_title(columns[column], fontsize="small")
    figure.savefig(HERE / "pictures.png", dpi=90)


def answer(run: Path, sample: PairSample) -> tuple[np.ndarray, ...]:
    """Return the coloured maps before and after of a run's best model."""
    predictor = Predictor([load_model(run / "best")])
    images = ImagePair(sample.before_CHW.numpy(), sample.after_CHW.numpy())
    return tuple(colour(ids_HW, predictor.classes) for ids_HW in predict_images(predictor, images))


def colour(ids_HW: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return class ids in the table's colours, unchanged in white, (H, W, 3) uint8."""
    return np.array([UNCHANGED, *classes.colours[1:]], np.uint8)[ids_HW]


if __name__ == "__main__":
    main()
