from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_confusion_matrix

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.confusion import (
    MAX_TRANSITION_CLASSES,
    count_confusion,
    count_transitions,
)


def draw(seed: int, num_ids: int = 5, shape=(3, 8, 9)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_ids, shape), rng.integers(0, num_ids, shape), rng.random(shape) < 0.7


def draw_pairs(seed: int, num_classes: int, shape=(6, 7)):
    """Predicted and true maps of both dates; labels have both classes or neither."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, num_classes + 1, (2, *shape))
    true = rng.integers(1, num_classes + 1, (2, *shape)) * (rng.random(shape) < 0.5)
    return (*predicted, *true)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), num_ids=st.integers(2, 7))
def test_equals_sklearn_and_torchmetrics(seed, num_ids):
    predicted, true, valid = draw(seed, num_ids)
    counts = count_confusion(predicted, true, num_ids, valid)
    assert counts.dtype == np.int64
    # Both oracles have the true ids in the rows.
    oracle = confusion_matrix(true[valid], predicted[valid], labels=range(num_ids))
    np.testing.assert_array_equal(counts, oracle.T)
    masked = torch.tensor(np.where(valid, true, -1))
    other = multiclass_confusion_matrix(torch.tensor(predicted), masked, num_ids, ignore_index=-1)
    np.testing.assert_array_equal(counts, other.numpy().T)


def test_rows_are_predicted_and_columns_true():
    np.testing.assert_array_equal(
        count_confusion([1, 1, 0], [2, 2, 1], 3), np.array([[0, 1, 0], [0, 0, 2], [0, 0, 0]])
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.int64])
def test_any_integer_dtype_and_shape(dtype):
    predicted, true, _ = draw(1)
    expected = count_confusion(predicted, true, 5)
    counts = count_confusion(predicted.astype(dtype).ravel(), true.astype(dtype).ravel(), 5)
    np.testing.assert_array_equal(counts, expected)
    transposed = count_confusion(predicted.astype(dtype).T, true.T, 5)
    np.testing.assert_array_equal(transposed, expected)


def test_many_ids_do_not_overflow_bytes():
    ids = np.arange(255, dtype=np.uint8)
    np.testing.assert_array_equal(count_confusion(ids, ids, 255), np.eye(255))


def test_change_masks_may_be_bool():
    np.testing.assert_array_equal(
        count_confusion(np.array([True, False]), np.array([True, True]), 2), [[0, 1], [0, 1]]
    )


def test_invalid_pixels_may_hold_anything():
    predicted, true, valid = draw(2)
    expected = count_confusion(predicted[valid], true[valid], 5)
    junk = [np.where(valid, ids, 255) for ids in (predicted, true)]
    np.testing.assert_array_equal(count_confusion(*junk, 5, valid), expected)


def test_nothing_to_count_counts_nothing():
    empty = np.zeros((0, 4), np.uint8)
    np.testing.assert_array_equal(count_confusion(empty, empty, 3), np.zeros((3, 3)))


def test_refuses_what_it_cannot_count():
    predicted, true, valid = draw(0)
    with pytest.raises(DataError, match=r"predicted has shape \(3, 8, 9\), true \(2, 8, 9\)"):
        count_confusion(predicted, true[:2], 5)
    with pytest.raises(DataError, match="valid"):
        count_confusion(predicted, true, 5, valid[0])
    with pytest.raises(DataError, match="predicted holds ids 0 to 255, but only 0 to 4"):
        count_confusion(np.where(predicted == 4, 255, predicted), true, 5)
    with pytest.raises(DataError, match="true holds ids -1"):
        count_confusion(predicted, true - 1, 5)
    with pytest.raises(DataError, match="float64, not integers"):
        count_confusion(predicted.astype(float), true, 5)
    with pytest.raises(ArgumentError, match="num_ids is 0"):
        count_confusion(predicted, true, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(1, 4))
def test_transitions_equal_a_slow_count(seed, num_classes):
    maps = draw_pairs(seed, num_classes)
    slow = np.zeros((num_classes**2 + 1, num_classes**2 + 1), int)
    ids = {(0, 0): 0}
    for before in range(1, num_classes + 1):
        for after in range(1, num_classes + 1):
            ids[before, after] = len(ids)
    for before_predicted, after_predicted, before_true, after_true in zip(
        *(m.ravel().tolist() for m in maps), strict=True
    ):
        row = ids.get((before_predicted, after_predicted), 0)
        slow[row, ids[before_true, after_true]] += 1
    np.testing.assert_array_equal(count_transitions(*maps, num_classes), slow)


def test_transitions_worked_by_hand():
    # Two classes, so 1: 1 to 1, 2: 1 to 2, 3: 2 to 1, 4: 2 to 2.
    counts = count_transitions(
        before_predicted=[0, 1, 2, 1, 0],
        after_predicted=[0, 2, 1, 0, 2],  # the last two pixels name a class at one date only
        before_true=[0, 1, 2, 1, 2],
        after_true=[0, 2, 2, 1, 1],
        num_classes=2,
    )
    expected = np.zeros((5, 5), int)
    expected[0, 0] = 1  # unchanged, rightly
    expected[2, 2] = 1  # 1 to 2, rightly
    expected[3, 4] = 1  # 2 to 1 was 2 to 2
    expected[0, 1] = 1  # no transition named where it was 1 to 1
    expected[0, 3] = 1  # no transition named where it was 2 to 1
    np.testing.assert_array_equal(counts, expected)


def test_transitions_do_not_overflow_bytes():
    ids = np.arange(1, 31, dtype=np.uint8)
    counts = count_transitions(ids, ids[::-1], ids, ids[::-1], 30)
    cells = [1 + (from_id - 1) * 30 + (30 - from_id) for from_id in range(1, 31)]
    assert counts.sum() == counts[cells, cells].sum() == 30
    assert set(counts[cells, cells]) == {1}


def test_transitions_leave_invalid_pixels_out():
    maps = draw_pairs(5, 3)
    valid = np.random.default_rng(5).random(maps[0].shape) < 0.5
    expected = count_transitions(*(m[valid] for m in maps), 3)
    junk = [np.where(valid, m, 200 + i) for i, m in enumerate(maps)]
    np.testing.assert_array_equal(count_transitions(*junk, 3, valid), expected)


def test_transitions_refuse_labels_with_a_class_at_one_date_only():
    ok = np.ones(4, int)
    with pytest.raises(DataError, match=r"2 of 4 labelled pixels.*first is 0 before and 2 after"):
        count_transitions(ok, ok, [1, 0, 1, 0], [1, 2, 1, 1], 2)


def test_transitions_refuse_what_they_cannot_count():
    ok = np.ones(4, int)
    with pytest.raises(DataError, match="after_true holds ids 1 to 3, but only 0 to 2"):
        count_transitions(ok, ok, ok, [1, 2, 3, 1], 2)
    with pytest.raises(DataError, match="before_true"):
        count_transitions(ok, ok, ok[:2], ok, 2)
    for num_classes in (0, MAX_TRANSITION_CLASSES + 1):
        with pytest.raises(ArgumentError, match=f"between {num_classes} classes"):
            count_transitions(ok, ok, ok, ok, num_classes)
