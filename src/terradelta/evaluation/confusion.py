"""Counts predicted ids against true ids.

Counts can be added over images and blocks; every score is computed from their sum. Rows are
predicted, columns true, id 0 is unchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terradelta.errors import ArgumentError, DataError

CHUNK_PIXELS = 1 << 16
"""Pixels counted at once: they stay in the processor's cache, which is five times as fast."""
MAX_TRANSITION_CLASSES = 64
"""The matrix of transitions grows with the fourth power of K: 64 classes fill 134 MB."""


def count_confusion(
    predicted: ArrayLike, true: ArrayLike, num_ids: int, valid: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Count how often each id was predicted for each true id.

    Args:
        predicted: Ids 0..num_ids-1, integers or bools of any shape.
        true: The same, of the same shape.
        num_ids: Number of ids, 0 included: K + 1 for K land-cover classes.
        valid: False for pixels that are not counted, with any ids; None counts all.

    Returns:
        (num_ids, num_ids) counts, rows predicted, columns true.

    Raises:
        ArgumentError: If num_ids is less than 1.
        DataError: If shapes disagree, or an id is not an integer in 0..num_ids-1.
    """
    if num_ids < 1:
        raise ArgumentError(f"num_ids is {num_ids}", fix="count at least one id, that of unchanged")
    rows, columns = _select_valid(valid, predicted=predicted, true=true)
    _check_ids("predicted", rows, num_ids)
    _check_ids("true", columns, num_ids)
    counts = np.zeros(num_ids * num_ids, dtype=np.int64)
    for start in range(0, rows.size, CHUNK_PIXELS):
        cells = rows[start : start + CHUNK_PIXELS].astype(np.int64)
        cells *= num_ids
        cells += columns[start : start + CHUNK_PIXELS].astype(np.int64)
        counts += np.bincount(cells, minlength=num_ids * num_ids)
    return counts.reshape(num_ids, num_ids)


def count_transitions(
    before_predicted: ArrayLike,
    after_predicted: ArrayLike,
    before_true: ArrayLike,
    after_true: ArrayLike,
    num_classes: int,
    valid: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Count how often each transition was predicted for each true one.

    A transition's id here is 0 for unchanged, else 1 + (from - 1) * K + (to - 1), so that no row is
    empty by construction. A predicted pixel is changed only if both dates hold a class: with a
    class at only one date it counts as unchanged. In labels that is an
    error.

    Args:
        before_predicted: Class ids 0..K, integers of any shape.
        after_predicted: The same of the date after.
        before_true: The same, labelled.
        after_true: The same of the date after, labelled.
        num_classes: K, the number of land-cover classes; id 0 is not among them.
        valid: False for pixels that are not counted, with any ids; None counts all.

    Returns:
        (K*K + 1, K*K + 1) counts, rows predicted, columns true.

    Raises:
        ArgumentError: If there are too few or too many classes for such a matrix.
        DataError: If shapes disagree, an id is not an integer in 0..K, or a label is 0 at one date
            and a class at the other.
    """
    if not 1 <= num_classes <= MAX_TRANSITION_CLASSES:
        raise ArgumentError(
            f"transitions between {num_classes} classes cannot be counted, "
            f"only between 1 to {MAX_TRANSITION_CLASSES}",
            fix="merge classes, or score by a protocol that counts each date by itself",
        )
    maps = _select_valid(
        valid,
        before_predicted=before_predicted,
        after_predicted=after_predicted,
        before_true=before_true,
        after_true=after_true,
    )
    names = ("before_predicted", "after_predicted", "before_true", "after_true")
    for name, ids in zip(names, maps, strict=True):
        _check_ids(name, ids, num_classes + 1)
    _check_labels_agree(maps[2], maps[3])
    predicted = _encode_transitions(maps[0], maps[1], num_classes)
    true = _encode_transitions(maps[2], maps[3], num_classes)
    return count_confusion(predicted, true, num_classes**2 + 1)


def _select_valid(valid: ArrayLike | None, **maps: ArrayLike) -> list[NDArray]:
    arrays = {name: np.asarray(ids) for name, ids in maps.items()}
    if valid is not None:
        arrays["valid"] = np.asarray(valid)
    first_name, first = next(iter(arrays.items()))
    for name, array in arrays.items():
        if array.shape != first.shape:
            raise DataError(
                f"{first_name} has shape {first.shape}, {name} {array.shape}",
                fix="compare maps of the same pixels",
            )
    if valid is None:
        return [array.ravel() for array in arrays.values()]
    chosen = arrays.pop("valid").astype(bool)
    return [array[chosen] for array in arrays.values()]


def _check_ids(name: str, ids: NDArray, num_ids: int) -> None:
    if ids.dtype.kind not in "biu":
        raise DataError(
            f"{name} holds {ids.dtype}, not integers", fix="give class ids, not probabilities"
        )
    if ids.size and (ids.min() < 0 or ids.max() >= num_ids):
        raise DataError(
            f"{name} holds ids {ids.min()} to {ids.max()}, but only 0 to {num_ids - 1} are known",
            fix="map colours or foreign ids to class ids, and mark nodata pixels as not valid",
        )


def _check_labels_agree(before: NDArray, after: NDArray) -> None:
    half_labelled = (before > 0) != (after > 0)
    if half_labelled.any():
        first = int(half_labelled.argmax())
        raise DataError(
            f"{int(half_labelled.sum())} of {before.size} labelled pixels have a class at one date "
            f"only; the first is {int(before[first])} before and {int(after[first])} after",
            fix="give changed pixels a class at both dates, or use a protocol that counts each "
            "date by itself",
        )


def _encode_transitions(before: NDArray, after: NDArray, num_classes: int) -> NDArray[np.int64]:
    from_class, to_class = before.astype(np.int64), after.astype(np.int64)
    transition = 1 + (from_class - 1) * num_classes + (to_class - 1)
    return np.where((from_class > 0) & (to_class > 0), transition, 0)
