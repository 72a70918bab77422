"""Networks that compute only the part of an answer that is wanted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terradelta.data.augment import VIEW_SETS, apply_view
from terradelta.inference.votes import turn_crop
from terradelta.models.change_network import ChangeOutput, crop_scores
from terradelta.models.crop import Crop

from ..conftest import build_network

HEIGHT_PX, WIDTH_PX = 288, 320
CROPS = (
    Crop(0, 288, 0, 320),
    Crop(128, 160, 128, 192),
    Crop(0, 32, 0, 96),
    Crop(256, 288, 224, 320),
    Crop(96, 128, 0, 320),
)
LOCAL = (("fpn", "efficientnet_lite0"), ("fpn", "aerial_resnet18_slim"), ("fcn", "resnet18_slim"))
OTHERS = (
    ("pspnet", "resnet18_slim"),
    ("deeplabv3plus", "resnet18_slim"),
    ("unet", "resnet18_slim"),
)


def draw_images():
    generator = torch.Generator().manual_seed(1)
    shape = (1, 3, HEIGHT_PX, WIDTH_PX)
    return [torch.randn(shape, generator=generator) for _ in range(2)]


def require_the_whole_answers_part(network, crop):
    with torch.inference_mode():
        whole = network.score(*draw_images())
        part = network.score_crop(*draw_images(), crop)
    expected = crop_scores(whole, crop, (HEIGHT_PX, WIDTH_PX))
    for mine, theirs in zip(part, expected, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("lightweight", [False, True])
@pytest.mark.parametrize("name", LOCAL, ids="-".join)
def test_a_part_has_the_scores_that_it_has_in_the_whole(name, lightweight):
    network = build_network(*name, lightweight)
    for crop in CROPS:
        require_the_whole_answers_part(network, crop)


@pytest.mark.parametrize("name", OTHERS, ids="-".join)
def test_heads_that_see_everything_answer_for_a_part_too(name):
    require_the_whole_answers_part(build_network(*name), CROPS[1])


@pytest.mark.parametrize("name", LOCAL, ids="-".join)
def test_local_heads_compute_little_more_than_the_part(name):
    network = build_network(*name)
    cells = []
    for head in (network.semantic_head, network.change_head):
        head.classifier.register_forward_hook(
            lambda _, inputs, output: cells.append(output.shape[-2:].numel())
        )
    crop = CROPS[1]
    with torch.inference_mode():
        network.score_crop(*draw_images(), crop)
    stride_px = 4 if name[0] == "fpn" else network.output_stride
    height, width = (side_px // stride_px for side_px in crop.size)
    assert cells == [(height + 2) * (width + 2)] * 2


@pytest.mark.parametrize("side", [62, 48, 64, 32])
def test_scores_of_any_resolution_are_cropped_where_they_lie(side):
    """A ramp, whose value is its place: also where the resolution does not divide the image's."""
    ramp = torch.linspace(0.5 / side, 1 - 0.5 / side, side).expand(1, 1, side, side)
    crop = Crop(0, 64, 32, 64)
    parts = crop_scores(ChangeOutput(ramp, ramp, ramp[:, 0]), crop, (64, 64))
    for part in parts:
        mean = float(part.mean())
        assert mean == pytest.approx(0.75, abs=1e-3)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_turned_crop_shows_the_same_pixels(height, width, data):
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    crop = Crop(top, bottom, left, right)
    image_HW = torch.arange(height * width).reshape(height, width)
    for view in VIEW_SETS["d4"]:
        turned = turn_crop(crop, view, (height, width))
        whole_HW = apply_view(image_HW, view)
        assert torch.equal(turned.take(whole_HW, 1), apply_view(crop.take(image_HW, 1), view))
