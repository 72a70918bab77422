from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from terradelta.models.hrnet import WIDTHS, HRNet

REFERENCE = Path(__file__).resolve().parents[1] / "reference"

# Parameters of the official classification networks.
OFFICIAL_PARAMETERS = {
    "hrnet_w18": 21_299_004,
    "hrnet_w30": 37_712_220,
    "hrnet_w32": 41_232_680,
    "hrnet_w40": 57_557_160,
    "hrnet_w44": 67_064_984,
    "hrnet_w48": 77_469_864,
    "hrnet_w64": 128_059_944,
}


def count_classifier(width):
    """Count what the official network puts behind its four branches."""
    widths = [width * 2**branch for branch in range(4)]
    heads = [32, 64, 128, 256]
    outs = [4 * head for head in heads]
    increase = sum(
        (w * h + 2 * h) + (9 * h * h + 2 * h) + (h * o + 2 * o) + (w * o + 2 * o)
        for w, h, o in zip(widths, heads, outs, strict=True)
    )
    down = sum(9 * o * p + p + 2 * p for o, p in pairwise(outs))
    final = outs[-1] * 2048 + 2048 + 2 * 2048
    return increase + down + final + 2048 * 1000 + 1000


@pytest.mark.parametrize("name", WIDTHS)
def test_parameter_count_is_the_official_one(name):
    with torch.device("meta"):
        encoder = HRNet(name)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count + count_classifier(WIDTHS[name]) == OFFICIAL_PARAMETERS[name]


def test_keys_are_the_published_ones():
    path = REFERENCE / "state_dict_keys.json"
    prefix = "backbone."
    expected = {
        key.removeprefix(prefix): shape
        for key, shape in json.loads(path.read_text())["pspnet_hrnet_w18_light"].items()
        if key.startswith(prefix)
    }
    with torch.device("meta"):
        own = {key: list(value.shape) for key, value in HRNet("hrnet_w18").state_dict().items()}
    assert own == expected


@torch.inference_mode()
def test_joined_features_are_the_branches_upsampled():
    torch.manual_seed(0)
    joined = HRNet("hrnet_w18").eval()
    plain = HRNet("hrnet_w18", joined=False).eval()
    plain.load_state_dict(joined.state_dict())
    image = torch.randn(1, 3, 64, 64)
    stem, first_stage, together = joined(image)
    plain_stem, *branches = plain(image)
    torch.testing.assert_close(plain_stem, stem)
    assert first_stage.shape == (1, 256, 16, 16)
    offset = 0
    for branch in branches:
        part = together[:, offset : offset + branch.shape[1]]
        offset += branch.shape[1]
        # With aligned corners the corner pixels are those of the coarse map.
        torch.testing.assert_close(
            part[..., :: part.shape[-2] - 1, :: part.shape[-1] - 1],
            branch[..., :: branch.shape[-2] - 1, :: branch.shape[-1] - 1],
            rtol=1e-4,
            atol=1e-5,
        )
    assert offset == together.shape[1]
