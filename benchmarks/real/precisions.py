"""How a model's answers and speed on real pairs depend on the number format.

Every runtime and precision answers the ten LEVIR pairs; its labels are compared with those of
eager float32, and with the truth. All take turns in one process on crops of 512 px, so that the
ratios hold when the machine's speed drifts. int8 is calibrated on pairs of the recipe
(recipes/default/data.py) in a copy of the model.

Run: `python benchmarks/real/precisions.py --shared ../shared/data --calibration pairs.csv
[--model FOLDER]`.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pairs import RealPair, read_levir
from table import BUILDING, Tally

from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.quantization import quantize
from terradelta.inference.votes import ClassMaps
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL

WAYS = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
SIZE_PX = 512
ROUNDS = 15


def answer(predictor: Predictor, pair: RealPair, side_px: int | None = None) -> ClassMaps:
    """Return the maps of a pair, or of its first `side_px` rows and columns."""
    images = (
        torch.from_numpy(np.ascontiguousarray(image_CHW[:, :side_px, :side_px]))[None]
        for image_CHW in pair[1:3]
    )
    return predictor.classify(*images)[0]


def measure_speed(predictors: dict[str, Predictor], pairs: list[RealPair]) -> dict[str, float]:
    """Return the median pairs a second of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for number in range(ROUNDS + 1):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            answer(predictor, pairs[number % len(pairs)], SIZE_PX)
            if number:  # the first call compiles
                seconds[name].append(time.perf_counter() - started)
    return {name: 1 / statistics.median(times) for name, times in seconds.items()}


def compare(predictors: dict[str, Predictor], pairs: list[RealPair]) -> dict[str, dict[str, float]]:
    """Return each way's agreement with the first, and its accuracy on new buildings."""
    agreement: dict[str, list[tuple[float, float]]] = {name: [] for name in predictors}
    tallies = {name: Tally() for name in predictors}
    for pair in pairs:
        first = None
        for name, predictor in predictors.items():
            maps = answer(predictor, pair)
            first = first or maps
            alike_HW = (maps.before_HW == first.before_HW) & (maps.after_HW == first.after_HW)
            change_HW = (maps.after_HW > 0) == (first.after_HW > 0)
            agreement[name].append((float(alike_HW.mean()), float(change_HW.mean())))
            tallies[name].add(maps.after_HW == BUILDING + 1, pair.truth_HW)
    return {
        name: {
            "labels": float(np.mean(agreement[name], axis=0)[0]),
            "change": float(np.mean(agreement[name], axis=0)[1]),
            **tallies[name].compute(),
        }
        for name in predictors
    }


def main():
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True, help="pairs like the model's")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    options = parser.parse_args()
    pairs = list(read_levir(options.shared))
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "model"
        shutil.copytree(options.model, copied)
        quantize(copied, options.calibration, split="val", pairs=64, overwrite=True)
        model = load_model(copied)
        predictors = {
            f"{backend} {precision}": Predictor(
                [model], Runtime(backend=backend, precision=precision)
            )
            for backend, precision in WAYS
        }
        speeds = measure_speed(predictors, pairs)
        rows = compare(predictors, pairs)
    print("| way | pairs/s | ratio | labels agree | change agrees | F1 | precision | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    slowest = speeds[next(iter(speeds))]
    for name, row in rows.items():
        numbers = (row[key] for key in ("F1", "precision", "recall"))
        print(
            f"| {name} | {speeds[name]:.2f} | {speeds[name] / slowest:.2f} "
            f"| {row['labels']:.3%} | {row['change']:.3%} | "
            + " | ".join(f"{number:.3f}" for number in numbers)
            + " |"
        )


if __name__ == "__main__":
    main()
