"""HRNet: branches of four resolutions that run side by side and exchange features.

Wang et al., "Deep high-resolution representation learning" (1908.07919). Own code; key names are
those of the official implementation (MIT), so its ImageNet weights load. Coarser branches join
finer ones bilinearly with aligned corners, as in the authors' segmentation network.

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.layers import initialise
from terradelta.models.resnet import BasicBlock, Bottleneck

WIDTHS: dict[str, int] = {f"hrnet_w{width}": width for width in (18, 30, 32, 40, 44, 48, 64)}
"""Channels of the finest branch; each coarser one doubles them."""

_BLOCKS_PER_BRANCH = 4
_STAGE_MODULES = {"stage2": 1, "stage3": 4, "stage4": 3}


class HRNet(Encoder):
    """An HRNet without its classifier.

    Args:
        name: A key of `WIDTHS`.
        in_channels: Bands of the image.
        joined: End with the four branches joined at stride 4, as dense heads need it; otherwise end
            with the branches themselves, at strides 4, 8, 16 and 32.
    """

    alignment_px = 32
    # Not within the tolerance: aligned corners stretch a branch by the size of the tile, so that
    # about as many labels differ beyond any margin.
    context_px = 256
    stem_key = "conv1.weight"
    classifier_keys = (
        "incre_modules.",
        "downsamp_modules.",
        "final_layer.",
        "classifier.",
        "last_layer.",
    )

    def __init__(self, name: str, in_channels: int = 3, *, joined: bool = True):
        super().__init__()
        width = WIDTHS[name]
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.joined = joined
        self.channels = (64, 256, sum(widths)) if joined else (64, *widths)
        self.strides = (2, 4, 4) if joined else (2, 4, 8, 16, 32)
        self.conv1 = nn.Conv2d(in_channels, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(3)))
        self.transition1 = _build_transition([256], widths[:2])
        self.stage2 = _build_stage("stage2", widths[:2])
        self.transition2 = _build_transition(widths[:2], widths[:3])
        self.stage3 = _build_stage("stage3", widths[:3])
        self.transition3 = _build_transition(widths[:3], widths)
        self.stage4 = _build_stage("stage4", widths)
        initialise(self)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return (stem, first stage, joined branches), or the stem and the four branches."""
        stem = F.relu(self.bn1(self.conv1(image_BCHW)), inplace=True)
        stage1 = self.layer1(F.relu(self.bn2(self.conv2(stem)), inplace=True))
        branches = [stage1]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            branches = stage(_grow(transition, branches))
        if not self.joined:
            return [stem, *branches]
        finest, *coarser = branches
        joined = torch.cat([finest, *(_upsample(branch, finest) for branch in coarser)], dim=1)
        return [stem, stage1, joined]


class ExchangeModule(nn.Module):
    """Basic blocks on every branch, then each branch becomes the sum of all, resampled to it."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(_BLOCKS_PER_BRANCH)))
            for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_build_exchange(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Return as many branches of the same shapes."""
        branches = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        return [
            F.relu(self._fuse(layers, branches, target), inplace=True)
            for target, layers in enumerate(self.fuse_layers)
        ]

    @staticmethod
    def _fuse(layers, branches: list[Tensor], target: int) -> Tensor:
        parts = [layer(branch) for layer, branch in zip(layers, branches, strict=True)]
        # The sum starts as a new tensor: an identity among the parts must not be written to.
        total = _upsample(parts[0], branches[target]) + _upsample(parts[1], branches[target])
        for part in parts[2:]:
            total = total + _upsample(part, branches[target])
        return total


def _upsample(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    if x_BCHW.shape[-2:] == like_BCHW.shape[-2:]:
        return x_BCHW
    return F.interpolate(x_BCHW, size=like_BCHW.shape[-2:], mode="bilinear", align_corners=True)


def _grow(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    """Return one branch per transition layer; a new branch starts from the coarsest one."""
    sources = branches + [branches[-1]] * (len(transition) - len(branches))
    return [layer(source) for layer, source in zip(transition, sources, strict=True)]


def _build_stage(name: str, widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(ExchangeModule(widths) for _ in range(_STAGE_MODULES[name])))


def _build_transition(old: Sequence[int], new: Sequence[int]) -> nn.ModuleList:
    layers: list[nn.Module] = []
    for index, width in enumerate(new):
        if index >= len(old):
            layers.append(nn.Sequential(_build_conv(old[-1], width, stride=2, relu=True)))
        elif old[index] != width:
            layers.append(_build_conv(old[index], width, relu=True))
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


def _build_exchange(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return _build_conv(widths[source], widths[target], kernel_size=1)
    steps: list[nn.Module] = []
    for step in range(source + 1, target + 1):
        is_last = step == target
        out_channels = widths[target] if is_last else widths[source]
        steps.append(_build_conv(widths[source], out_channels, stride=2, relu=not is_last))
    return nn.Sequential(*steps)


def _build_conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    relu: bool = False,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
