"""The network: one encoder for both dates, one semantic head, one change head.

The layout is that of the UAL paper's reference implementation (own code).

Legend of the tensor names: B pairs, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.crop import Crop
from terradelta.models.encoder import Encoder
from terradelta.models.heads import Head
from terradelta.models.pooling import WINDOW_MARGIN_PX, PoolWindow
from terradelta.models.pyramid import FeaturePyramid


class _Place(NamedTuple):
    """Where features lie, and what is wanted of them."""

    size: tuple[int, int]
    """Height and width of the image."""
    covered: Crop
    """The part of it that the features cover."""
    crop: Crop | None
    """The part whose logits are wanted; all by default."""


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
        if pyramid is not None:
            self._pyramid_reach_px = pyramid.stride * max(head.local_reach or 0 for head in heads)

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
        return self._score(before_BCHW, after_BCHW, None)

    def score_crop(self, before_BCHW: Tensor, after_BCHW: Tensor, crop: Crop) -> ChangeOutput:
        """Return the logits of a part of the images, the same as those of `score`.

        The encoder sees all of them. The pyramid and the heads that are local compute the part and
        what it depends on; other heads compute all.

        Args:
            before_BCHW: Same as in `score`.
            after_BCHW: Same as in `score`.
            crop: The part; its sides are multiples of `output_stride`.
        """
        return self._score(before_BCHW, after_BCHW, crop)

    def _score(self, before_BCHW: Tensor, after_BCHW: Tensor, crop: Crop | None) -> ChangeOutput:
        size = (before_BCHW.shape[-2], before_BCHW.shape[-1])
        features = self._encode(before_BCHW, after_BCHW)
        covered = Crop(0, size[0], 0, size[1])
        if self.pyramid is not None:
            if crop is not None:
                covered = crop.widen(self._pyramid_reach_px, self.pyramid.stride, size)
            features = [self.pyramid(features, None if crop is None else covered)]
        place = _Place(size, covered, crop)
        semantic_BKHW = self._answer(self.semantic_head, features, place)
        differences = [_difference(feature_BCHW) for feature_BCHW in features]
        change_BKHW = self._answer(self.change_head, differences, place)
        before_logits, after_logits = semantic_BKHW.unflatten(0, (2, -1))
        return ChangeOutput(before_logits, after_logits, change_BKHW[:, 0])

    def _encode(self, before_BCHW: Tensor, after_BCHW: Tensor) -> list[Tensor]:
        """Return the encoder's maps of all before, then of all after."""
        if self.training:
            return self.encoder(torch.cat([before_BCHW, after_BCHW]))
        # One after the other: its widest layers then take half of the memory.
        dates = self.encoder(before_BCHW), self.encoder(after_BCHW)
        return [torch.cat(pair) for pair in zip(*dates, strict=True)]

    def _answer(self, head: Head, features: Sequence[Tensor], place: _Place) -> Tensor:
        """Return a head's logits of the crop, or of the image without one."""
        size, covered, crop = place
        chosen = [features[level] for level in head.levels]
        window = self._locate_window(size[0])
        if crop is None:
            return head(chosen, size, window)
        if head.local_reach is None:
            logits_BKHW = head(chosen, size, window)
            return crop.take(logits_BKHW, size[0] // logits_BKHW.shape[-2])
        stride_px = self.encoder.strides[-1] if self.pyramid is None else self.pyramid.stride
        area = crop.widen(head.local_reach * stride_px, stride_px, size)
        chosen = [area.within(covered).take(feature_BCHW, stride_px) for feature_BCHW in chosen]
        return crop.within(area).take(head(chosen, size, window), stride_px)

    def _locate_window(self, height_px: int) -> PoolWindow | None:
        if self.training or self.pool_window_px is None:
            return None
        return PoolWindow(self.pool_window_px, self.output_stride, height_px)


def _difference(feature_BCHW: Tensor) -> Tensor:
    """Return |before - after| of features; the batch holds all before, then all after."""
    before_BCHW, after_BCHW = feature_BCHW.unflatten(0, (2, -1))
    return (before_BCHW - after_BCHW).abs()
