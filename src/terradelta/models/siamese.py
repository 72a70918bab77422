"""The network: one encoder for both dates, one semantic head, one change head.

The layout is that of the UAL paper's reference implementation (own code).

Legend of the tensor names: B pairs, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.encoder import Encoder
from terradelta.models.heads import Head
from terradelta.models.pooling import WINDOW_MARGIN_PX, PoolWindow
from terradelta.models.pyramid import FeaturePyramid


class SiameseNetwork(ChangeNetwork):
    """A shared encoder, a semantic head on each date, a change head on their absolute difference.

    Args:
        encoder: Gets both dates as one batch, so its batch statistics cover both.
        semantic_head: Answers K logits.
        change_head: Answers one logit.
        config: The arguments of `create_model` that build this network.
        pyramid: Combines the encoder's maps into one, which the heads read; with None they read the
            encoder's maps.
    """

    def __init__(
        self,
        encoder: Encoder,
        semantic_head: Head,
        change_head: Head,
        config: dict[str, Any],
        pyramid: FeaturePyramid | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.pyramid = pyramid
        self.semantic_head = semantic_head
        self.change_head = change_head
        self.config = config
        self.output_stride = encoder.alignment_px
        heads = semantic_head, change_head
        self.has_global_pooling = any(head.has_global_pooling for head in heads)

    def find_margin_px(self, pool_window_px: int | None) -> int:
        """Return the width of a tile's border whose answer is discarded.

        Inside of it the rest of the image hardly matters. A constant of the architecture and of the
        window, the same on every machine; the tolerance of maps is
        `terradelta.models.encoder.TILING_TOLERANCE`. Heads that pool meet it only with a window.

        Args:
            pool_window_px: The value of `pool_window_px` when tiles are answered.
        """
        reach = max(self.semantic_head.reach, self.change_head.reach)
        margin_px = self.encoder.context_px + reach * self.encoder.strides[-1]
        if self.has_global_pooling and pool_window_px is not None:
            margin_px = max(margin_px, pool_window_px // 2) + WINDOW_MARGIN_PX
        return -(-margin_px // self.output_stride) * self.output_stride

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the encoder's parameters."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of both heads and of the pyramid before them."""
        parts = (self.pyramid, self.semantic_head, self.change_head)
        return chain.from_iterable(part.parameters() for part in parts if part is not None)

    def score(self, before_BCHW: Tensor, after_BCHW: Tensor) -> ChangeOutput:
        """Return logits at the heads' own resolutions; the caller resizes them bilinearly.

        Args:
            before_BCHW: Float images whose sides are multiples of `output_stride`.
            after_BCHW: Float images of the second date, of the same shape.
        """
        size = (before_BCHW.shape[-2], before_BCHW.shape[-1])
        window = self._locate_window(size[0])
        features = self.encoder(torch.cat([before_BCHW, after_BCHW]))
        if self.pyramid is not None:
            features = [self.pyramid(features)]
        semantic_BKHW = self.semantic_head(
            [features[level] for level in self.semantic_head.levels], size, window
        )
        change_BKHW = self.change_head(
            [_difference(features[level]) for level in self.change_head.levels], size, window
        )
        before_logits, after_logits = semantic_BKHW.unflatten(0, (2, -1))
        return ChangeOutput(before_logits, after_logits, change_BKHW[:, 0])

    def _locate_window(self, height_px: int) -> PoolWindow | None:
        if self.training or self.pool_window_px is None:
            return None
        return PoolWindow(self.pool_window_px, self.output_stride, height_px)


def _difference(feature_BCHW: Tensor) -> Tensor:
    """Return |before - after| of features; the batch holds all before, then all after."""
    before_BCHW, after_BCHW = feature_BCHW.unflatten(0, (2, -1))
    return (before_BCHW - after_BCHW).abs()
