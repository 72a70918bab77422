"""U-Net decoder with concurrent spatial and channel attention on every scale.

Ronneberger et al., "U-Net" (1505.04597); Roy et al., "Concurrent spatial and channel squeeze and
excitation" (1803.02579). The layout is that of the reference implementation of the UAL paper (own
code).

Legend of the tensor names: B batch, C channels, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.heads import Head, initialise_head
from terradelta.models.layers import ConvNormReLU, resize
from terradelta.models.pooling import PoolWindow, pool_context


class UNetHead(Head):
    """Five steps from the deepest feature map back to the image's size.

    Args:
        channels: Channels of the encoder's five feature maps, finest first.
        num_classes: Channels of the answer.
        lightweight: Make 3x3 convolutions depthwise separable.
    """

    levels = (0, 1, 2, 3, 4)
    has_global_pooling = True

    def __init__(self, channels: tuple[int, ...], num_classes: int, *, lightweight: bool = False):
        super().__init__()
        fine = channels[1]
        skips = [*channels[-2::-1], 0]
        # Below the reference's smallest widths, 32 and 16 with ResNet-18, some classes are never
        # predicted.
        outs = [*channels[-2:0:-1], max(32, fine // 2), max(16, fine // 4)]
        ins = [channels[-1], *outs[:-1]]
        self.steps = nn.ModuleList(
            DecoderStep(deep, skip, out, lightweight=lightweight)
            for deep, skip, out in zip(ins, skips, outs, strict=True)
        )
        self.classifier = nn.Conv2d(outs[-1], num_classes, 3, padding=1)
        initialise_head(self)
        for part in self.modules():
            if isinstance(part, Attention):
                part.initialise()

    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, *size): of the image's own size."""
        *skips, x_BCHW = features
        for step, skip_BCHW in zip(self.steps, [*reversed(skips), None], strict=True):
            x_BCHW = step(x_BCHW, skip_BCHW, size, window)
        return self.classifier(x_BCHW)


class DecoderStep(nn.Module):
    """Upsample, concatenate the encoder's features, attend, two convolutions, attend."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, *, lightweight: bool = False
    ):
        super().__init__()
        joined = in_channels + skip_channels
        self.attention1 = Attention(joined) if skip_channels else None
        self.conv1 = ConvNormReLU(joined, out_channels, lightweight=lightweight)
        self.conv2 = ConvNormReLU(out_channels, out_channels, lightweight=lightweight)
        self.attention2 = Attention(out_channels)

    def forward(
        self,
        x_BCHW: Tensor,
        skip_BCHW: Tensor | None,
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return features of the skip's size, or of `size` without a skip."""
        if skip_BCHW is None:
            x_BCHW = resize(x_BCHW, size)
        else:
            height, width = skip_BCHW.shape[-2:]
            x_BCHW = torch.cat([resize(x_BCHW, (height, width)), skip_BCHW], dim=1)
        if self.attention1 is not None:
            x_BCHW = self.attention1(x_BCHW, window)
        return self.attention2(self.conv2(self.conv1(x_BCHW)), window)


class Attention(nn.Module):
    """Weighs channels by their local mean and pixels by their features, and adds the two."""

    reduction = 16

    def __init__(self, channels: int):
        super().__init__()
        reduced = max(1, channels // self.reduction)
        self.squeeze = nn.Conv2d(channels, reduced, 1)
        self.excite = nn.Conv2d(reduced, channels, 1)
        self.spatial = nn.Conv2d(channels, 1, 1)

    def initialise(self):
        """Start each squeezed channel as a weighted mean of the others.

        Narrow decoders squeeze into one or two channels; with weights of both signs, half of them
        would always be 0 after the ReLU, as the features are not negative.
        """
        nn.init.uniform_(self.squeeze.weight, 0, 2 / self.squeeze.in_channels)

    def forward(self, x_BCHW: Tensor, window: PoolWindow | None = None) -> Tensor:
        """Return features of the same shape."""
        channel_gate = pool_context(x_BCHW, self._weigh_channels, window)
        return x_BCHW * (channel_gate + self.spatial(x_BCHW).sigmoid())

    def _weigh_channels(self, mean_BCHW: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(mean_BCHW), inplace=True)).sigmoid()
