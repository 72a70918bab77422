"""The interface of encoders, for heads and for loading weights.

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

TILING_TOLERANCE = 0.0005
"""Share of a map's labels (classes of either date, change) that may differ from those of the whole
image, in tiles of 1,024 px cut at their margin. `context_px` was chosen
to keep this for untrained networks (EfficientNets from ImageNet weights) with the batch statistics
of drawn scenes, whose labels are less certain than a trained network's: benchmarks/tiling.py."""


class Encoder(nn.Module, ABC):
    """Turns images into feature maps, finest first."""

    channels: tuple[int, ...]
    """Channels of each feature map."""
    strides: tuple[int, ...]
    """Input pixels per pixel of each feature map; (2, 4, 8, 16, 32) without dilation."""
    alignment_px: int
    """Shifting the image by a multiple of this shifts the features and changes nothing else."""
    context_px: int
    """Distance from a cut edge within which a head of 3x3 convolutions is affected; a measured
    constant, as the theoretical field is wider and its outer part has little effect."""
    stem_key: str
    """Key of the only weight whose shape depends on the number of bands."""
    classifier_keys: tuple[str, ...] = ()
    """Prefixes of keys that published classification weights have and an encoder lacks."""

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps, of `H / stride` by `W / stride` pixels each.

        Args:
            image_BCHW: Images whose height and width are multiples of `alignment_px`.
        """

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return published weights under this encoder's keys, without those of a classifier."""
        return {k: v for k, v in state.items() if not k.startswith(self.classifier_keys)}
