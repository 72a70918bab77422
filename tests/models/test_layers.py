from __future__ import annotations

import torch
from torch import nn

from terradelta.models.layers import DepthwiseSeparable, initialise, resize


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
