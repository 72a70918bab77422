"""Scoring protocols of semantic change detection: `second`, `from-to` and `ual`.

The same maps score differently under each, so a number means something only with its protocol's
name. Each protocol is a pair of pure functions (maps to counts, counts to numbers) in a class that
sums the counts over images; nothing is ever averaged over images.

Undefined numbers are nan: an IoU, precision, recall or Fscd with nothing to count, and numbers
computed from them. A mean over classes leaves out the classes that occur in neither map. Kappa is 0
if chance agreement is total (a single class, or nothing changed), as in the published code, so
a perfect map of a single class has a SeK of 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terradelta.errors import ArgumentError
from terradelta.evaluation.confusion import count_confusion, count_transitions

Counts = NDArray[np.int64]


def measure_change(counts: Counts) -> dict[str, float]:
    """Return IoU of unchanged, IoU of changed and their mean, for any classes.

    Args:
        counts: Square, rows predicted, columns true, id 0 unchanged.

    Returns:
        `iou_unchanged`, `iou_changed`, `miou`.

    Raises:
        ArgumentError: If the counts are not square or have only unchanged.
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 2:
        raise ArgumentError(
            f"counts have shape {counts.shape}", fix="give (n, n) counts, n = 2 or more ids"
        )
    both_unchanged = int(counts[0, 0])
    both_changed = int(counts[1:, 1:].sum())
    one_changed = int(counts[1:, 0].sum() + counts[0, 1:].sum())
    iou_unchanged = _divide(both_unchanged, both_unchanged + one_changed)
    iou_changed = _divide(both_changed, both_changed + one_changed)
    return {
        "iou_unchanged": iou_unchanged,
        "iou_changed": iou_changed,
        "miou": (iou_unchanged + iou_changed) / 2,
    }


def measure_kappa(counts: Counts) -> float:
    """Return Cohen's kappa of any counts; 0 if chance agreement is total or nothing is counted.

    Source: Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    total = float(counts.sum())
    if total == 0:
        return 0.0
    agreement = float(np.trace(counts)) / total
    by_chance = float((counts.sum(axis=1) / total) @ (counts.sum(axis=0) / total))
    return 0.0 if by_chance == 1 else (agreement - by_chance) / (1 - by_chance)


def measure_class_ious(counts: Counts) -> NDArray[np.float64]:
    """Return each id's IoU, nan for an id that occurs neither in rows nor in columns."""
    hits = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def score_semantic_change(counts: Counts) -> dict[str, float]:
    """Return the numbers that `second` and `from-to` share.

    Args:
        counts: Square, rows predicted, columns true, id 0 unchanged.

    Returns:
        `miou`, `iou_unchanged`, `iou_changed`; `kappa` (of the counts without those where both
        maps say unchanged), `sek` = kappa * exp(iou_changed - 1); `score` = 0.3 miou + 0.7 sek;
        `precision_scd`, `recall_scd`, `fscd` (their harmonic mean); `overall_accuracy`.

    Raises:
        ArgumentError: If the counts are not square or have only unchanged.

    Source: Yang et al., "Asymmetric Siamese Networks for Semantic Change Detection in Aerial
    Images", IEEE TGRS 60, 2022, arXiv:2010.05687 (mIoU, SeK, Score); Ding et al.,
    arXiv:2108.06103 (Fscd).
    """
    change = measure_change(counts)
    without_unchanged = counts.copy()
    without_unchanged[0, 0] = 0
    kappa = measure_kappa(without_unchanged)
    sek = kappa * math.exp(change["iou_changed"] - 1)
    hits = int(np.trace(counts[1:, 1:]))
    predicted_changed, true_changed = int(counts[1:].sum()), int(counts[:, 1:].sum())
    return {
        **change,
        "kappa": kappa,
        "sek": sek,
        "score": 0.3 * change["miou"] + 0.7 * sek,
        "precision_scd": _divide(hits, predicted_changed),
        "recall_scd": _divide(hits, true_changed),
        "fscd": _divide(2 * hits, predicted_changed + true_changed),
        "overall_accuracy": _divide(int(np.trace(counts)), int(counts.sum())),
    }


def score_ual(counts: Counts) -> dict[str, float]:
    """Return the numbers of the unchanged-area paper.

    Args:
        counts: (K + 1, K + 1), rows predicted, columns true, id 0 unchanged.

    Returns:
        `miou_change` (unchanged and changed), `miou_semantic` (the K classes, where both maps say
        changed), `score` (their mean); `iou_unchanged`, `iou_changed`, `iou_class_1` to
        `iou_class_K`.

    Raises:
        ArgumentError: If the counts are not square or have only unchanged.
    """
    change = measure_change(counts)
    class_ious = measure_class_ious(counts[1:, 1:])
    occurring = class_ious[~np.isnan(class_ious)]
    miou_semantic = float(occurring.mean()) if occurring.size else math.nan
    return {
        "miou_change": change["miou"],
        "miou_semantic": miou_semantic,
        "score": (change["miou"] + miou_semantic) / 2,
        "iou_unchanged": change["iou_unchanged"],
        "iou_changed": change["iou_changed"],
        **{f"iou_class_{k}": float(iou) for k, iou in enumerate(class_ious, start=1)},
    }


class ProtocolMetric(ABC):
    """A protocol's running counts: update with maps, add up, compute its numbers.

    Args:
        num_classes: K, the number of land-cover classes; id 0 is not among them.

    Raises:
        ArgumentError: If there are no classes.
    """

    name: ClassVar[str]
    """The protocol's name, stored and shown with every number."""
    counts: Counts
    """Sum so far: rows predicted, columns true, id 0 unchanged."""

    def __init__(self, num_classes: int):
        if num_classes < 1:
            raise ArgumentError(
                f"num_classes is {num_classes}", fix="count at least one land-cover class"
            )
        self.num_classes = num_classes
        empty = np.empty(0, np.uint8)
        self.counts = self.count(empty, empty, empty, empty)

    @abstractmethod
    def count(
        self,
        before_predicted: ArrayLike,
        after_predicted: ArrayLike,
        before_true: ArrayLike,
        after_true: ArrayLike,
        valid: ArrayLike | None = None,
    ) -> Counts:
        """Return the counts of some pixels without keeping them; arguments as in `update`."""

    @abstractmethod
    def score(self, counts: Counts) -> dict[str, float]:
        """Return the protocol's numbers of counts from `count`, or of a sum of them."""

    def update(
        self,
        before_predicted: ArrayLike,
        after_predicted: ArrayLike,
        before_true: ArrayLike,
        after_true: ArrayLike,
        valid: ArrayLike | None = None,
    ) -> None:
        """Count the pixels of an image, a batch or a block.

        Args:
            before_predicted: Class ids 0..K, integers of any shape.
            after_predicted: The same of the date after.
            before_true: The same, labelled.
            after_true: The same of the date after, labelled.
            valid: False for pixels that are not counted, with any ids; None counts all.

        Raises:
            DataError: If shapes disagree or an id is not an integer in 0..K.
        """
        self.counts += self.count(before_predicted, after_predicted, before_true, after_true, valid)

    def merge(self, other: ProtocolMetric) -> None:
        """Add the counts of another part of the same data.

        Raises:
            ArgumentError: If the other follows another protocol or has other classes.
        """
        if (self.name, self.num_classes) != (other.name, other.num_classes):
            raise ArgumentError(
                f"counts of {self.name!r} with {self.num_classes} classes cannot be added to those "
                f"of {other.name!r} with {other.num_classes}",
                fix="merge counts of one protocol and one class table",
            )
        self.counts += other.counts

    def __add__(self, other: Self) -> Self:
        """Return a new metric with the counts of both."""
        both = type(self)(self.num_classes)
        both.merge(self)
        both.merge(other)
        return both

    def compute(self) -> dict[str, float]:
        """Return the protocol's numbers of everything counted so far, by name."""
        return self.score(self.counts)


@final
class SecondMetric(ProtocolMetric):
    """Protocol `second`: (K + 1, K + 1) counts of both dates added; numbers of SECOND's paper."""

    name = "second"

    def count(self, before_predicted, after_predicted, before_true, after_true, valid=None):
        """Return the counts of both dates added."""
        return _count_both_dates(
            before_predicted, after_predicted, before_true, after_true, self.num_classes, valid
        )

    def score(self, counts: Counts) -> dict[str, float]:
        """Same as in `score_semantic_change`."""
        return score_semantic_change(counts)


@final
class FromToMetric(ProtocolMetric):
    """Protocol `from-to`: a changed pixel is right only if both of its classes are right.

    The numbers are those of `second`, of the (K*K + 1, K*K + 1) counts of transitions.
    """

    name = "from-to"

    def count(self, before_predicted, after_predicted, before_true, after_true, valid=None):
        """Return the counts of transitions."""
        return count_transitions(
            before_predicted, after_predicted, before_true, after_true, self.num_classes, valid
        )

    def score(self, counts: Counts) -> dict[str, float]:
        """Same as in `score_semantic_change`."""
        return score_semantic_change(counts)


@final
class UalMetric(ProtocolMetric):
    """Protocol `ual`: counts as in `second`, numbers of the unchanged-area paper."""

    name = "ual"

    def count(self, before_predicted, after_predicted, before_true, after_true, valid=None):
        """Return the counts of both dates added."""
        return _count_both_dates(
            before_predicted, after_predicted, before_true, after_true, self.num_classes, valid
        )

    def score(self, counts: Counts) -> dict[str, float]:
        """Same as in `score_ual`."""
        return score_ual(counts)


PROTOCOLS: dict[str, type[ProtocolMetric]] = {
    metric.name: metric for metric in (SecondMetric, FromToMetric, UalMetric)
}
"""The protocols by name."""


def create_protocol(name: str, num_classes: int) -> ProtocolMetric:
    """Return an empty metric of the named protocol.

    Args:
        name: A name in `PROTOCOLS`.
        num_classes: K, the number of land-cover classes; id 0 is not among them.

    Raises:
        ArgumentError: If the protocol is unknown, or it cannot score so many classes.
    """
    if name not in PROTOCOLS:
        raise ArgumentError(
            f"there is no scoring protocol {name!r}", fix=f"choose one of {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name](num_classes)


def _count_both_dates(
    before_predicted: ArrayLike,
    after_predicted: ArrayLike,
    before_true: ArrayLike,
    after_true: ArrayLike,
    num_classes: int,
    valid: ArrayLike | None,
) -> Counts:
    before = count_confusion(before_predicted, before_true, num_classes + 1, valid)
    return before + count_confusion(after_predicted, after_true, num_classes + 1, valid)


def _divide(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
