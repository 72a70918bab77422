"""The labels changed by eight bits, part by part: which rounding makes int8 disagree.

Rounds the same values as int8 in a float32 network: weights (per output channel, symmetric) and the
inputs of convolutions (per tensor, over their range), of all convolutions, of one group of them,
and of all but one group. An int8 runtime rounds more than that. Run: `python
benchmarks/rounding.py`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from inference import Labels, compare, draw_scenes
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.deployment import Deployment, fold_norms
from trained import WORK, train_fcn

LEVELS = 255
CALIBRATION_SCENES = 2
"""Calibration scenes, the same as those compared: the most favourable calibration."""


class Rounded(nn.Module):
    """A convolution whose weights and inputs have been rounded to eight bits."""

    def __init__(self, convolution: nn.Conv2d, *, weights: bool, inputs: bool):
        super().__init__()
        self.convolution = copy.deepcopy(convolution)
        self.rounds_inputs = inputs
        self.is_calibrating = True
        self.low, self.high = 0.0, 0.0
        if weights:
            weight_OIHW = self.convolution.weight
            step_O111 = weight_OIHW.detach().abs().amax((1, 2, 3), keepdim=True) / (LEVELS // 2)
            self.convolution.weight = nn.Parameter((weight_OIHW / step_O111).round() * step_O111)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve, after rounding if requested; the first passes only measure the range."""
        if self.is_calibrating:
            self.low = min(self.low, float(features.min()))
            self.high = max(self.high, float(features.max()))
        elif self.rounds_inputs:
            step = (self.high - self.low) / LEVELS
            features = ((features - self.low) / step).round().clamp(0, LEVELS) * step + self.low
        return self.convolution(features)


def group_of(name: str) -> str:
    """Return the part of the network that a convolution belongs to."""
    parts = name.split(".")
    return parts[1] if parts[0] == "encoder" else parts[0]


def measure() -> dict[str, list[dict]]:
    """Return the table of this file."""
    model = load_model(train_fcn(WORK))
    scenes = draw_scenes()
    network = fold_norms(model.network)
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    groups = list(dict.fromkeys(map(group_of, names)))
    truth = label(model, network, scenes)
    variants = {
        "all weights and inputs": (names, True, True),
        "all weights": (names, True, False),
        "all inputs": (names, False, True),
    }
    for group in groups:
        within = [name for name in names if group_of(name) == group]
        without = [name for name in names if group_of(name) != group]
        variants[f"{group} alone"] = (within, True, True)
        variants[f"all but {group}"] = (without, True, True)
    rows = []
    for variant, (chosen, weights, inputs) in variants.items():
        print(f"rounding: {variant}", file=sys.stderr)
        rounded = round_network(network, chosen, weights=weights, inputs=inputs)
        label(model, rounded, scenes[:CALIBRATION_SCENES])
        for part in rounded.modules():
            if isinstance(part, Rounded):
                part.is_calibrating = False
        rows.append({"rounded": variant, **compare(label(model, rounded, scenes), truth)})
    return {"Rounding to eight bits in float32, fcn, resnet18": rows}


def round_network(network: nn.Module, names: Iterable[str], **options: bool) -> nn.Module:
    """Return a copy of a network with some of its convolutions rounded."""
    rounded = copy.deepcopy(network)
    for name in names:
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        rounded.set_submodule(name, Rounded(convolution, **options))
    return rounded


@torch.inference_mode()
def label(model, network: nn.Module, scenes) -> list[Labels]:
    """Return the answer of a predictor with this network."""
    deployment = Deployment(model)
    deployment.network = network
    predictor = Predictor(
        [model],
        Runtime(backend="torch", precision="fp32"),
        create_backend=lambda *_: lambda request: deployment(*request),
    )
    answers = []
    for before, after in scenes:
        maps = predictor.classify(before, after)[0]
        answers.append(Labels(maps.before_HW, maps.after_HW))
    return answers


if __name__ == "__main__":
    from tables import print_tables

    print_tables(measure())
