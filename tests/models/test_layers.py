from __future__ import annotations

import pytest
import torch
from torch import nn

from terradelta.models.layers import DepthwiseSeparable, convolve_phases, initialise, resize


def test_depthwise_separable_equals_grouped_then_pointwise():
    torch.manual_seed(0)
    layer = DepthwiseSeparable(4, 6, dilation=2).eval()
    x = torch.randn(1, 4, 9, 7)
    channels = [
        nn.functional.conv2d(
            x[:, i : i + 1], layer.depthwise.weight[i : i + 1], padding=2, dilation=2
        )
        for i in range(4)
    ]
    mixed = torch.einsum(
        "oi,bihw->bohw",
        layer.pointwise.weight[..., 0, 0],
        layer.norm(torch.cat(channels, 1)).relu(),
    )
    torch.testing.assert_close(layer(x), mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (9, 7), (1, 30)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(5, 4), (5, 2), (3, 4)])
def test_phases_are_a_dilated_convolution_and_so_are_their_gradients(kernel_size, dilation, size):
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel_size, kernel_size, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.conv2d(
        x, weight, padding=dilation * (kernel_size // 2), dilation=dilation, groups=6
    )
    actual = convolve_phases(x, weight, dilation)
    torch.testing.assert_close(actual, expected)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (x, weight), slope),
        torch.autograd.grad(expected, (x, weight), slope),
    )


def test_resize_puts_pixel_centres_right():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    resized = resize(ramp, (2, 8))[0, 0, 0]
    torch.testing.assert_close(resized, ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3))
    assert resize(ramp, (2, 4)) is ramp


def test_initialised_convolutions_keep_the_variance():
    torch.manual_seed(0)
    layers = nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, groups=groups), nn.ReLU())
            for groups in (1, 1, 4, 64, 1)
        )
    )
    initialise(layers)
    out = layers(torch.randn(1, 64, 64, 64))
    assert 0.3 < out.square().mean() < 3
