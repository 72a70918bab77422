from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from terradelta.errors import ArgumentError
from terradelta.models.pooling import PoolWindow, locate_boxes, pool_context
from terradelta.models.registry import create_model

POOLING = [
    ("unet", "efficientnet_lite0"),
    ("unet", "resnet18"),
    ("pspnet", "resnet18"),
    ("deeplabv3plus", "resnet18"),
]


@pytest.fixture
def answer():
    """A 1x1 convolution that does not commute with averaging."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 3, 1), nn.ReLU()).requires_grad_(False)


def cut_windows(x_BCHW, side, answer, bins):
    """Answer each position from the image that the window around it would be by itself."""
    height, width = x_BCHW.shape[-2:]
    out = torch.zeros(*answer(x_BCHW[..., :1, :1]).shape[:2], height, width)
    for row in range(height):
        for column in range(width):
            top = min(max(row - side // 2, 0), height - side)
            left = min(max(column - side // 2, 0), width - side)
            part = x_BCHW[..., top : top + side, left : left + side]
            context = F.interpolate(
                answer(F.adaptive_avg_pool2d(part, bins)),
                size=(side, side),
                mode="bilinear",
                align_corners=False,
            )
            out[..., row, column] = context[..., row - top, column - left]
    return out


@pytest.mark.parametrize("bins", [1, 2, 3])
def test_each_position_sees_the_window_around_it(answer, bins):
    x_BCHW = torch.randn(2, 5, 20, 14)
    window = PoolWindow(side_px=9 * 8, cell_px=8, height_px=20 * 8)
    torch.testing.assert_close(
        pool_context(x_BCHW, answer, window, bins=bins), cut_windows(x_BCHW, 9, answer, bins)
    )


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_even_windows_and_fine_features_come_close(answer, bins):
    # Smooth features; a cell averages up to four of their pixels, half of which hardly matters.
    rows = torch.linspace(-2, 2, 56)
    x_BCHW = torch.stack([(rows[:, None] * k + rows).sin() for k in range(5)])[None]
    window = PoolWindow(side_px=32 * 2, cell_px=8, height_px=56 * 2)
    actual = pool_context(x_BCHW, answer, window, bins=bins)
    expected = cut_windows(x_BCHW, 32, answer, bins)
    assert (actual - expected).abs().mean() < 0.1 * expected.std()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_weights_mix_boxes_that_lie_inside(reach, more, bins):
    cells, box = reach + more, -(-reach // bins)
    start_TN, weight_TN = locate_boxes(cells, reach, box, bins)
    torch.testing.assert_close(weight_TN.sum(dim=0), torch.ones(cells))
    assert weight_TN.min() >= 0
    assert start_TN.min() >= 0
    assert start_TN.max() <= cells - box


@pytest.mark.parametrize("stride_px", [1, 4, 8, 32])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_shift_by_a_cell_shifts_the_context(answer, stride_px, bins):
    cell_px, side_px = 32, 160
    rows = (12 * cell_px + side_px) // stride_px
    x_BCHW = torch.randn(1, 5, rows, 64 // stride_px + 1)
    cut = cell_px // stride_px
    whole, part = (
        pool_context(x, answer, PoolWindow(side_px, cell_px, x.shape[-2] * stride_px), bins=bins)
        for x in (x_BCHW[..., : 64 // stride_px], x_BCHW[..., cut:, : 64 // stride_px])
    )
    # Half a window away from the cut, and the cell that bilinear upsampling reads besides.
    far = (side_px // 2 + cell_px) // stride_px
    torch.testing.assert_close(part[..., far:, :], whole[..., cut + far :, :], rtol=0, atol=1e-6)
    assert not torch.allclose(part[..., :cut, :], whole[..., cut : 2 * cut, :], atol=1e-4)


def test_bfloat16_features_have_means_of_float32():
    torch.manual_seed(0)
    x_BCHW = 1 + 0.01 * torch.randn(1, 4, 256, 256)
    window = PoolWindow(side_px=128, cell_px=8, height_px=256)
    means = []

    def remember(mean_BCHW):
        means.append(mean_BCHW)
        return mean_BCHW

    assert pool_context(x_BCHW.bfloat16(), remember, window).dtype == torch.bfloat16
    pool_context(x_BCHW.bfloat16().float(), remember, window)
    # One step of bfloat16 at 1 is 0.008.
    torch.testing.assert_close(*means, rtol=0, atol=0.001)


@pytest.mark.parametrize(("name", "encoder"), POOLING)
@torch.inference_mode()
def test_an_image_within_the_window_is_answered_as_before(name, encoder):
    torch.manual_seed(0)
    network = create_model(name, encoder).eval()
    images = torch.randn(2, 1, 3, 121, 90)
    expected = network(*images)
    network.pool_window_px = 128
    for actual, before in zip(network(*images), expected, strict=True):
        assert torch.equal(actual, before)
    network.pool_window_px = 64
    assert not torch.allclose(network(*images).change_logits, expected.change_logits, atol=1e-4)


@pytest.mark.parametrize(("name", "encoder"), POOLING)
@torch.inference_mode()
def test_bfloat16_costs_no_more_than_without_a_window(name, encoder):
    torch.manual_seed(0)
    network = create_model(name, encoder).eval()
    images = [
        image.contiguous(memory_format=torch.channels_last)
        for image in torch.randn(2, 1, 3, 99, 75)
    ]
    errors = []
    for pool_window_px in (None, 50):
        network.pool_window_px = pool_window_px
        full = network(*images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(*images)
        assert half.before_logits.shape == (1, 6, 99, 75)
        errors.append(
            torch.stack(
                [(h.float() - f).abs().mean() / f.std() for h, f in zip(half, full, strict=True)]
            )
        )
    assert (errors[1] < 2 * errors[0] + 0.01).all()


def test_training_pools_the_whole_image():
    torch.manual_seed(0)
    network = create_model("unet", "resnet18")
    images = torch.randn(2, 2, 3, 64, 64)
    expected = network(*images).change_logits
    network.pool_window_px = 32
    assert torch.equal(network(*images).change_logits, expected)


def test_windows_of_no_pixel_are_refused():
    with torch.device("meta"):
        network = create_model("unet", "efficientnet_lite0")
    with pytest.raises(ArgumentError, match="pool_window_px is 0"):
        network.pool_window_px = 0
