"""Losses of the change head: weighted binary cross entropy, and focal loss.

Shape suffixes: B batch, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.errors import ArgumentError
from terradelta.losses.pixels import check_shapes, mean_over_valid, prepare_change, prepare_logits


def weigh_pixels(change_BHW: Tensor, changed_pixel_weight: float) -> Tensor:
    """Return each pixel's weight w: `changed_pixel_weight` where changed, otherwise 1."""
    return 1 + (changed_pixel_weight - 1) * change_BHW


class ChangeLoss(nn.Module):
    """Binary cross entropy of change logits, with more weight on changed pixels.

    The mean of w * BCE is over the pixels; it is not divided by the sum of the weights.

    Args:
        changed_pixel_weight: w of changed pixels; unchanged ones have 1.

    Raises:
        ArgumentError: If the weight is negative.
    """

    def __init__(self, changed_pixel_weight: float = 2.0):
        super().__init__()
        if changed_pixel_weight < 0:
            raise ArgumentError(
                f"the weight of changed pixels is {changed_pixel_weight}",
                fix="give a weight of 0 or more; 1 weighs changed and unchanged pixels alike",
            )
        self.changed_pixel_weight = changed_pixel_weight

    def forward(
        self, change_logits_BHW: Tensor, change_BHW: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the mean over the valid pixels.

        Args:
            change_logits_BHW: Logits of "changed", any float dtype; computed in float32 at least.
            change_BHW: 1 = changed, 0 = unchanged; bool, int or float.
            valid_BHW: False for pixels that are ignored, whatever their values.

        Returns:
            A scalar; 0, with a gradient path, if no pixel is valid.

        Raises:
            ArgumentError: If shapes disagree.
            DataError: If change holds values outside [0, 1].
        """
        check_shapes(change_logits_BHW, change=change_BHW, valid=valid_BHW)
        logits = prepare_logits(change_logits_BHW, valid_BHW)
        change = prepare_change(change_BHW, valid_BHW, logits.dtype)
        loss_BHW = self.score_pixels(logits, change)
        return mean_over_valid(
            weigh_pixels(change, self.changed_pixel_weight) * loss_BHW, valid_BHW
        )

    def score_pixels(self, logits_BHW: Tensor, change_BHW: Tensor) -> Tensor:
        """Return each pixel's loss, (B, H, W), before weighting."""
        return F.binary_cross_entropy_with_logits(logits_BHW, change_BHW, reduction="none")

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return f"changed_pixel_weight={self.changed_pixel_weight}"


class FocalChangeLoss(ChangeLoss):
    """Focal loss of change logits: (1 - p)^gamma * BCE, with p the probability of the truth.

    After Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5; its alpha is the
    weight of changed pixels.

    Args:
        changed_pixel_weight: Weight of changed pixels; unchanged ones have 1.
        gamma: Exponent that reduces the weight of pixels that are already right; 0 gives
            `ChangeLoss`.

    Raises:
        ArgumentError: If a number is negative.
    """

    def __init__(self, changed_pixel_weight: float = 2.0, gamma: float = 2.0):
        super().__init__(changed_pixel_weight)
        if gamma < 0:
            raise ArgumentError(f"gamma is {gamma}", fix="give 0 or more; 2 in the paper")
        self.gamma = gamma

    def score_pixels(self, logits_BHW: Tensor, change_BHW: Tensor) -> Tensor:
        """Return each pixel's loss, (B, H, W), before weighting."""
        entropy_BHW = super().score_pixels(logits_BHW, change_BHW)
        # BCE is -log(p) for masks of 0 and 1, so this is (1 - p)^gamma without a second sigmoid.
        return (-torch.expm1(-entropy_BHW)).clamp_min(1e-12) ** self.gamma * entropy_BHW

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return f"{super().extra_repr()}, gamma={self.gamma}"
