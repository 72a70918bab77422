"""How many times faster than the reference way a pair is predicted, and how far labels agree.

The reference way is eager float32 with contiguous tensors. All ways run in turn in one process, so
that the ratios hold when the machine's speed drifts. Run: `make bench`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from terradelta.classes import SENSEEARTH
from terradelta.data.synthetic import draw_pair
from terradelta.models.bundle import Model, ModelCard, Scaling
from terradelta.models.registry import create_model
from terradelta.predict.engine import Predictor, Probabilities, decide

SIZE_PX = 512
ROUNDS = 7


def build_model() -> Model:
    """Return FCN-ResNet-18 with batch statistics that fit drawn scenes."""
    torch.manual_seed(0)
    network = create_model("fcn", encoder="resnet18").train()
    with torch.no_grad():
        for seed in range(8):
            scene = draw_pair(seed, 256)
            images = [torch.from_numpy(i)[None] for i in (scene.before_CHW, scene.after_CHW)]
            network(*(Scaling.imagenet().apply(torch.cat([image, image])) for image in images))
    return Model(network.eval(), ModelCard(architecture=network.config, classes=SENSEEARTH))


def run_reference_way(model: Model, before: torch.Tensor, after: torch.Tensor) -> Probabilities:
    """Run the network as the reference implementation does."""
    with torch.no_grad():
        output = model.network(*map(model.card.scaling.apply, (before, after)))
        return Probabilities(
            output.before_logits.softmax(1),
            output.after_logits.softmax(1),
            output.change_logits.sigmoid(),
        )


def main():
    """Measure and print a table."""
    scene = draw_pair(100, SIZE_PX)
    pair = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
    reference = build_model()
    ways: dict[str, Callable[[], Probabilities]] = {
        "reference: float32, contiguous": lambda: run_reference_way(reference, *pair)
    }
    for precision in ("fp32", "bf16"):
        predictor = Predictor([build_model()], precision=precision)
        ways[f"terradelta {precision}"] = lambda predictor=predictor: predictor(*pair)

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers = {name: way() for name, way in ways.items()}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)

    threads = torch.get_num_threads()
    print(f"FCN-ResNet-18, one {SIZE_PX} x {SIZE_PX} pair, {threads} threads, {ROUNDS} rounds")
    first = next(iter(ways))
    truth = decide(answers[first], 0.5)
    print(f"{'way':<32}{'pairs/s':>9}{'ratio':>8}{'change labels agree':>21}")
    for name in ways:
        ratios = [a / b for a, b in zip(seconds[first], seconds[name], strict=True)]
        agree = np.mean((decide(answers[name], 0.5)[0] > 0) == (truth[0] > 0))
        rate = 1 / statistics.median(seconds[name])
        print(f"{name:<32}{rate:>9.2f}{statistics.median(ratios):>8.2f}{100 * agree:>19.2f} %")


if __name__ == "__main__":
    main()
