"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6.

Tan and Le, "EfficientNet" (1905.11946), and the Lite variants of its authors' repository
(Apache-2.0). Own code; key names are those of timm's `tf_efficientnet_lite*`. The ImageNet weights
need images scaled to [-1, 1] (mean = std = 0.5).

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.layers import convolve_phases, initialise


class Stage(NamedTuple):
    """A run of blocks of one shape, before the variant's scaling."""

    kernel_size: int
    stride: int
    expansion: int
    channels: int
    depth: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)

VARIANTS: dict[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""Factors of width and depth."""

_DILATED_CONTEXT_PX = {
    "efficientnet_lite0": 320,
    "efficientnet_lite1": 320,
    "efficientnet_lite2": 352,
}
_CONTEXT_PX = 128
_NORM_EPSILON = 1e-3
_STEM_CHANNELS = 32
_FEATURE_STAGES = (0, 1, 2, 4, 6)
"""The last stage of each resolution."""


class EfficientNetLite(Encoder):
    """An EfficientNet-Lite without its last 1x1 convolution and its classifier.

    Args:
        name: A key of `VARIANTS`.
        in_channels: Bands of the image.
        dilated: Trade the strides beyond 8 for dilation, as dense heads need it; otherwise the
            strides are 2, 4, 8, 16 and 32.
    """

    stem_key = "conv_stem.weight"
    classifier_keys = ("conv_head.", "bn2.", "classifier.")

    def __init__(self, name: str, in_channels: int = 3, *, dilated: bool = True):
        super().__init__()
        stages = scale_stages(name)
        self.channels = tuple(stages[index].channels for index in _FEATURE_STAGES)
        self.strides = (2, 4, 8, 8, 8) if dilated else (2, 4, 8, 16, 32)
        self.alignment_px = self.strides[-1]
        self.context_px = _DILATED_CONTEXT_PX[name] if dilated else _CONTEXT_PX
        self._places = [
            (index, block) for index, stage in enumerate(stages) for block in range(stage.depth)
        ]
        self.conv_stem = SamePaddingConv2d(in_channels, _STEM_CHANNELS, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_NORM_EPSILON)
        self.blocks = nn.Sequential(*_build_stages(stages, max_stride=self.strides[-1]))
        initialise(self)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps after the last stage of each resolution."""
        x_BCHW = F.relu6(self.bn1(self.conv_stem(image_BCHW)), inplace=True)
        features = []
        for index, stage in enumerate(self.blocks):
            x_BCHW = stage(x_BCHW)
            if index in _FEATURE_STAGES:
                features.append(x_BCHW)
        return features

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Accept timm's keys and those of the pip packages (`_blocks.7._depthwise_conv.weight`)."""
        renamed = {_rename_key(key, self._places): value for key, value in state.items()}
        return super().adapt_published(renamed)


class SamePaddingConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same" does.

    Where it strides over an even size, that is one pixel less before than after.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=dilation * (kernel_size // 2) if stride == 1 else 0,
            dilation=dilation,
            groups=groups,
            bias=False,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride)."""
        if self._is_faster_in_phases(input):
            return convolve_phases(input, self.weight, self.dilation[0])
        if self.stride[0] == 1:
            return super().forward(input)
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        return super().forward(F.pad(input, (before, after, before, after)))

    def _is_faster_in_phases(self, input: Tensor) -> bool:
        # An exported graph only states the operation; its runtime chooses the kernel.
        is_exported = torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
        if is_exported or input.device.type != "cpu":
            return False
        # Without gradients oneDNN is as fast up to a dilation of 2.
        least_dilation = 2 if torch.is_grad_enabled() else 3
        return self.groups == self.in_channels and self.dilation[0] >= least_dilation


class DepthwiseSeparableBlock(nn.Module):
    """The first block: depthwise and 1x1 convolution, nothing to expand."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv_dw = SamePaddingConv2d(in_channels, in_channels, kernel_size, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels, eps=_NORM_EPSILON)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=_NORM_EPSILON)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's features, not rectified."""
        x_BCHW = F.relu6(self.bn1(self.conv_dw(x_BCHW)), inplace=True)
        return self.bn2(self.conv_pw(x_BCHW))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where shapes allow."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        expansion: int,
        stride: int = 1,
        dilation: int = 1,
    ):
        super().__init__()
        inner = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv_pw = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=_NORM_EPSILON)
        self.conv_dw = SamePaddingConv2d(
            inner, inner, kernel_size, stride=stride, dilation=dilation, groups=inner
        )
        self.bn2 = nn.BatchNorm2d(inner, eps=_NORM_EPSILON)
        self.conv_pwl = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=_NORM_EPSILON)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's features, not rectified."""
        out_BCHW = F.relu6(self.bn1(self.conv_pw(x_BCHW)), inplace=True)
        out_BCHW = F.relu6(self.bn2(self.conv_dw(out_BCHW)), inplace=True)
        out_BCHW = self.bn3(self.conv_pwl(out_BCHW))
        return out_BCHW + x_BCHW if self.has_shortcut else out_BCHW


def scale_stages(name: str) -> tuple[Stage, ...]:
    """Return the stages of a variant; Lite leaves the depth of the first and the last as it is."""
    width_factor, depth_factor = VARIANTS[name]
    inner = range(1, len(STAGES) - 1)
    return tuple(
        stage._replace(
            channels=_round_channels(stage.channels * width_factor),
            depth=math.ceil(stage.depth * depth_factor) if index in inner else stage.depth,
        )
        for index, stage in enumerate(STAGES)
    )


_OUTER_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK_NAMES = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_BLOCK_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _rename_key(key: str, places: list[tuple[int, int]]) -> str:
    """Turn a pip package's key into timm's; `places` are (stage, block) of each block in order."""
    if not key.startswith("_"):
        return key
    if not key.startswith("_blocks."):
        layer, rest = key.split(".", 1)
        return f"{_OUTER_NAMES.get(layer, layer)}.{rest}"
    _, number, layer, rest = key.split(".", 3)
    if int(number) >= len(places):
        return key
    stage, block = places[int(number)]
    layer = (_FIRST_BLOCK_NAMES if stage == 0 else _BLOCK_NAMES).get(layer, layer)
    return f"blocks.{stage}.{block}.{layer}.{rest}"


def _build_stages(stages: tuple[Stage, ...], *, max_stride: int) -> list[nn.Sequential]:
    built = []
    in_channels, total_stride, dilation = _STEM_CHANNELS, 2, 1
    for stage in stages:
        stride = stage.stride if total_stride * stage.stride <= max_stride else 1
        total_stride *= stride
        blocks: list[nn.Module] = []
        for index in range(stage.depth):
            if stage.expansion == 1:
                blocks.append(
                    DepthwiseSeparableBlock(in_channels, stage.channels, stage.kernel_size)
                )
            else:
                blocks.append(
                    InvertedResidual(
                        in_channels,
                        stage.channels,
                        stage.kernel_size,
                        expansion=stage.expansion,
                        stride=stride if index == 0 else 1,
                        dilation=dilation,
                    )
                )
            if index == 0:
                # Each stride removed is replaced by dilation in every later convolution.
                dilation *= stage.stride // stride
            in_channels = stage.channels
        built.append(nn.Sequential(*blocks))
    return built


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
