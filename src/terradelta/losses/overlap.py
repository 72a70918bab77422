"""Losses of the change head that measure the overlap of areas, not single pixels.

Shape suffixes: B batch, H height, W width; N valid pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terradelta.losses.change import ChangeLoss
from terradelta.losses.pixels import check_shapes, prepare_change, prepare_logits


class DiceLoss(nn.Module):
    """1 - Dice coefficient of the change probabilities, over all pixels of a batch together.

    `1 - (2 * sum(p * m) + 1) / (sum(p) + sum(m) + 1)`, after Sudre et al., "Generalised Dice
    overlap as a deep learning loss function" (2017); the added ones define the loss of a batch
    without change.
    """

    def forward(
        self, change_logits_BHW: Tensor, change_BHW: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a scalar; arguments and errors are those of `ChangeLoss`."""
        logits, change = _prepare(change_logits_BHW, change_BHW, valid_BHW)
        probability = logits.sigmoid()
        if valid_BHW is not None:
            probability = probability * valid_BHW
        overlap = 2 * (probability * change).sum() + 1
        return 1 - overlap / (probability.sum() + change.sum() + 1)


class LovaszLoss(nn.Module):
    """Lovász hinge of the change logits: a convex surrogate of 1 - IoU of the changed area.

    After Berman et al., "The Lovász-Softmax loss" (2018), equations 5 and 6 and algorithm 1, over
    all pixels of a batch together. It sorts the pixels: it is the most expensive of these losses.
    """

    def forward(
        self, change_logits_BHW: Tensor, change_BHW: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a scalar; arguments and errors are those of `ChangeLoss`."""
        logits, change = _prepare(change_logits_BHW, change_BHW, valid_BHW)
        errors_N = (1 - logits * (2 * change - 1)).flatten()
        if valid_BHW is not None:
            # Sorted to the end and cut off by the hinge, as their share of the IoU is 0.
            errors_N = errors_N.masked_fill(~valid_BHW.bool().flatten(), -torch.inf)
        errors_N, order_N = errors_N.sort(descending=True)
        change_N = change.flatten()[order_N]
        misses_N = change_N.sum() - change_N.cumsum(0)
        union_N = change_N.sum() + (1 - change_N).cumsum(0)
        distance_N = 1 - misses_N / union_N
        steps_N = torch.diff(distance_N, prepend=distance_N.new_zeros(1))
        return (errors_N.relu() * steps_N).sum()


class SummedChangeLoss(nn.Module):
    """The sum of a weighted loss of pixels and one of areas.

    Args:
        pixels: The first; its weight of changed pixels is also that of this loss.
        areas: The second.
    """

    def __init__(self, pixels: ChangeLoss, areas: nn.Module):
        super().__init__()
        self.pixels = pixels
        self.areas = areas

    @property
    def changed_pixel_weight(self) -> float:
        """Weight of changed pixels in the first term."""
        return self.pixels.changed_pixel_weight

    def forward(
        self, change_logits_BHW: Tensor, change_BHW: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a scalar; arguments and errors are those of `ChangeLoss`."""
        arguments = change_logits_BHW, change_BHW, valid_BHW
        return self.pixels(*arguments) + self.areas(*arguments)


def _prepare(
    logits_BHW: Tensor, change_BHW: Tensor, valid_BHW: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_shapes(logits_BHW, change=change_BHW, valid=valid_BHW)
    logits = prepare_logits(logits_BHW, valid_BHW)
    return logits, prepare_change(change_BHW, valid_BHW, logits.dtype)
