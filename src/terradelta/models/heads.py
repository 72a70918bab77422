"""Heads: they compute logits from feature maps.

A head names the encoder's feature maps it reads (`levels`) and is called with those, finest first.
It answers at its own resolution; the network resizes. The change head gets the absolute
difference of the two dates' features.
Layouts are those of the reference implementation of the UAL paper (own code).

Legend of the tensor names: B batch, C channels, K classes, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from terradelta.models.layers import ConvNormReLU, initialise, resize
from terradelta.models.pooling import PoolWindow, pool_context


class Head(nn.Module, ABC):
    """The interface of heads."""

    levels: tuple[int, ...]
    """Indices of the encoder's feature maps that the head reads."""
    has_global_pooling: bool
    """Whether an answer depends on the whole image and not only on the surroundings."""
    reach: int = 0
    """Pixels of the deepest features that the head sees around a position."""
    local_reach: int | None = None
    """Cells around a position that its answer there depends on, exactly, of a head that answers
    at the resolution of the deepest features and reads no others; None for other heads."""
    classifier: nn.Conv2d
    """The last convolution."""

    @abstractmethod
    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, h, w), of a size that divides the image's.

        Args:
            features: The encoder's feature maps of `levels`.
            size: Height and width of the image, for a head that answers every pixel.
            window: Window of the means of a head that pools; None means the whole image.
        """


class FCNHead(Head):
    """3x3 convolution to a quarter of the channels, then a classifier (Long et al., 1411.4038)."""

    levels = (-1,)
    has_global_pooling = False
    local_reach = 1

    def __init__(self, in_channels: int, num_classes: int, *, lightweight: bool = False):
        super().__init__()
        self.reduce = ConvNormReLU(in_channels, in_channels // 4, lightweight=lightweight)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(in_channels // 4, num_classes, 1)
        initialise_head(self)

    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, h, w) of the features' size."""
        return self.classifier(self.dropout(self.reduce(features[-1])))


class PyramidPoolingHead(Head):
    """Averages over 1, 2, 3 and 6 parts per side beside the features (PSPNet, 1612.01105)."""

    levels = (-1,)
    has_global_pooling = True
    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int, num_classes: int, *, lightweight: bool = False):
        super().__init__()
        pooled = in_channels // 4
        self.pools = nn.ModuleList(
            ConvNormReLU(in_channels, pooled, kernel_size=1) for _ in self.bins
        )
        self.reduce = ConvNormReLU(
            in_channels + len(self.bins) * pooled, pooled, lightweight=lightweight
        )
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(pooled, num_classes, 1)
        initialise_head(self)

    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, h, w) of the features' size."""
        x_BCHW = features[-1]
        pooled = [
            _resize_to(pool_context(x_BCHW, conv, window, bins=bins), x_BCHW)
            for bins, conv in zip(self.bins, self.pools, strict=True)
        ]
        x_BCHW = self.reduce(torch.cat([x_BCHW, *pooled], dim=1))
        return self.classifier(self.dropout(x_BCHW))


class AtrousPyramid(nn.Module):
    """1x1, three dilated 3x3 convolutions and the image's mean side by side (1802.02611)."""

    rates = (12, 24, 36)

    def __init__(self, in_channels: int, *, lightweight: bool = False):
        super().__init__()
        out_channels = in_channels // 8
        self.branches = nn.ModuleList(
            [
                ConvNormReLU(in_channels, out_channels, kernel_size=1),
                *(
                    ConvNormReLU(in_channels, out_channels, dilation=rate, lightweight=lightweight)
                    for rate in self.rates
                ),
            ]
        )
        self.pool = ConvNormReLU(in_channels, out_channels, kernel_size=1)
        self.project = ConvNormReLU(
            (len(self.branches) + 1) * out_channels, out_channels, kernel_size=1
        )
        self.dropout = nn.Dropout2d(0.5)

    def forward(self, x_BCHW: Tensor, window: PoolWindow | None = None) -> Tensor:
        """Return features (B, in_channels // 8, H, W)."""
        parts = [branch(x_BCHW) for branch in self.branches]
        parts.append(_resize_to(pool_context(x_BCHW, self.pool, window), x_BCHW))
        return self.dropout(self.project(torch.cat(parts, dim=1)))


class DeepLabHead(Head):
    """Atrous pyramid, fused with 48 channels of the stride-4 features (DeepLabV3+, 1802.02611).

    Args:
        channels: Channels of the stride-4 features and of the deepest ones.
        num_classes: Channels of the answer.
        skip_level: Index of the encoder's stride-4 feature map.
        lightweight: Make 3x3 convolutions depthwise separable.
    """

    has_global_pooling = True
    reach = 32  # of the 36 that its outermost taps are away; measured like `Encoder.context_px`
    skip_channels = 48
    fused_channels = 256

    def __init__(
        self,
        channels: tuple[int, int],
        num_classes: int,
        *,
        skip_level: int,
        lightweight: bool = False,
    ):
        super().__init__()
        fine, deep = channels
        self.levels = (skip_level, -1)
        self.pyramid = AtrousPyramid(deep, lightweight=lightweight)
        self.skip = ConvNormReLU(fine, self.skip_channels, kernel_size=1)
        self.fuse = nn.Sequential(
            ConvNormReLU(
                deep // 8 + self.skip_channels, self.fused_channels, lightweight=lightweight
            ),
            ConvNormReLU(self.fused_channels, self.fused_channels, lightweight=lightweight),
        )
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(self.fused_channels, num_classes, 1)
        initialise_head(self)

    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, h, w) of the features' size."""
        fine_BCHW, deep_BCHW = features
        deep_BCHW = _resize_to(self.pyramid(deep_BCHW, window), fine_BCHW)
        fused_BCHW = self.fuse(torch.cat([deep_BCHW, self.skip(fine_BCHW)], dim=1))
        return self.classifier(self.dropout(fused_BCHW))


def initialise_head(head: Head):
    """Initialise a head, its classifier with weights of both signs and of unit gain.

    A near-zero classifier is pushed to one sign by the many unchanged pixels before the features
    are useful; they then learn to be zero where something changed, where only the bias remains.
    """
    initialise(head)
    nn.init.kaiming_normal_(head.classifier.weight, nonlinearity="linear")


def _resize_to(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    height, width = like_BCHW.shape[-2:]
    return resize(x_BCHW, (height, width))
