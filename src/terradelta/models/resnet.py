"""ResNet and ResNeXt, dilated to an output stride of 8.

He et al., "Deep residual learning for image recognition" (1512.03385); Xie et al., "Aggregated
residual transformations" (1611.05431). Own code; key names are torchvision's (BSD-3-Clause), so its
weights load. Stages 3 and 4 trade their stride for dilation, as the reference implementation of the
UAL paper does: the first block of a stage keeps the dilation of the stage before it, and a basic
block dilates its first convolution only.

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.layers import initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _build_shortcut(in_channels, width, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's features."""
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        out_BCHW = self.bn2(self.conv2(out_BCHW))
        shortcut_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return F.relu(out_BCHW + shortcut_BCHW, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in a ResNeXt) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        group_width: int = 64,
    ):
        super().__init__()
        inner = width * group_width // 64 * groups
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(
            inner,
            inner,
            3,
            stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _build_shortcut(in_channels, out_channels, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's features."""
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        out_BCHW = F.relu(self.bn2(self.conv2(out_BCHW)), inplace=True)
        out_BCHW = self.bn3(self.conv3(out_BCHW))
        shortcut_BCHW = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return F.relu(out_BCHW + shortcut_BCHW, inplace=True)


class Variant(NamedTuple):
    """The values that distinguish the networks of the family."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    """Blocks of each stage."""
    context_px: int
    """See `Encoder`."""
    block_options: dict[str, int] = {}  # noqa: RUF012 - never modified
    """Groups and group width of a ResNeXt."""
    width: int = 64
    """Channels of the stem; each stage after the first has twice those of the previous one."""


VARIANTS: dict[str, Variant] = {
    "resnet18_slim": Variant(BasicBlock, (2, 2, 2, 2), 128, width=16),
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2), 128),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3), 208),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3), 192),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3), 256),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3), 288),
    "resnext50_32x4d": Variant(Bottleneck, (3, 4, 6, 3), 192, {"groups": 32, "group_width": 4}),
    "resnext101_32x8d": Variant(Bottleneck, (3, 4, 23, 3), 256, {"groups": 32, "group_width": 8}),
}


class ResNet(Encoder):
    """A ResNet or ResNeXt without its classifier.

    Args:
        name: A key of `VARIANTS`.
        in_channels: Bands of the image.
    """

    strides = (2, 4, 8, 8, 8)
    alignment_px = 8
    stem_key = "conv1.weight"
    classifier_keys = ("fc.",)

    def __init__(self, name: str, in_channels: int = 3):
        super().__init__()
        variant = VARIANTS[name]
        self.context_px = variant.context_px
        stem = variant.width
        widths = [stem * 2**stage for stage in range(4)]
        self.channels = (stem, *(width * variant.block.expansion for width in widths))
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _build_stage(variant, 0, stem, widths[0])
        self.layer2 = _build_stage(variant, 1, self.channels[1], widths[1], stride=2)
        self.layer3 = _build_stage(variant, 2, self.channels[2], widths[2], dilations=(1, 2))
        self.layer4 = _build_stage(variant, 3, self.channels[3], widths[3], dilations=(2, 4))
        initialise(self)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps after the stem and after each of the four stages."""
        stem = F.relu(self.bn1(self.conv1(image_BCHW)), inplace=True)
        stage1 = self.layer1(F.max_pool2d(stem, 3, stride=2, padding=1))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        return [stem, stage1, stage2, stage3, self.layer4(stage3)]


def _build_stage(
    variant: Variant,
    index: int,
    in_channels: int,
    width: int,
    *,
    stride: int = 1,
    dilations: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    """Chain a stage's blocks; `dilations` are those of its first block and of the others."""
    block, options = variant.block, variant.block_options
    blocks = [block(in_channels, width, stride=stride, dilation=dilations[0], **options)]
    for _ in range(1, variant.depths[index]):
        blocks.append(block(width * block.expansion, width, dilation=dilations[1], **options))
    return nn.Sequential(*blocks)


def _build_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
