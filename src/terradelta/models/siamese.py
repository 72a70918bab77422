"""The network: one encoder for both dates, one semantic head, one change head.

The layout is that of the UAL paper's reference implementation (own code).

Legend of the tensor names: B pairs, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.models.encoder import Encoder
from terradelta.models.heads import Head


class ChangeOutput(NamedTuple):
    """What a network answers for a batch of pairs."""

    before_logits: Tensor
    """(B, K, H, W): land cover before; channel k is class id k + 1."""
    after_logits: Tensor
    """(B, K, H, W): land cover after."""
    change_logits: Tensor
    """(B, H, W): logits of changed."""


class SiameseNetwork(nn.Module):
    """A shared encoder, a semantic head on each date, a change head on their absolute difference.

    Args:
        encoder: Sees both dates as one batch, so its batch statistics are those of both.
        semantic_head: Answers K logits.
        change_head: Answers one logit.
        config: The arguments of `create_model` that build this network.
    """

    def __init__(
        self, encoder: Encoder, semantic_head: Head, change_head: Head, config: dict[str, Any]
    ):
        super().__init__()
        self.encoder = encoder
        self.semantic_head = semantic_head
        self.change_head = change_head
        self.config = config

    @property
    def output_stride(self) -> int:
        """Tile origins are multiples of this many pixels, or tiles differ from the whole image."""
        return self.encoder.alignment_px

    @property
    def has_global_pooling(self) -> bool:
        """Whether the answer depends on the size of a tile, however far from its border."""
        return self.semantic_head.has_global_pooling or self.change_head.has_global_pooling

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the encoder's parameters."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over both heads' parameters."""
        return chain(self.semantic_head.parameters(), self.change_head.parameters())

    def forward(self, before_BCHW: Tensor, after_BCHW: Tensor) -> ChangeOutput:
        """Return logits of a batch of scaled image pairs at the images' size.

        Args:
            before_BCHW: Float images of the first date, of any height and width.
            after_BCHW: Float images of the second date, of the same shape.
        """
        height, width = before_BCHW.shape[-2:]
        images_BCHW = _pad_to_multiple(torch.cat([before_BCHW, after_BCHW]), self.output_stride)
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        features = self.encoder(images_BCHW)
        semantic_BKHW = self.semantic_head(
            [features[level] for level in self.semantic_head.levels], size
        )
        change_BKHW = self.change_head(
            [_difference(features[level]) for level in self.change_head.levels], size
        )
        before_logits, after_logits = semantic_BKHW[..., :height, :width].chunk(2)
        return ChangeOutput(before_logits, after_logits, change_BKHW[:, 0, :height, :width])


def _pad_to_multiple(image_BCHW: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until the stride divides both sides.

    The reference stretches the answer of any other size over the image, by up to `stride - 1`
    pixels at its end; a tile of such a size would then differ from its neighbours.
    """
    height, width = image_BCHW.shape[-2:]
    below, right = -height % stride, -width % stride
    if not (below or right):
        return image_BCHW
    return F.pad(image_BCHW, (0, right, 0, below), mode="replicate")


def _difference(feature_BCHW: Tensor) -> Tensor:
    """Return |before - after| of features whose batch holds all befores, then all afters."""
    before_BCHW, after_BCHW = feature_BCHW.chunk(2)
    return (before_BCHW - after_BCHW).abs()
