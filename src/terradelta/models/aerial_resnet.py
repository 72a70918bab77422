"""ResNet-18 with a 3x3 stem and no pooling, trained on aerial images of 0.1 to 0.3 m.

He et al., "Deep residual learning for image recognition" (1512.03385); own code. The weights are
those of the package geoembed (MIT), self-supervised on tiles of 128 px at a stem of stride 1. Here
the stem has stride 2, so the stages have strides 2, 4, 8 and 16.

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.layers import initialise
from terradelta.models.resnet import BasicBlock

VARIANTS: dict[str, int] = {"aerial_resnet18": 512, "aerial_resnet18_slim": 256}
"""Channels of the last stage: three quarters of the weights. The slim one starts untrained."""
_PUBLISHED_LAST_CHANNELS = 512


class AerialResNet(Encoder):
    """ResNet-18 for aerial images, without its classifier.

    Args:
        name: A key of `VARIANTS`.
        in_channels: Bands of the image.
    """

    strides = (2, 4, 8, 16)
    alignment_px = 16
    context_px = 112
    stem_key = "conv1.weight"
    classifier_keys = ("fc.",)

    def __init__(self, name: str, in_channels: int = 3):
        super().__init__()
        self.channels = (64, 128, 256, VARIANTS[name])
        self.conv1 = nn.Conv2d(in_channels, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        incoming = 64
        for number, width in enumerate(self.channels, start=1):
            first = BasicBlock(incoming, width, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, BasicBlock(width, width)))
            incoming = width
        initialise(self)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps after each of the four stages."""
        x_BCHW = F.relu(self.bn1(self.conv1(image_BCHW)), inplace=True)
        features = []
        for number in range(1, len(self.strides) + 1):
            x_BCHW = self.get_submodule(f"layer{number}")(x_BCHW)
            features.append(x_BCHW)
        return features

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Accept geoembed's keys; a slim last stage keeps the weights that it has."""
        renamed = {
            key.removeprefix("bb.")
            .replace("stem.0.", "conv1.")
            .replace("stem.1.", "bn1.")
            .replace(".short.", ".downsample."): value
            for key, value in state.items()
            if key.startswith("bb.")
        }
        if self.channels[-1] != _PUBLISHED_LAST_CHANNELS:
            own = self.state_dict()
            renamed |= {key: own[key] for key in own if key.startswith("layer4.")}
        return super().adapt_published(renamed or state)
