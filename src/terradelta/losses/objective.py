"""The training objective: change, consistency of the two dates, and land cover of each.

Shape suffixes: B batch, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from terradelta.errors import ArgumentError
from terradelta.extensions import CHANGE_LOSSES, CONSISTENCY_LOSSES
from terradelta.losses.change import ChangeLoss, FocalChangeLoss, weigh_pixels
from terradelta.losses.overlap import DiceLoss, LovaszLoss, SummedChangeLoss
from terradelta.losses.pixels import check_pair, check_shapes, mean_over_valid, prepare_change
from terradelta.losses.semantic import SemanticLoss
from terradelta.losses.unchanged_area import (
    AgreementLoss,
    CosineChangeLoss,
    SquaredDifferenceLoss,
    UnchangedAreaLoss,
)

for _name, _create in {
    "ual": UnchangedAreaLoss,
    "ual-probability": partial(UnchangedAreaLoss, form="probability"),
    "cosine": CosineChangeLoss,
    "mse": SquaredDifferenceLoss,
    "agreement": AgreementLoss,
    "none": None,
}.items():
    CONSISTENCY_LOSSES.register(_name, _create)

for _name, _create in {
    "bce": ChangeLoss,
    "focal": FocalChangeLoss,
    "bce-dice": lambda weight: SummedChangeLoss(ChangeLoss(weight), DiceLoss()),
    "bce-lovasz": lambda weight: SummedChangeLoss(ChangeLoss(weight), LovaszLoss()),
}.items():
    CHANGE_LOSSES.register(_name, _create)


def register_loss(
    name: str, create: Callable[..., nn.Module], part: Literal["consistency", "change"]
):
    """Add a loss that recipes can name, as `loss` or as `change_loss`.

    Args:
        name: Its name.
        create: Makes the loss, a torch module. For "consistency" it takes no arguments and the
            module is called with `(before_logits_BKHW, after_logits_BKHW, change_BHW, valid_BHW)`;
            for "change" it takes the weight of a changed pixel and the module is called with
            `(change_logits_BHW, change_BHW, valid_BHW)`. Both return a scalar. `change_BHW` is 1
            where changed, `valid_BHW` None or False for pixels that are ignored.
        part: Its term in the objective.

    Raises:
        ArgumentError: If the name is taken or the part is unknown.
    """
    registries = {"consistency": CONSISTENCY_LOSSES, "change": CHANGE_LOSSES}
    if part not in registries:
        raise ArgumentError(
            f"the objective has no part {part!r}", fix=f"choose one of {', '.join(registries)}"
        )
    registries[part].register(name, create)


class NetworkOutput(Protocol):
    """The output of a network that the objective needs; every network of terradelta has it."""

    @property
    def before_logits(self) -> Tensor:
        """Land-cover logits of the date before, (B, K, H, W)."""
        ...

    @property
    def after_logits(self) -> Tensor:
        """Land-cover logits of the date after, (B, K, H, W)."""
        ...

    @property
    def change_logits(self) -> Tensor:
        """Logits of "changed", (B, H, W)."""
        ...


class ObjectiveParts(NamedTuple):
    """The objective and its parts, scalars; each part is the unweighted value of its loss."""

    total: Tensor
    """The value to minimise."""
    change: Tensor
    """The loss of the change head; mean of w * BCE by default."""
    consistency: Tensor
    """The consistency loss; 0 without one."""
    semantic_before: Tensor
    """Cross entropy of the date before."""
    semantic_after: Tensor
    """Cross entropy of the date after."""


class ChangeObjective(nn.Module):
    """The objective of the unchanged-area paper, with a choice of consistency loss C.

    `L = change_weight * mean(w * (BCE + consistency_weight * C)) + CE_before + CE_after`, where
    w = `changed_pixel_weight` on changed pixels and 1 elsewhere. C is a scalar, a mean over all
    pixels already, when it enters the outer mean, so it is effectively multiplied by mean(w):
    consistency counts more if more of a batch has changed. The reference implementation
    computes it the same way.

    Args:
        consistency: A name in `CONSISTENCY_LOSSES`.
        change: A name in `CHANGE_LOSSES`, "bce" in the paper; it replaces w * BCE.
        consistency_weight: Weight of C, 0.5 in the paper.
        change_weight: Weight of change and consistency together.
        changed_pixel_weight: w of changed pixels.
        class_weights: One for each of the K classes; None: all 1. The reference uses
            [2, 1, 2, 2, 1, 1] for the six classes of SenseEarth.

    Raises:
        ArgumentError: If the name is unknown or a weight is negative.
    """

    def __init__(
        self,
        consistency: str = "ual",
        *,
        change: str = "bce",
        consistency_weight: float = 0.5,
        change_weight: float = 2.0,
        changed_pixel_weight: float = 2.0,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        for kind, name, known in (
            ("consistency", consistency, CONSISTENCY_LOSSES),
            ("change", change, CHANGE_LOSSES),
        ):
            if name not in known:
                raise ArgumentError(
                    f"unknown {kind} loss {name!r}", fix=f"choose one of {', '.join(known)}"
                )
        if min(consistency_weight, change_weight) < 0:
            raise ArgumentError(
                f"consistency_weight is {consistency_weight} and change_weight {change_weight}",
                fix="give weights of 0 or more; a negative one would reward errors",
            )
        create = CONSISTENCY_LOSSES[consistency]
        self.consistency_loss = None if create is None else create()
        self.change_loss = CHANGE_LOSSES[change](changed_pixel_weight)
        self.semantic_loss = SemanticLoss(class_weights)
        self.changed_pixel_weight = changed_pixel_weight
        self.consistency_weight = consistency_weight
        self.change_weight = change_weight

    def forward(
        self,
        output: NetworkOutput,
        before_labels_BHW: Tensor,
        after_labels_BHW: Tensor,
        change_BHW: Tensor | None = None,
        valid_BHW: Tensor | None = None,
    ) -> ObjectiveParts:
        """Return the objective of one batch and its parts.

        Args:
            output: Output of the network.
            before_labels_BHW: Class ids 0..K of the date before; 0 = not labelled.
            after_labels_BHW: The same of the date after.
            change_BHW: 1 = changed, 0 = unchanged, below 0 = unknown: such pixels do not count in
                change and consistency. None: changed where either date is labelled, which is right
                for labels of changed areas only, and wrong once unchanged pixels carry
                (pseudo-)labels.
            valid_BHW: False for pixels that are ignored, whatever their values.

        Raises:
            ArgumentError: If shapes disagree, or a registered loss returns no scalar.
            DataError: If class ids lie outside 0..K, or change outside [0, 1].
        """
        check_pair(output.before_logits, output.after_logits)
        check_shapes(
            output.before_logits,
            before_labels=before_labels_BHW,
            after_labels=after_labels_BHW,
            change_logits=output.change_logits,
        )
        if change_BHW is None:
            change_BHW = (before_labels_BHW > 0) | (after_labels_BHW > 0)
        known_BHW = valid_BHW
        if change_BHW.dtype != torch.bool:
            is_known_BHW = change_BHW >= 0
            known_BHW = is_known_BHW if valid_BHW is None else is_known_BHW & valid_BHW.bool()
        change = self.change_loss(output.change_logits, change_BHW, known_BHW)
        consistency = self._measure_consistency(output, change_BHW, known_BHW)
        before = self.semantic_loss(output.before_logits, before_labels_BHW, valid_BHW)
        after = self.semantic_loss(output.after_logits, after_labels_BHW, valid_BHW)
        for part, loss in (("change", change), ("consistency", consistency)):
            if loss.ndim:
                raise ArgumentError(
                    f"the {part} loss returns {tuple(loss.shape)}, and it must return a scalar",
                    fix="take its mean over the valid pixels",
                )
        mean_weight = self._average_weight(change_BHW, known_BHW)
        change_term = change + self.consistency_weight * mean_weight * consistency
        total = self.change_weight * change_term + before + after
        return ObjectiveParts(total, change, consistency, before, after)

    def _measure_consistency(
        self, output: NetworkOutput, change_BHW: Tensor, valid_BHW: Tensor | None
    ) -> Tensor:
        if self.consistency_loss is None:
            return torch.zeros((), device=change_BHW.device)
        return self.consistency_loss(
            output.before_logits, output.after_logits, change_BHW, valid_BHW
        )

    def _average_weight(self, change_BHW: Tensor, valid_BHW: Tensor | None) -> Tensor:
        change = prepare_change(change_BHW, valid_BHW, torch.float32)
        return mean_over_valid(weigh_pixels(change, self.changed_pixel_weight), valid_BHW)
