"""Combines the scores of views and models into one answer.

Networks answer at a lower resolution, mostly an eighth of the image's. The change head's
scores are resized to every pixel; the many class scores are resized only where something
changed. A bilinear resize treats each pixel separately, so the answer is the same.

Legend of the array names: B batch, K classes, H rows, W columns, N changed pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from terradelta.data.augment import IDENTITY, View, undo_view
from terradelta.models.change_network import ChangeOutput
from terradelta.models.crop import Crop
from terradelta.models.decision import DecisionRule
from terradelta.models.layers import resize


class Vote(NamedTuple):
    """The answer of one model to one view of a batch."""

    view: View
    """How the images were flipped and rotated."""
    scores: ChangeOutput
    """Float32 logits of these images at the heads' own resolutions."""

    @property
    def is_finite(self) -> bool:
        """Whether all scores are finite: overflowing weights give infinity or NaN."""
        return all(bool(part.isfinite().all()) for part in self.scores)


class Probabilities(NamedTuple):
    """Mean probabilities of all votes for a batch of pairs; float32."""

    before_BKHW: Tensor
    """Probability of each land-cover class before."""
    after_BKHW: Tensor
    """Probability of each land-cover class after."""
    change_BHW: Tensor
    """Probability of change."""


class ClassMaps(NamedTuple):
    """The answer for one window."""

    before_HW: np.ndarray
    """uint8 class id before where changed, 0 where unchanged."""
    after_HW: np.ndarray
    """uint8 class id after where changed, 0 where unchanged."""
    confidence_HW: np.ndarray
    """uint8 percent: the probability that the answer is right."""
    unchanged_HW: np.ndarray
    """uint8 percent: the probability that nothing changed."""

    @classmethod
    def empty(cls, height: int, width: int) -> ClassMaps:
        """Return empty maps."""
        return cls(*np.zeros((4, height, width), dtype=np.uint8))


def decide(
    votes: Sequence[Vote],
    size: tuple[int, int],
    rule: DecisionRule,
    kept: Sequence[tuple[slice, slice]] | None = None,
) -> list[ClassMaps]:
    """Return the class maps of a batch.

    Decided by change, a pixel is changed where its probability of change p reaches the threshold,
    and its classes are the most probable ones; if a change to the same class does not count, a
    pixel with the same most probable class at both dates is unchanged. Decided by transition, it is
    changed where p * p_before * p_after of the most probable transition that counts
    reaches the threshold.

    Confidence is the probability of the whole answer if its parts are independent:
    p * p_before * p_after where changed; elsewhere 1 - p, or, if a change to the same class does
    not count and p reaches the threshold, 1 - p * (1 - sum over k of p_before,k * p_after,k).

    Args:
        votes: The answers to average, with equal weights.
        size: Height and width of the images.
        rule: When a pixel is changed.
        kept: Rows and columns of each image that are wanted; all by default.
    """
    change_BHW = average_change(votes, size)
    whole = slice(0, size[0]), slice(0, size[1])
    maps = []
    for number, change_HW in enumerate(change_BHW):
        rows, columns = whole if kept is None else kept[number]
        change_HW = change_HW[rows, columns]
        row_N, column_N = inside = (change_HW >= rule.threshold).nonzero(as_tuple=True)
        positions = row_N + rows.start, column_N + columns.start
        confidence_HW = 1 - change_HW
        unchanged_HW = _to_percent(confidence_HW)
        before_NK, after_NK = (
            _average_classes(votes, date, number, positions, size) for date in (0, 1)
        )
        *classes, sure_N, unchanged_N = choose_classes(change_HW[inside], before_NK, after_NK, rule)
        confidence_HW[inside] = sure_N
        unchanged_HW[inside] = _to_percent(unchanged_N)
        ids = []
        for index_N in classes:
            ids_HW = torch.zeros_like(unchanged_HW)
            ids_HW[inside] = index_N.to(torch.uint8)
            ids.append(ids_HW)
        layers = (*ids, _to_percent(confidence_HW), unchanged_HW)
        maps.append(ClassMaps(*(layer_HW.cpu().numpy() for layer_HW in layers)))
    return maps


def choose_classes(
    change_N: Tensor, before_NK: Tensor, after_NK: Tensor, rule: DecisionRule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the answer for pixels whose change reaches the threshold; see `decide`.

    Args:
        change_N: Probability of change.
        before_NK: Probabilities of the classes before.
        after_NK: Those after.
        rule: When a pixel is changed.

    Returns:
        Class ids before and after, 0 for unchanged; confidence; probability of no change.
    """
    unchanged_N, still_N = 1 - change_N, torch.zeros_like(change_N, dtype=torch.bool)
    shares = before_NK, after_NK
    if rule.decided_by == "transition" and not rule.same_class:
        shares = separate_dates(before_NK, after_NK)
    (before_N, from_N), (after_N, to_N) = (share_NK.max(dim=1) for share_NK in shares)
    sure_N = change_N * before_N * after_N
    if rule.decided_by == "transition":
        still_N = sure_N < rule.threshold
    if not rule.same_class:
        still_N |= from_N == to_N
        to_another_N = change_N * (1 - (before_NK * after_NK).sum(dim=1))
        unchanged_N = torch.where(still_N, 1 - to_another_N, unchanged_N)
    sure_N = torch.where(still_N, unchanged_N, sure_N)
    from_N, to_N = (index_N.masked_fill(still_N, -1) for index_N in (from_N, to_N))
    return from_N + 1, to_N + 1, sure_N, unchanged_N


def separate_dates(before_NK: Tensor, after_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Return class probabilities whose best classes are the most probable ones that differ.

    Where both dates have the same best class, it gets probability 0 at one of them: where that
    leaves the larger p_before * p_after. Where both leave the same, it gets 0 at both, so that
    the answer does not depend on the order of the dates.

    Args:
        before_NK: Probabilities before, classes along dimension 1 of any number of dimensions.
        after_NK: Those after.
    """
    best_N1 = before_NK.argmax(dim=1, keepdim=True)
    same_N1 = best_N1 == after_NK.argmax(dim=1, keepdim=True)
    other_before_NK, other_after_NK = (
        share_NK.scatter(1, best_N1, 0.0) for share_NK in (before_NK, after_NK)
    )
    from_another_N1 = other_before_NK.amax(1, keepdim=True) * after_NK.amax(1, keepdim=True)
    to_another_N1 = before_NK.amax(1, keepdim=True) * other_after_NK.amax(1, keepdim=True)
    return (
        torch.where(same_N1 & (from_another_N1 >= to_another_N1), other_before_NK, before_NK),
        torch.where(same_N1 & (to_another_N1 >= from_another_N1), other_after_NK, after_NK),
    )


def average(votes: Sequence[Vote], size: tuple[int, int]) -> Probabilities:
    """Return the mean probabilities of every pixel."""
    totals = []
    for date in (0, 1):
        parts = [
            undo_view(
                resize(vote.scores[date], _turn_size(size, vote.view)).softmax(dim=1), vote.view
            )
            for vote in votes
        ]
        totals.append(torch.stack(parts).mean(dim=0))
    return Probabilities(totals[0], totals[1], average_change(votes, size))


def average_change(votes: Sequence[Vote], size: tuple[int, int]) -> Tensor:
    """Return the mean probability of change, (B, H, W) float32."""
    total_BHW: Tensor | None = None
    for view, scores in votes:
        logits_BHW = resize(scores.change_logits[:, None], _turn_size(size, view))[:, 0]
        change_BHW = undo_view(logits_BHW.sigmoid(), view)
        total_BHW = change_BHW if total_BHW is None else total_BHW + change_BHW
    assert total_BHW is not None
    return total_BHW / len(votes)


def _average_classes(
    votes: Sequence[Vote],
    date: int,
    number: int,
    positions: tuple[Tensor, Tensor],
    size: tuple[int, int],
) -> Tensor:
    """Return the mean class probabilities at some pixels of one image, (N, K) float32.

    Args:
        votes: The answers to average.
        date: 0 for before, 1 for after.
        number: Number of the image in the batch.
        positions: Row and column of each pixel.
        size: Height and width of the images.
    """
    total_NK: Tensor | None = None
    for view, scores in votes:
        turned_size = _turn_size(size, view)
        logits_NK = sample(scores[date][number], _turn(positions, size, view), turned_size)
        # A softmax over the few numbers of a row is many times slower.
        share_NK = (logits_NK - logits_NK.amax(dim=1, keepdim=True)).exp()
        share_NK /= share_NK.sum(dim=1, keepdim=True)
        total_NK = share_NK if total_NK is None else total_NK + share_NK
    assert total_NK is not None
    return total_NK / len(votes)


def sample(scores_KHW: Tensor, positions: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """Return the scores, resized bilinearly to `size`, at some pixels: (N, K)."""
    num_classes, height, width = scores_KHW.shape
    pixels_PK = scores_KHW.reshape(num_classes, -1).T.contiguous()
    row_N, column_N = positions
    if (height, width) == size:
        return pixels_PK[row_N * width + column_N]
    top_N, bottom_N, down_N1 = _find_neighbours(row_N, height, size[0])
    left_N, right_N, across_N1 = _find_neighbours(column_N, width, size[1])
    upper_NK, lower_NK = (
        torch.lerp(
            pixels_PK[side_N * width + left_N], pixels_PK[side_N * width + right_N], across_N1
        )
        for side_N in (top_N, bottom_N)
    )
    return torch.lerp(upper_NK, lower_NK, down_N1)


def _find_neighbours(position_N: Tensor, length: int, whole: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two of `length` cells between which a pixel of `whole` lies.

    Its share of the second is (N, 1).
    """
    source_N = ((position_N + 0.5) * (length / whole) - 0.5).clamp(min=0)
    first_N = source_N.long()
    return first_N, (first_N + 1).clamp(max=length - 1), (source_N - first_N)[:, None]


def _turn(
    positions: tuple[Tensor, Tensor], size: tuple[int, int], view: View
) -> tuple[Tensor, Tensor]:
    """Return the positions of pixels in a view."""
    if view == IDENTITY:
        return positions
    height, width = _turn_size(size, view)
    place_HW = torch.arange(height * width, device=positions[0].device).reshape(height, width)
    place_N = undo_view(place_HW, view)[positions]
    return place_N // width, place_N % width


def turn_crop(crop: Crop, view: View, size: tuple[int, int]) -> Crop:
    """Return a crop of an image of this height and width in a view of it."""
    top, bottom, left, right = crop
    height, width = size
    if view.flip:
        left, right = width - right, width - left
    for _ in range(view.quarter_turns):
        top, bottom, left, right = width - right, width - left, top, bottom
        height, width = width, height
    return Crop(top, bottom, left, right)


def _turn_size(size: tuple[int, int], view: View) -> tuple[int, int]:
    height, width = size
    return (width, height) if view.quarter_turns % 2 else (height, width)


def _to_percent(part_BHW: Tensor) -> Tensor:
    return (100 * part_BHW).round().to(torch.uint8)
