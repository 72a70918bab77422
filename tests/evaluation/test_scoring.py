import json

import numpy as np
import pytest

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.data.images import write_mask
from terradelta.errors import DataError
from terradelta.evaluation.scoring_protocols import create_protocol


def draw_masks(seed: int, noise: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """True and predicted masks of both dates; labels agree on where something changed."""
    rng = np.random.default_rng(seed)
    change = np.kron(rng.random((8, 8)) < 0.4, np.ones((8, 8), bool))
    true = [(np.kron(rng.integers(1, 7, (8, 8)), np.ones((8, 8), int)) * change) for _ in "ab"]
    flip = rng.random((64, 64)) < noise
    predicted = [np.where(flip, rng.integers(1, 7, (64, 64)), mask) for mask in true]
    return [m.astype(np.uint8) for m in true], [m.astype(np.uint8) for m in predicted]


@pytest.fixture
def masks(tmp_path):
    for number in range(4):
        for root, names, layers in zip(
            ("labels", "predictions"),
            (("label1", "label2"), ("before", "after")),
            draw_masks(number, 0.2),
            strict=True,
        ):
            for name, mask_HW in zip(names, layers, strict=True):
                write_mask(tmp_path / root / name / f"{number}.png", mask_HW, SENSEEARTH)
    return tmp_path


@pytest.mark.parametrize("protocol", ["second", "from-to", "ual"])
def test_folders_score_like_the_arrays_in_them(masks, protocol):
    counter = create_protocol(protocol, 6)
    for number in range(4):
        true, predicted = draw_masks(number, 0.2)
        counter.update(*predicted, *true)
    scores = td.score(masks / "predictions", masks / "labels", protocol=protocol)
    assert scores.numbers == counter.compute()
    assert scores.pairs == 4
    assert scores.to_dict()["protocol"] == protocol
    json.dumps(scores.to_dict(), allow_nan=False)


def test_truth_scores_one(masks):
    scores = td.score(masks / "labels", masks / "labels")
    assert scores.numbers["miou"] == scores.numbers["fscd"] == 1


def test_missing_extra_and_misfit_masks_are_named(masks):
    extra = masks / "predictions" / "before" / "9.png"
    write_mask(extra, np.zeros((64, 64), np.uint8), SENSEEARTH)
    with pytest.raises(DataError, match=r"9.png has no counterpart"):
        td.score(masks / "predictions", masks / "labels")
    write_mask(masks / "predictions" / "after" / "9.png", np.zeros((64, 64), np.uint8), SENSEEARTH)
    with pytest.raises(DataError, match=r"lacks 0 masks .* has 1 more \(9\)"):
        td.score(masks / "predictions", masks / "labels")
    for date in ("before", "after"):
        (masks / "predictions" / date / "9.png").unlink()
        write_mask(masks / "predictions" / date / "2.png", np.zeros((60, 64), np.uint8), SENSEEARTH)
    with pytest.raises(DataError, match=r"64 x 64 px and .* is 64 x 60 px"):
        td.score(masks / "predictions", masks / "labels")
    with pytest.raises(DataError, match="no masks of two dates"):
        td.score(masks, masks / "labels")
