"""Feature pyramid: one map of stride 4 from all of an encoder's, for sharp outlines.

Lin et al., "Feature pyramid networks for object detection" (1612.03144), with the levels added
from the coarsest down and one map kept, as Kirillov et al., "Panoptic feature pyramid networks"
(1901.02446), use it for segmentation. Own code.

Legend of the tensor names: B batch, C channels, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from terradelta.models.crop import Crop
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
        self.strides = encoder.strides
        self.levels = tuple(i for i, s in enumerate(encoder.strides) if s >= FINEST_STRIDE)
        # Measured like `Encoder.context_px`, whose allowance for a head is enough up to stride 16.
        self.reach = 4 if encoder.strides[-1] > 16 else 0
        self.laterals = nn.ModuleList(
            ConvNormReLU(encoder.channels[level], channels, kernel_size=1) for level in self.levels
        )
        self.smooth = nn.ModuleList(ConvNormReLU(channels, channels) for _ in self.levels)
        self.stride = encoder.strides[self.levels[0]]
        initialise(self)

    def forward(self, features: Sequence[Tensor], crop: Crop | None = None) -> Tensor:
        """Return the map (B, channels, h, w) of a part of the image, at stride 4.

        Args:
            features: The encoder's maps of the whole image.
            crop: The part, whose sides are multiples of 4 px; by default the whole image.
        """
        if crop is not None:
            return self._add_crops(features, crop)
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

    def _add_crops(self, features: Sequence[Tensor], crop: Crop) -> Tensor:
        # Not with a crop of the whole in place of `forward`, which is exported for any size.
        finest = features[self.levels[0]]
        size = finest.shape[-2] * self.stride, finest.shape[-1] * self.stride
        # From the finest level up: the part that the one below depends on, and a cell around it
        # for the smoothing.
        areas: list[Crop] = []
        for level in self.levels:
            stride = self.strides[level]
            needed = areas[-1].widen(stride // 2, stride, size) if areas else crop
            areas.append(needed.widen(stride, stride, size))
        sum_BCHW, above = None, crop
        steps = zip(self.levels, areas, self.laterals, self.smooth, strict=True)
        for level, area, lateral, smooth in reversed(list(steps)):
            stride = self.strides[level]
            x_BCHW = lateral(area.take(features[level], stride))
            if sum_BCHW is not None:
                height, width = (side_px // stride for side_px in above.size)
                x_BCHW = x_BCHW + area.within(above).take(resize(sum_BCHW, (height, width)), stride)
            sum_BCHW, above = smooth(x_BCHW), area
        assert sum_BCHW is not None
        return crop.within(above).take(sum_BCHW, self.stride)


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
        self.local_reach = 1
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
