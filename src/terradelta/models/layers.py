"""Layers that several architectures are made of.

Legend of the tensor names: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseSeparable(nn.Module):
    """A 3x3 convolution split into one filter per channel and a 1x1 mix (MobileNet, 1704.04861)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, out_channels, H, W)."""
        return self.pointwise(F.relu(self.norm(self.depthwise(x_BCHW)), inplace=True))


class ConvNormReLU(nn.Module):
    """Convolution, batch normalisation, ReLU.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: 1 or 3.
        dilation: Dilation of a 3x3 kernel.
        lightweight: Make a 3x3 convolution depthwise separable.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        dilation: int = 1,
        lightweight: bool = False,
    ):
        super().__init__()
        if lightweight and kernel_size == 3:
            self.conv = DepthwiseSeparable(in_channels, out_channels, dilation)
        else:
            self.conv = nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=dilation * (kernel_size // 2),
                dilation=dilation,
                bias=False,
            )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, out_channels, H, W)."""
        return F.relu(self.norm(self.conv(x_BCHW)), inplace=True)


def resize(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly to (height, width), pixel corners not aligned; no copy where it fits."""
    if x_BCHW.shape[-2:] == size:
        return x_BCHW
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False)


def initialise(module: nn.Module):
    """Start convolutions by He et al. (1502.01852, fan-in) and normalisations at 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
