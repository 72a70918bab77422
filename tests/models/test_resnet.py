from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from terradelta.models.resnet import ResNet

REFERENCE = Path(__file__).resolve().parents[1] / "reference"

# Parameters of torchvision's networks, the 1000-class classifier included.
TORCHVISION_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
}


@pytest.mark.parametrize("name", TORCHVISION_PARAMETERS)
def test_parameter_count_is_torchvisions(name):
    with torch.device("meta"):
        encoder = ResNet(name)
    classifier = 1000 * (encoder.channels[-1] + 1)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count + classifier == TORCHVISION_PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "published"), [("resnet18", "fcn_resnet18"), ("resnet34", "pspnet_resnet34")]
)
def test_keys_are_the_published_ones(name, published):
    path = REFERENCE / "state_dict_keys.json"
    prefix = "backbone."
    expected = {
        key.removeprefix(prefix): shape
        for key, shape in json.loads(path.read_text())[published].items()
        if key.startswith(prefix)
    }
    with torch.device("meta"):
        own = {key: list(value.shape) for key, value in ResNet(name).state_dict().items()}
    assert own == expected


def dilations(layer):
    return [
        module.dilation[0]
        for module in layer.modules()
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)
    ]


def test_basic_blocks_dilate_their_first_convolution_only():
    with torch.device("meta"):
        encoder = ResNet("resnet18")
    assert dilations(encoder.layer3) == [1, 1, 2, 1]
    assert dilations(encoder.layer4) == [2, 1, 4, 1]


def test_bottlenecks_dilate_like_torchvisions():
    with torch.device("meta"):
        encoder = ResNet("resnet50")
    assert dilations(encoder.layer2) == [1] * 4
    assert dilations(encoder.layer3) == [1] + [2] * 5
    assert dilations(encoder.layer4) == [2, 4, 4]
