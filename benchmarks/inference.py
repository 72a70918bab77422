"""Pairs per second by network, runtime and number format, and how far the labels agree.

The reference way is eager float32 with contiguous tensors, then a softmax and an arg-max of every
pixel. All ways of a network run in turn in one process, so that the ratios hold when the machine's
speed drifts. Labels are compared on trained weights if available: the default model, and
an FCN-ResNet-18 that `trained.py` trains once. Run: `python benchmarks/inference.py`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from terradelta.data.synthetic import draw_pair
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor, choose_pool_window
from terradelta.models.bundle import Model, load_model
from terradelta.models.card import ModelCard
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.models.registry import create_model
from trained import WORK, train_fcn

SIZE_PX = 512
ROUNDS = 7
SCENES = (700, 701, 702, 703)
UNTRAINED = (("fcn", "resnet50"), ("deeplabv3plus", "resnet18"), ("fcn", "hrnet_w18"))
WAYS = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
MATRIX_SIZE = 4096


class Labels(NamedTuple):
    """The answer of one way to one pair; (H, W) each."""

    before_HW: np.ndarray
    after_HW: np.ndarray


def run_reference_way(model: Model, before: Tensor, after: Tensor) -> Labels:
    """Run the network as the reference implementation does."""
    with torch.no_grad():
        output = model.network(*map(model.card.scaling.apply, (before, after)))
        changed = output.change_logits.sigmoid() >= model.card.change_threshold
        ids = [
            torch.where(changed, logits.softmax(1).argmax(1) + 1, 0)[0].numpy()
            for logits in output[:2]
        ]
    return Labels(*ids)


def run_predictor(predictor: Predictor, before: Tensor, after: Tensor) -> Labels:
    """Run the network as `terradelta predict` does."""
    maps = predictor.classify(before, after)[0]
    return Labels(maps.before_HW, maps.after_HW)


def draw_scenes() -> list[tuple[Tensor, Tensor]]:
    """Return pairs that no model was trained on."""
    scenes = [draw_pair(seed, SIZE_PX) for seed in SCENES]
    return [
        (torch.from_numpy(scene.before_CHW)[None], torch.from_numpy(scene.after_CHW)[None])
        for scene in scenes
    ]


def list_models() -> dict[str, tuple[Model, bool]]:
    """Return the models by name, and whether each is trained."""
    models = {
        "fcn, resnet18": (load_model(train_fcn(WORK)), True),
        "fpn, efficientnet_lite0 (default)": (load_model(DEFAULT_MODEL), True),
    }
    for model, _ in models.values():
        # Heads with global pooling answer as in `predict`, so that labels are comparable.
        model.network.pool_window_px = choose_pool_window(model)
    for name, encoder in UNTRAINED:
        torch.manual_seed(0)
        network = create_model(name, encoder=encoder).eval()
        card = ModelCard(architecture=network.config)
        models[f"{name}, {encoder}"] = Model(network, card), False
    return models


def measure_model(name: str, model: Model, is_trained: bool, scenes) -> list[dict]:
    """Return a row for each way of running a model."""
    ways: dict[str, Callable[[Tensor, Tensor], Labels]] = {
        "reference": lambda *pair: run_reference_way(model, *pair)
    }
    for backend, precision in WAYS:
        if precision == "int8" and model.int8_graph is None:
            continue
        predictor = Predictor([model], Runtime(backend=backend, precision=precision))
        ways[f"{backend} {precision}"] = lambda *pair, predictor=predictor: run_predictor(
            predictor, *pair
        )
    answers = {way: [answer(*pair) for pair in scenes] for way, answer in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        for way, answer in ways.items():
            started = time.perf_counter()
            answer(*scenes[number % len(scenes)])
            seconds[way].append(time.perf_counter() - started)
    rows = []
    for way in ways:
        ratios = [a / b for a, b in zip(seconds["reference"], seconds[way], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "network": name,
                "way": way,
                "pairs/s": f"{1 / statistics.median(seconds[way]):.2f}",
                "ratio": f"{statistics.median(ratios):.2f}",
                "quartiles": f"{quartiles[0]:.2f} - {quartiles[2]:.2f}",
                **(compare(answers[way], answers["reference"]) if is_trained else NOT_COMPARED),
            }
        )
    return rows


NOT_COMPARED = {"from-to labels agree": "untrained", "change agrees": "untrained"}


def compare(answers: list[Labels], truth: list[Labels]) -> dict[str, str]:
    """Return the shares of pixels with the same labels at both dates, and the same change."""
    labels, change = [], []
    for mine, theirs in zip(answers, truth, strict=True):
        alike_HW = (mine.before_HW == theirs.before_HW) & (mine.after_HW == theirs.after_HW)
        labels.append(alike_HW.mean())
        change.append(((mine.before_HW > 0) == (theirs.before_HW > 0)).mean())
    return {
        "from-to labels agree": f"{100 * np.mean(labels):.3f} %",
        "change agrees": f"{100 * np.mean(change):.3f} %",
    }


def measure_floor(model: Model) -> dict:
    """Return the time of the multiplications alone at this machine's matrix rates."""
    image = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.network(image, image)
    operations = counter.get_total_flops()
    row = {"GFLOP": f"{operations / 1e9:.0f}"}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rate = measure_matrix_rate(dtype)
        row[f"{name} matrices, TFLOP/s"] = f"{rate / 1e12:.2f}"
        row[f"{name} floor, pairs/s"] = f"{rate / operations:.2f}"
    return row


def measure_matrix_rate(dtype: torch.dtype) -> float:
    """Return the operations a second of the largest matrix products."""
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(dtype)
    product = matrix @ matrix
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(matrix, matrix, out=product)
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX_SIZE**3 / min(seconds)


def measure() -> dict[str, list[dict]]:
    """Return the tables of this file."""
    scenes = draw_scenes()
    rows, floors = [], []
    for name, (model, is_trained) in list_models().items():
        print(f"inference: {name}", file=sys.stderr)
        rows += measure_model(name, model, is_trained, scenes)
        floors.append({"network": name, **measure_floor(model)})
    title = f"Inference: one {SIZE_PX} x {SIZE_PX} pair after the other, {ROUNDS} rounds"
    return {title: rows, "Floors: multiplications at the rate of large matrix products": floors}


if __name__ == "__main__":
    from tables import print_tables

    print_tables(measure())
