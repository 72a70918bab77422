from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score
from torchmetrics.functional.classification import multiclass_cohen_kappa, multiclass_jaccard_index

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.confusion import count_confusion
from terradelta.evaluation.scoring_protocols import (
    PROTOCOLS,
    create_protocol,
    measure_change,
    measure_class_ious,
    measure_kappa,
    score_semantic_change,
    score_ual,
)

REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "metrics.json"
KEYS_SECOND = {
    *("miou", "iou_unchanged", "iou_changed", "kappa", "sek", "score"),
    *("precision_scd", "recall_scd", "fscd", "overall_accuracy"),
}


@pytest.fixture(params=PROTOCOLS)
def name(request) -> str:
    return request.param


def draw(seed: int, num_classes: int = 3, shape=(4, 6, 7), noise: float = 0.4):
    """Maps of both dates, predicted and true; predictions are labels with noise."""
    rng = np.random.default_rng(seed)
    true = rng.integers(1, num_classes + 1, (2, *shape)) * (rng.random(shape) < 0.5)
    junk = rng.integers(0, num_classes + 1, (2, *shape))
    predicted = np.where(rng.random((2, *shape)) < noise, junk, true)
    return (*predicted, *true)


def score(name: str, *maps, num_classes: int = 3, valid=None) -> dict[str, float]:
    metric = create_protocol(name, num_classes)
    metric.update(*maps, valid)
    return metric.compute()


def draw_reference_counts(key: str) -> np.ndarray:
    seed, noise = key.removeprefix("seed").split("_noise")
    rng = np.random.default_rng(int(seed))
    counts = np.zeros((7, 7), np.int64)
    for _ in range(3):
        base = rng.integers(0, 7, (8, 8))
        base[rng.random((8, 8)) < 0.6] = 0
        label = np.kron(base, np.ones((8, 8), int))
        predicted = label.copy()
        flip = rng.random((64, 64)) < float(noise)
        predicted[flip] = rng.integers(0, 7, flip.sum())
        counts += count_confusion(predicted, label, 7)
    return counts


@pytest.mark.parametrize("key", ["seed1_noise0.05", "seed2_noise0.25", "seed3_noise0.6"])
def test_meets_the_reference_implementation(key):
    expected = json.loads(REFERENCE.read_text())[key]
    counts = draw_reference_counts(key)
    second, ual = score_semantic_change(counts), score_ual(counts)
    measured = {
        "ual_score": ual["score"],
        "miou_change": ual["miou_change"],
        "miou_semantic_changed_block": ual["miou_semantic"],
        "contest_score": second["score"],
        "miou": second["miou"],
        "sek": second["sek"],
        "fscd": second["fscd"],
        "sek_scannet": second["sek"],
        "oa": second["overall_accuracy"],
    }
    assert measured.keys() == expected.keys()
    assert measured == pytest.approx(expected, abs=1e-9)


def measure_slowly(pairs: list[tuple]) -> dict[str, float]:
    """The numbers of `second` and `from-to` from (predicted, true) ids, 0 = unchanged."""
    outside = [(p, t) for p, t in pairs if (p, t) != (0, 0)]
    both = sum(p != 0 and t != 0 for p, t in pairs)
    iou_changed = both / len(outside)
    unchanged = len(pairs) - len(outside)
    iou_unchanged = unchanged / (len(pairs) - both)
    agreement = sum(p == t for p, t in outside) / len(outside)
    by_chance = (
        sum(
            sum(p == i for p, _ in outside) * sum(t == i for _, t in outside)
            for i in {i for pair in outside for i in pair}
        )
        / len(outside) ** 2
    )
    kappa = (agreement - by_chance) / (1 - by_chance)
    sek = kappa * math.exp(iou_changed) / math.e
    hits = sum(p == t for p, t in outside)
    precision = hits / sum(p != 0 for p, _ in pairs)
    recall = hits / sum(t != 0 for _, t in pairs)
    miou = (iou_unchanged + iou_changed) / 2
    return {
        "miou": miou,
        "iou_unchanged": iou_unchanged,
        "iou_changed": iou_changed,
        "kappa": kappa,
        "sek": sek,
        "score": 0.3 * miou + 0.7 * sek,
        "precision_scd": precision,
        "recall_scd": recall,
        "fscd": 2 / (1 / precision + 1 / recall),
        "overall_accuracy": sum(p == t for p, t in pairs) / len(pairs),
    }


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_second_equals_a_slow_version(seed):
    before, after, before_true, after_true = (m.ravel().tolist() for m in draw(seed))
    pairs = [*zip(before, before_true, strict=True), *zip(after, after_true, strict=True)]
    assert score("second", *draw(seed)) == pytest.approx(measure_slowly(pairs), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_from_to_equals_a_slow_version(seed):
    pairs = []
    for b, a, bt, at in zip(*(m.ravel().tolist() for m in draw(seed)), strict=True):
        pairs.append(((b, a) if b and a else 0, (bt, at) if bt else 0))
    assert score("from-to", *draw(seed)) == pytest.approx(measure_slowly(pairs), abs=1e-12)


def test_from_to_worked_by_hand():
    # Pixels: unchanged rightly, two transitions rightly, one with the wrong class before,
    # one missed, one false alarm.
    numbers = score(
        "from-to",
        [0, 1, 2, 2, 0, 1],
        [0, 2, 1, 3, 0, 1],
        [0, 1, 2, 1, 3, 0],
        [0, 2, 1, 3, 3, 0],
    )
    assert numbers["iou_unchanged"] == 1 / 3
    assert numbers["iou_changed"] == 3 / 5
    assert numbers["precision_scd"] == numbers["recall_scd"] == numbers["fscd"] == 2 / 4
    assert numbers["overall_accuracy"] == 3 / 6
    # Of the 5 pixels not unchanged in both maps 2 agree; by chance (1 * 1 + 1 * 1 + 1 * 1) / 25:
    # unchanged, 1 to 2 and 2 to 1 occur once in each map, the other four in one map only.
    assert numbers["kappa"] == pytest.approx((2 / 5 - 3 / 25) / (1 - 3 / 25))


def test_protocols_differ_on_the_same_maps():
    maps = draw(0)
    assert score("from-to", *maps)["fscd"] < score("second", *maps)["fscd"] - 0.05


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_parts_equal_sklearn_and_torchmetrics(seed):
    before, after, before_true, after_true = draw(seed, shape=(2, 6, 7))
    predicted = np.concatenate([before, after]).ravel()
    true = np.concatenate([before_true, after_true]).ravel()
    numbers = score("second", before, after, before_true, after_true)
    outside = (predicted > 0) | (true > 0)
    assert numbers["kappa"] == pytest.approx(
        cohen_kappa_score(predicted[outside], true[outside]), abs=1e-12
    )
    kappa = multiclass_cohen_kappa(
        torch.tensor(predicted[outside]), torch.tensor(true[outside]), num_classes=4
    )
    assert numbers["kappa"] == pytest.approx(kappa.item(), abs=1e-6)
    changed = jaccard_score(true > 0, predicted > 0, average=None)
    assert [numbers["iou_unchanged"], numbers["iou_changed"]] == pytest.approx(changed, abs=1e-12)
    assert numbers["fscd"] == pytest.approx(
        f1_score(true, predicted, labels=[1, 2, 3], average="micro"), abs=1e-12
    )
    both = (predicted > 0) & (true > 0)
    miou = score("ual", before, after, before_true, after_true)["miou_semantic"]
    assert miou == pytest.approx(
        jaccard_score(true[both], predicted[both], average="macro"), abs=1e-12
    )
    other = multiclass_jaccard_index(
        torch.tensor(predicted[both] - 1), torch.tensor(true[both] - 1), num_classes=3
    )
    assert miou == pytest.approx(other.item(), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(PROTOCOLS)))
def test_order_of_pixels_and_split_into_batches_change_nothing(seed, name):
    maps = draw(seed)
    whole = score(name, *maps)
    order = np.random.default_rng(seed).permutation(maps[0].size)
    assert score(name, *(m.ravel()[order] for m in maps)) == whole

    in_turn = create_protocol(name, 3)
    first, second = create_protocol(name, 3), create_protocol(name, 3)
    for i, part in enumerate((first, second, second, first)):
        part.update(*(m[i] for m in maps))
        in_turn.update(*(m[i] for m in maps))
    joined = first + second
    assert in_turn.compute() == joined.compute() == whole
    first.merge(second)
    assert first.compute() == whole


def test_adding_leaves_both_as_they_were(name):
    first, second = create_protocol(name, 3), create_protocol(name, 3)
    first.update(*draw(0))
    second.update(*draw(1))
    kept = first.counts.copy(), second.counts.copy()
    joined = first + second
    joined.update(*draw(2))
    np.testing.assert_array_equal(first.counts, kept[0])
    np.testing.assert_array_equal(second.counts, kept[1])


def test_images_are_never_averaged(name):
    """One good large image and one bad small one: the pixels decide."""
    good, bad = draw(0, shape=(40, 40), noise=0.0), draw(1, shape=(4, 4), noise=1.0)
    metric = create_protocol(name, 3)
    for maps in (good, bad):
        metric.update(*maps)
    mean = (score(name, *good)["score"] + score(name, *bad)["score"]) / 2
    assert metric.compute()["score"] > mean + 0.1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(PROTOCOLS)))
def test_perfect_prediction_scores_one_and_none_scores_more(seed, name):
    before, after, before_true, after_true = draw(seed)
    perfect = score(name, before_true, after_true, before_true, after_true)
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-12)
    for value in score(name, before, after, before_true, after_true).values():
        assert value <= 1


def test_swapping_the_dates_changes_nothing(name):
    before, after, before_true, after_true = draw(4)
    swapped = score(name, after, before, after_true, before_true)
    assert swapped == pytest.approx(score(name, before, after, before_true, after_true), abs=1e-12)


def test_invalid_pixels_are_not_counted(name):
    maps = draw(6)
    valid = np.random.default_rng(6).random(maps[0].shape) < 0.5
    junk = (np.where(valid, m, 255) for m in maps)
    assert score(name, *junk, valid=valid) == score(name, *(m[valid] for m in maps))


def test_names_of_the_numbers():
    counts = np.ones((4, 4), np.int64)
    assert score_semantic_change(counts).keys() == KEYS_SECOND
    classes = {"iou_class_1", "iou_class_2", "iou_class_3"}
    headline = {"miou_change", "miou_semantic", "score", "iou_unchanged", "iou_changed"}
    assert score_ual(counts).keys() == headline | classes
    for name, metric in PROTOCOLS.items():
        assert metric.name == name
        assert all(type(v) is float for v in create_protocol(name, 2).compute().values())


def is_nan(numbers: dict[str, float]) -> set[str]:
    return {key for key, value in numbers.items() if math.isnan(value)}


def test_nothing_counted_has_no_value_but_kappa_zero(name):
    numbers = create_protocol(name, 3).compute()
    assert is_nan(numbers) == numbers.keys() - {"kappa"}
    assert numbers.get("kappa", 0.0) == 0


def test_no_change_in_either_map(name):
    zeros = np.zeros((3, 3), int)
    numbers = score(name, zeros, zeros, zeros, zeros)
    assert numbers["iou_unchanged"] == 1
    assert "iou_changed" in is_nan(numbers)
    assert "score" in is_nan(numbers)
    if name != "ual":
        assert numbers["kappa"] == 0
        assert numbers["overall_accuracy"] == 1
        assert {"fscd", "precision_scd", "recall_scd", "sek", "miou"} <= is_nan(numbers)


def test_change_missed_altogether(name):
    zeros, ones = np.zeros(4, int), np.array([1, 2, 0, 0])
    numbers = score(name, zeros, zeros, ones, ones)
    assert numbers["iou_changed"] == 0
    if name == "ual":
        assert "miou_semantic" in is_nan(numbers)
    else:
        assert numbers["fscd"] == numbers["recall_scd"] == numbers["sek"] == 0
        assert is_nan(numbers) == {"precision_scd"}


def test_a_single_class_has_kappa_zero_even_if_perfect():
    mask = np.array([0, 1, 1, 0])
    numbers = score("second", mask, mask, mask, mask, num_classes=1)
    assert numbers["iou_changed"] == numbers["fscd"] == 1
    assert numbers["kappa"] == numbers["sek"] == 0


def test_absent_classes_are_left_out_of_the_mean():
    maps = np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2])
    numbers = score("ual", maps[0], maps[0], maps[1], maps[1], num_classes=4)
    assert numbers["iou_class_1"] == 1 / 2
    assert numbers["iou_class_2"] == 2 / 3
    assert {"iou_class_3", "iou_class_4", "iou_unchanged"} <= is_nan(numbers)
    assert numbers["miou_semantic"] == pytest.approx(7 / 12)


def test_kappa_of_a_country_does_not_overflow():
    counts = np.array([[7, 2], [1, 5]], np.int64)
    assert measure_kappa(counts * 10**15) == pytest.approx(measure_kappa(counts), abs=1e-12)


def test_class_ious_of_counts_worked_by_hand():
    ious = measure_class_ious(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(ious, [3 / 4, 2 / 3, math.nan])


def test_refuses_what_it_cannot_score(name):
    metric = create_protocol(name, 3)
    with pytest.raises(ArgumentError, match="second, from-to, ual"):
        create_protocol("miou", 3)
    with pytest.raises(ArgumentError, match="num_classes is 0"):
        create_protocol(name, 0)
    with pytest.raises(ArgumentError, match=r"with 3 classes .* with 2"):
        metric.merge(create_protocol(name, 2))
    with pytest.raises(ArgumentError, match="cannot be added"):
        metric.merge(create_protocol("ual" if name == "second" else "second", 3))
    with pytest.raises(DataError, match="only 0 to 3"):
        metric.update(*np.full((4, 2, 2), 4))
    with pytest.raises(ArgumentError, match=r"\(2, 3\)"):
        measure_change(np.zeros((2, 3), int))


def test_metrics_need_no_torch():
    code = (
        "import sys, terradelta.evaluation.scoring_protocols;"
        "sys.exit('torch' in sys.modules or 'rasterio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
