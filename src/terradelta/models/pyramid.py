"""Feature pyramid: one map of stride 4 from all of an encoder's, for sharp outlines.

Lin et al., "Feature pyramid networks for object detection" (1612.03144), with the levels added
from the coarsest down and one map kept, as Kirillov et al., "Panoptic feature pyramid networks"
(1901.02446), use it for segmentation. Own code.

Legend of the tensor names: B batch, C channels, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.heads import Head, initialise_head
from terradelta.models.layers import ConvNormReLU, initialise, resize
from terradelta.models.pooling import PoolWindow

FINEST_STRIDE = 4


class FeaturePyramid(nn.Module):
    """Adds an encoder's feature maps up at stride 4; both heads read the sum.

    Args:
        encoder: Its maps of stride 4 and more are read.
        channels: Channels of the sum.
    """

    def __init__(self, encoder: Encoder, channels: int):
        super().__init__()
        self.levels = tuple(i for i, s in enumerate(encoder.strides) if s >= FINEST_STRIDE)
        # Measured like `Encoder.context_px`, whose allowance for a head is enough up to stride 16.
        self.reach = 4 if encoder.strides[-1] > 16 else 0
        self.laterals = nn.ModuleList(
            ConvNormReLU(encoder.channels[level], channels, kernel_size=1) for level in self.levels
        )
        self.smooth = nn.ModuleList(ConvNormReLU(channels, channels) for _ in self.levels)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map (B, channels, H / 4, W / 4)."""
        sum_BCHW = None
        steps = zip(self.levels, self.laterals, self.smooth, strict=True)
        for level, lateral, smooth in reversed(list(steps)):
            x_BCHW = lateral(features[level])
            if sum_BCHW is not None:
                height, width = x_BCHW.shape[-2:]
                x_BCHW = x_BCHW + resize(sum_BCHW, (height, width))
            sum_BCHW = smooth(x_BCHW)
        assert sum_BCHW is not None
        return sum_BCHW


class PyramidHead(Head):
    """3x3 convolution, then a classifier, on the map of a `FeaturePyramid`.

    Args:
        in_channels: Channels of the pyramid's map.
        num_classes: Channels of the answer.
        reach: The pyramid's, as heads and pyramid see one map.
        lightweight: Make the 3x3 convolution depthwise separable.
    """

    levels = (-1,)
    has_global_pooling = False

    def __init__(
        self, in_channels: int, num_classes: int, *, reach: int = 0, lightweight: bool = False
    ):
        super().__init__()
        self.reach = reach
        self.refine = ConvNormReLU(in_channels, in_channels, lightweight=lightweight)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(in_channels, num_classes, 1)
        initialise_head(self)

    def forward(
        self,
        features: Sequence[Tensor],
        size: tuple[int, int],
        window: PoolWindow | None = None,
    ) -> Tensor:
        """Return logits (B, K, h, w) of the features' size."""
        return self.classifier(self.dropout(self.refine(features[-1])))
