"""Layers that several architectures are made of.

Legend of the tensor names: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch
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
        in_channels: Input channels.
        out_channels: Output channels.
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


def convolve_phases(x_BCHW: Tensor, weight_C1kk: Tensor, dilation: int) -> Tensor:
    """Convolve each channel with its own dilated filter, by convolutions without dilation.

    A filter whose taps are `dilation` apart sees only every `dilation`-th row and column, so it is
    an ordinary one on each of the dilation x dilation images that take those (à trous, Holschneider
    et al. 1990). On the CPU this is many times faster: oneDNN has fast kernels for depthwise
    convolutions, but for few of the dilated ones, and for none of their gradients.

    Args:
        x_BCHW: Features.
        weight_C1kk: A filter of odd size for each channel.
        dilation: Distance of its taps in cells.

    Returns:
        (B, C, H, W), padded by zeros like a convolution that keeps the size.
    """
    batch, channels, height, width = x_BCHW.shape
    kernel_size = weight_C1kk.shape[-1]
    rows, columns = -(-height // dilation), -(-width // dilation)
    x_BCHW = F.pad(x_BCHW, (0, columns * dilation - width, 0, rows * dilation - height))
    # In memory as (B, H, W, C), like the features of encoders.
    phases_BHWC = (
        x_BCHW.permute(0, 2, 3, 1)
        .reshape(batch, rows, dilation, columns, dilation, channels)
        .permute(2, 4, 0, 1, 3, 5)
        .reshape(dilation**2 * batch, rows, columns, channels)
    )
    # The gradient of the weights is slow again if a phase is smaller than its filter.
    short = [max(kernel_size - side, 0) for side in (columns, rows)]
    out_BCHW = F.conv2d(
        F.pad(phases_BHWC.permute(0, 3, 1, 2), (0, short[0], 0, short[1])),
        weight_C1kk,
        padding=kernel_size // 2,
        groups=channels,
    )[..., :rows, :columns]
    out_BHWC = (
        out_BCHW.permute(0, 2, 3, 1)
        .reshape(dilation, dilation, batch, rows, columns, channels)
        .permute(2, 3, 0, 4, 1, 5)
        .reshape(batch, rows * dilation, columns * dilation, channels)
    )
    out_BCHW = out_BHWC.permute(0, 3, 1, 2)[..., :height, :width]
    return out_BCHW.contiguous(memory_format=torch.channels_last)


def resize(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly to (height, width), pixel corners not aligned; no copy of the same size."""
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
