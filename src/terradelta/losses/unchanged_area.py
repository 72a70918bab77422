"""Losses that couple the land cover of two dates: equal where unchanged, otherwise different.

The unchanged-area loss (UAL), two other published losses for the same term and one of our own,
all called `(before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW=None)`, 1 = changed.
Shape suffixes: B batch, K classes, H height, W width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.errors import ArgumentError
from terradelta.losses.pixels import (
    check_pair,
    check_shapes,
    mean_over_valid,
    prepare_change,
    prepare_logits,
)

Form = Literal["logit", "probability"]

MIN_DISTANCE = 1e-6
"""Floor of d in -log(d): at d = 0 it bounds the loss (to 13.8) and its gradient."""


class UnchangedAreaLoss(nn.Module):
    """Unchanged-area loss: pulls unchanged pixels' land cover together, pushes changed ones apart.

    With z the logits and m = 1 where changed, the logit form (the published one) is the mean of
    `BCEWithLogits(d, m)`, `d = 1/2 sum_k |z_before,k - z_after,k|`. An unchanged pixel costs
    log(1 + exp(d)), so never less than ln 2. The probability form is the mean of `BCE(d, m)` with d
    the total variation distance of the class distributions, `1/2 sum_k |p_before,k - p_after,k|`,
    and reaches 0.

    Source: "UAL: Unchanged Area Loss-Function for Change Detection Networks", IGARSS 2022 (logit
    form, polarity corrected: see docs/losses.md); the probability form is terradelta's.

    Args:
        form: The form of the loss.

    Raises:
        ArgumentError: If the form is neither.
    """

    def __init__(self, form: Form = "logit"):
        super().__init__()
        if form not in get_args(Form):
            raise ArgumentError(
                f"the unchanged-area loss has no form {form!r}",
                fix=f"choose one of {', '.join(get_args(Form))}",
            )
        self.form = form

    def forward(
        self,
        before_logits_BKHW: Tensor,
        after_logits_BKHW: Tensor,
        change_BHW: Tensor,
        valid_BHW: Tensor | None = None,
    ) -> Tensor:
        """Return the mean over the valid pixels.

        Args:
            before_logits_BKHW: Land-cover logits, any float dtype; computed in float32 at least.
            after_logits_BKHW: The same of the other date; swapping the dates changes nothing.
            change_BHW: 1 = changed, 0 = unchanged; bool, int or float.
            valid_BHW: False for pixels that are ignored, whatever their values.

        Returns:
            A scalar; 0, with a gradient path, if no pixel is valid.

        Raises:
            ArgumentError: If shapes disagree.
            DataError: If change holds values outside [0, 1].
        """
        before, after, change = _prepare_pair(
            before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW
        )
        measure = _measure_logit_form if self.form == "logit" else _measure_probability_form
        return mean_over_valid(measure(before, after, change), valid_BHW)

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return f"form={self.form!r}"


class CosineChangeLoss(nn.Module):
    """Semantic consistency loss of Bi-SRNet: the cosine of the two class distributions.

    An unchanged pixel costs 1 - cos(p_before, p_after), a changed one cos(p_before, p_after). The
    cosine of two distributions is never negative, so the paper's margin of 0 clips nothing.

    Source: Ding et al., "Bi-Temporal Semantic Reasoning for the Semantic Change Detection in HR
    Remote Sensing Images", IEEE TGRS 60, 2022, arXiv:2108.06103 (`ChangeSimilarity` in
    ggsDing/Bi-SRNet, utils/loss.py).
    """

    def forward(
        self,
        before_logits_BKHW: Tensor,
        after_logits_BKHW: Tensor,
        change_BHW: Tensor,
        valid_BHW: Tensor | None = None,
    ) -> Tensor:
        """Return the mean over the valid pixels; arguments and errors as in UnchangedAreaLoss."""
        before, after, change = _prepare_pair(
            before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW
        )
        p_before, p_after = before.softmax(1), after.softmax(1)
        # A distribution's norm is at least 1/sqrt(K): no division by zero is possible.
        squared_norms_BHW = p_before.square().sum(1) * p_after.square().sum(1)
        cosine_BHW = ((p_before * p_after).sum(1) / squared_norms_BHW.sqrt()).clamp(0.0, 1.0)
        loss_BHW = change * cosine_BHW + (1 - change) * (1 - cosine_BHW)
        return mean_over_valid(loss_BHW, valid_BHW)


class SquaredDifferenceLoss(nn.Module):
    """Similarity loss of ChangeMamba: squared difference of the class distributions if unchanged.

    A changed pixel costs nothing but is counted in the mean, as in the published code: the fewer
    pixels are unchanged, the smaller the loss. The mean is taken over the classes, too.

    Source: Chen et al., "ChangeMamba: Remote Sensing Change Detection with Spatiotemporal State
    Space Model", IEEE TGRS 62, 2024, arXiv:2404.03425 (`similarity_loss` in
    ChenHongruixuan/MambaCD, changedetection/script/train_MambaSCD.py).
    """

    def forward(
        self,
        before_logits_BKHW: Tensor,
        after_logits_BKHW: Tensor,
        change_BHW: Tensor,
        valid_BHW: Tensor | None = None,
    ) -> Tensor:
        """Return the mean over the valid pixels; arguments and errors as in UnchangedAreaLoss."""
        before, after, change = _prepare_pair(
            before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW
        )
        difference_BHW = (before.softmax(1) - after.softmax(1)).square().mean(1)
        return mean_over_valid((1 - change) * difference_BHW, valid_BHW)


class AgreementLoss(nn.Module):
    """Both dates of an unchanged pixel learn from their mean prediction.

    With q the mean of the two class distributions, sharpened (`q_k ~ mean_k ** (1 / temperature)`)
    and treated as constant, an unchanged pixel costs `1/2 (KL(q || p_before) + KL(q || p_after))`
    and a changed one nothing: its labels already give both classes. The gradient by a date's logits
    is p - q, so it vanishes as the dates agree, while that of UAL's logit form keeps its full size
    until they are equal. Below a temperature of 1 agreeing dates are still pulled towards a
    decision, which gives a class to unlabelled ground.

    Source: terradelta's; the sharpened mean as a target is that of Berthelot et al., "MixMatch",
    NeurIPS 2019, arXiv:1905.02249, eq. 7.

    Args:
        temperature: Above 0; 1 does not change the mean.

    Raises:
        ArgumentError: If the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__()
        if not temperature > 0:
            raise ArgumentError(
                f"the temperature is {temperature}", fix="give it above 0; 0.5 sharpens, 1 does not"
            )
        self.temperature = temperature

    def forward(
        self,
        before_logits_BKHW: Tensor,
        after_logits_BKHW: Tensor,
        change_BHW: Tensor,
        valid_BHW: Tensor | None = None,
    ) -> Tensor:
        """Return the mean over the valid pixels; arguments and errors as in UnchangedAreaLoss."""
        before, after, change = _prepare_pair(
            before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW
        )
        log_before, log_after = before.log_softmax(1), after.log_softmax(1)
        with torch.no_grad():
            log_sum = torch.logaddexp(log_before, log_after)
            log_target = (log_sum / self.temperature).log_softmax(1)
            target = log_target.exp()
        # At least 0, in spite of rounding.
        divergences = [
            (target * (log_target - log_date)).sum(1).clamp_min(0.0)
            for log_date in (log_before, log_after)
        ]
        return mean_over_valid((1 - change) * 0.5 * sum(divergences), valid_BHW)

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return f"temperature={self.temperature}"


def _prepare_pair(
    before_logits_BKHW: Tensor,
    after_logits_BKHW: Tensor,
    change_BHW: Tensor,
    valid_BHW: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    check_pair(before_logits_BKHW, after_logits_BKHW)
    check_shapes(before_logits_BKHW, change=change_BHW, valid=valid_BHW)
    before = prepare_logits(before_logits_BKHW, valid_BHW)
    after = prepare_logits(after_logits_BKHW, valid_BHW)
    return before, after, prepare_change(change_BHW, valid_BHW, before.dtype)


def _measure_logit_form(before_BKHW: Tensor, after_BKHW: Tensor, change_BHW: Tensor) -> Tensor:
    distance_BHW = 0.5 * (before_BKHW - after_BKHW).abs().sum(1)
    return F.binary_cross_entropy_with_logits(distance_BHW, change_BHW, reduction="none")


def _measure_probability_form(
    before_BKHW: Tensor, after_BKHW: Tensor, change_BHW: Tensor
) -> Tensor:
    log_before, log_after = before_BKHW.log_softmax(1), after_BKHW.log_softmax(1)
    distance_BHW = 0.5 * (log_before.exp() - log_after.exp()).abs().sum(1)
    log_distance_BHW = distance_BHW.clamp_min(MIN_DISTANCE).log()
    # 1 - d is the overlap sum_k min(p_before, p_after). Taken in logs it neither cancels nor
    # vanishes when two confident dates disagree, where 1 - d itself would round to 0.
    log_overlap_BHW = torch.minimum(log_before, log_after).logsumexp(1).clamp_max(0.0)
    return -(change_BHW * log_distance_BHW + (1 - change_BHW) * log_overlap_BHW)
