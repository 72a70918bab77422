"""The base of every network: it scores a pair, and states how it may be tiled.

Legend of the tensor names: B pairs, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.errors import ArgumentError
from terradelta.models.crop import Crop
from terradelta.models.layers import resize


class ChangeOutput(NamedTuple):
    """The answer of a network for a batch of pairs."""

    before_logits: Tensor
    """(B, K, H, W): land cover before; channel k is class id k + 1."""
    after_logits: Tensor
    """(B, K, H, W): land cover after."""
    change_logits: Tensor
    """(B, H, W): logits of changed."""


class ChangeNetwork(nn.Module, ABC):
    """A network that scores pairs: the base of `SiameseNetwork` and of registered architectures.

    An architecture gives `output_stride`, `score` and `find_margin_px`; the rest has defaults.
    `terradelta.protocols.Network` defines what the package needs of it.
    """

    config: dict[str, Any]
    """The arguments of `create_model` that build this network; `create_model` sets it."""
    output_stride: int
    """Tile origins and sides are multiples of this many pixels, or tiles differ from the whole
    image."""
    has_global_pooling: bool = False
    """Whether the answer depends on the size of a tile, even far from its border. A network
    for which it does must use `pool_window_px` in `score`."""

    _pool_window_px: int | None = None

    @property
    def pool_window_px(self) -> int | None:
        """Side of the window around each pixel over which heads that pool take their means.

        With it set, tiles of any larger size give one map, and an image that is no larger gets the
        same answer as without a window. None, the default, takes the whole image, as training
        always does.

        Raises:
            ArgumentError: If it is set to less than a pixel.
        """
        return self._pool_window_px

    @pool_window_px.setter
    def pool_window_px(self, side_px: int | None):
        if side_px is not None and side_px < 1:
            raise ArgumentError(
                f"pool_window_px is {side_px}, and it must be 1 or more",
                fix="use the size that the network was trained on, or None for the whole image",
            )
        self._pool_window_px = side_px

    @property
    def margin_px(self) -> int:
        """The margin of tiles with the present `pool_window_px`; see `find_margin_px`."""
        return self.find_margin_px(self.pool_window_px)

    @abstractmethod
    def find_margin_px(self, pool_window_px: int | None) -> int:
        """Return the width of a tile's border whose answer is discarded.

        Inside of it the rest of the image hardly matters. A multiple of `output_stride`: for a
        network of convolutions half of its receptive field.

        Args:
            pool_window_px: The value of `pool_window_px` when tiles are answered.
        """

    @abstractmethod
    def score(self, before_BCHW: Tensor, after_BCHW: Tensor) -> ChangeOutput:
        """Return logits at any resolution; the caller resizes them bilinearly.

        Args:
            before_BCHW: Float images whose sides are multiples of `output_stride`.
            after_BCHW: Float images of the second date, of the same shape.
        """

    def score_crop(self, before_BCHW: Tensor, after_BCHW: Tensor, crop: Crop) -> ChangeOutput:
        """Return the logits of a part of the images, the same as those of `score`.

        By default all are computed and the others thrown away.

        Args:
            before_BCHW: Same as in `score`.
            after_BCHW: Same as in `score`.
            crop: The part; its sides are multiples of `output_stride`.
        """
        size = (before_BCHW.shape[-2], before_BCHW.shape[-1])
        return crop_scores(self.score(before_BCHW, after_BCHW), crop, size)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters trained at `learning_rate`; by default none."""
        return iter(())

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over those trained `head_rate_factor` times as fast; by default the others."""
        slow = {id(parameter) for parameter in self.encoder_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in slow)

    def forward(self, before_BCHW: Tensor, after_BCHW: Tensor) -> ChangeOutput:
        """Return logits of a batch of scaled image pairs at the images' size.

        Args:
            before_BCHW: Float images of the first date, of any height and width.
            after_BCHW: Float images of the second date, of the same shape.
        """
        height, width = before_BCHW.shape[-2:]
        before_BCHW, after_BCHW = (
            pad_to_multiple(image_BCHW, self.output_stride)
            for image_BCHW in (before_BCHW, after_BCHW)
        )
        size = (before_BCHW.shape[-2], before_BCHW.shape[-1])
        before_logits, after_logits, change_logits = self.score(before_BCHW, after_BCHW)
        return ChangeOutput(
            resize(before_logits, size)[..., :height, :width],
            resize(after_logits, size)[..., :height, :width],
            resize(change_logits[:, None], size)[:, 0, :height, :width],
        )


def crop_scores(scores: ChangeOutput, crop: Crop, size: tuple[int, int]) -> ChangeOutput:
    """Return the logits of a part of an image of this height and width.

    Those of a resolution that does not divide the image's are resized to its pixels first.
    """
    before_logits, after_logits, change_logits = scores
    return ChangeOutput(
        _crop_logits(before_logits, crop, size),
        _crop_logits(after_logits, crop, size),
        _crop_logits(change_logits[:, None], crop, size)[:, 0],
    )


def _crop_logits(logits_BKHW: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    height, width = logits_BKHW.shape[-2:]
    stride_px = size[0] // height
    if (height * stride_px, width * stride_px) != size:
        logits_BKHW, stride_px = resize(logits_BKHW, size), 1
    return crop.take(logits_BKHW, stride_px)


def pad_to_multiple(image_BCHW: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until the stride divides both sides.

    The reference stretches the answer for any other size over the image, by up to `stride - 1`
    pixels at its end; a tile of such a size would then differ from its neighbours.
    """
    height, width = image_BCHW.shape[-2:]
    below, right = -height % stride, -width % stride
    if not (below or right):
        return image_BCHW
    return F.pad(image_BCHW, (0, right, 0, below), mode="replicate")
