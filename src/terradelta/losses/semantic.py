"""Cross entropy of the land cover of one date, on the pixels that carry a label.

Shape suffixes: B batch, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terradelta.errors import ArgumentError, DataError
from terradelta.losses.pixels import check_shapes, prepare_logits

IGNORED = -1


class SemanticLoss(nn.Module):
    """Cross entropy over the labelled pixels: class id k = 1..K is logit k - 1, id 0 is ignored.

    Args:
        class_weights: One weight for each of the K classes; the mean is then divided by the
            weights of the labelled pixels, as in torch. None: all 1.

    Raises:
        ArgumentError: If a weight is negative.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None):
        super().__init__()
        if class_weights is not None and min(class_weights) < 0:
            raise ArgumentError(
                f"the class weights {list(class_weights)} hold a negative one",
                fix="give weights of 0 or more, one for each class id from 1",
            )
        weights_K = None if class_weights is None else torch.tensor(list(class_weights)).float()
        self.register_buffer("class_weights", weights_K, persistent=False)

    def forward(
        self, logits_BKHW: Tensor, labels_BHW: Tensor, valid_BHW: Tensor | None = None
    ) -> Tensor:
        """Return the weighted mean over the labelled, valid pixels.

        Args:
            logits_BKHW: Land-cover logits, any float dtype; computed in float32 at least.
            labels_BHW: Class ids 0..K, any integer dtype; 0 = not labelled.
            valid_BHW: False for pixels that are ignored, whatever their values.

        Returns:
            A scalar; 0, with a gradient path, if no pixel is labelled.

        Raises:
            ArgumentError: If shapes, or the numbers of classes and weights, disagree.
            DataError: If a class id lies outside 0..K.
        """
        check_shapes(logits_BKHW, labels=labels_BHW, valid=valid_BHW)
        logits = prepare_logits(logits_BKHW, valid_BHW)
        labels = labels_BHW.long()
        if valid_BHW is not None:
            labels = labels.masked_fill(~valid_BHW.bool(), 0)
        num_classes = logits.shape[1]
        _check_ids(labels, num_classes)
        weights_K = self._weigh_classes(num_classes, logits)
        targets = labels - 1
        total = F.cross_entropy(
            logits, targets, weight=weights_K, ignore_index=IGNORED, reduction="sum"
        )
        weight_sum = weights_K[targets.clamp_min(0)].masked_fill(targets == IGNORED, 0.0).sum()
        return total / torch.where(weight_sum > 0, weight_sum, 1.0)

    def _weigh_classes(self, num_classes: int, logits: Tensor) -> Tensor:
        if self.class_weights is None:
            return logits.new_ones(num_classes)
        if len(self.class_weights) != num_classes:
            raise ArgumentError(
                f"{len(self.class_weights)} class weights, but logits of {num_classes} classes",
                fix="give one weight for each land-cover class, id 0 not among them",
            )
        return self.class_weights.to(logits)


def _check_ids(labels: Tensor, num_classes: int) -> None:
    if labels.numel() == 0:
        return
    lowest, highest = (int(bound) for bound in labels.aminmax())
    if lowest < 0 or highest > num_classes:
        raise DataError(
            f"the labels hold class ids {lowest} to {highest}, the logits know 0 to {num_classes}",
            fix="map the labels to class ids 0..K, or mark pixels without data as not valid",
        )
