"""Pseudo-labels on drawn scenes, whose land cover is known everywhere."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.flat_options import sort_options
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.data.dataset import ChangeDataset
from terradelta.data.images import read_change_mask, read_mask, write_change_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, OutputExistsError
from terradelta.inference.folders import ImagePair, find_probabilities, predict_images
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.training.pseudo_labels import VotingRule, label_unchanged, vote
from terradelta.training.rounds import pseudo_label

RULE = VotingRule(confidence=0.6, views="none")
GROUND = td.SENSEEARTH.names.index("ground")
TRAINED = str(DRAWN_MODEL)
RECIPE = td.TrainConfig(encoder="resnet18_slim", epochs=1, batch_size=2, workers=0, picture_pairs=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs laid out as SECOND, whose ground is said to be of one class everywhere in full1/."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    for split, pairs, seed in (("train", 3, 0), ("val", 2, 1), ("test", 4, 5)):
        write_folders(root / split, pairs, seed=seed, size_px=96)
    (root / "train" / "full1").mkdir()
    for pair in find_pairs(root, "train").pairs:
        ids_HW = np.full((96, 96), GROUND, np.uint8)
        write_mask(root / "train" / "full1" / f"{pair.name}.png", ids_HW, td.SENSEEARTH)
    return root


@pytest.fixture(scope="module")
def labelled(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("labels") / "out"
    return output, label_unchanged([TRAINED], data, output, RULE)


def test_a_vote_is_what_a_loop_over_pixels_finds():
    random = np.random.default_rng(0)
    ground_KHW = random.dirichlet((0.4,) * 3, (9, 9)).transpose(2, 0, 1)
    noise = random.dirichlet((0.4,) * 3, (2, 2, 9, 9)).transpose(0, 1, 4, 2, 3)
    answers = [tuple(0.6 * ground_KHW + 0.4 * date_KHW for date_KHW in model) for model in noise]
    for agreement in ("dates", "models"):
        ballot = vote(answers, VotingRule(0.6, agreement))
        for row, column in np.ndindex(9, 9):
            dates = [np.mean([a[date][:, row, column] for a in answers], axis=0) for date in (0, 1)]
            named = {int(mean.argmax()) for mean in dates}
            if agreement == "models":
                named |= {int(date[:, row, column].argmax()) for a in answers for date in a}
            sure = min(max(mean) for mean in dates) >= 0.6
            agreed = len(named) == 1
            assert ballot.ids_HW[row, column] == (min(named) + 1 if agreed and sure else 0)
            assert ballot.disagrees_HW[row, column] == (not agreed)
            assert ballot.doubts_HW[row, column] == (agreed and not sure)
        assert (ballot.ids_HW > 0).any()
        assert ballot.doubts_HW.any()


def test_the_labels_that_were_there_are_kept_and_unchanged_ground_gets_one_class(labelled, data):
    output, _ = labelled
    old = ChangeDataset(find_pairs(data, "train"))
    new = ChangeDataset(find_pairs(output / "data.csv", "train"))
    assert len(old) == len(new) == 3
    for before, after in zip(old, new, strict=True):
        changed_HW = before.change_HW > 0
        assert torch.equal(before.change_HW, after.change_HW)
        assert torch.equal(before.before_CHW, after.before_CHW)
        for date in ("before_labels_HW", "after_labels_HW"):
            assert torch.equal(getattr(before, date)[changed_HW], getattr(after, date)[changed_HW])
        unchanged = after.before_labels_HW[~changed_HW], after.after_labels_HW[~changed_HW]
        assert torch.equal(*unchanged)
        assert (unchanged[0] > 0).any()


def test_validation_and_test_pairs_stay_as_they_are(labelled, data):
    output, _ = labelled
    for split, number in (("val", 2), ("test", 4)):
        old, new = (find_pairs(root, split).pairs for root in (data, output / "data.csv"))
        assert len(old) == len(new) == number
        for before, after in zip(old, new, strict=True):
            assert before.name == after.name
            assert before.before_label.samefile(after.before_label)
            assert before.after.samefile(after.after)


def test_the_report_counts_what_was_written(labelled, data):
    output, report = labelled
    masks = [read_mask(path, td.SENSEEARTH) for path in sorted((output / "label1").iterdir())]
    changes = [read_change_mask(path) for path in sorted((output / "change_mask").iterdir())]
    added = np.concatenate([m[c == 0] for m, c in zip(masks, changes, strict=True)])
    assert report.unlabelled_px == len(added)
    assert report.added_px == (added > 0).sum() > 0
    assert report.added_px + report.disagreed_px + report.doubted_px == report.unlabelled_px
    assert report.added_by_class.tolist() == np.bincount(added, minlength=7)[1:].tolist()
    assert report.known_px == report.added_px
    assert report.accuracy == pytest.approx((added == GROUND).sum() / (added > 0).sum())
    assert 0 < report.accuracy < 1
    assert report.held_out_px > 0
    written = json.loads((output / "pseudo_labels.json").read_text())
    assert written["rule"] == {"confidence": 0.6, "agreement": "dates", "views": "none"}
    assert written["added_by_class_px"]["ground"] == report.added_by_class[GROUND - 1]


def test_a_higher_floor_and_a_stricter_rule_add_less(labelled, data, tmp_path):
    _, report = labelled
    strict = label_unchanged([TRAINED], data, tmp_path / "floor", replace(RULE, confidence=0.95))
    assert strict.added_px < report.added_px
    assert strict.disagreed_px == report.disagreed_px


def test_probabilities_of_an_image_are_those_its_map_is_made_of():
    options = {"backend": "torch", "precision": "fp32", "tile_size": 384}
    predictor = Predictor([load_model(TRAINED)], **sort_options(options))
    pair = td.draw_pair(seed=1, size_px=(400, 450))
    images = [torch.from_numpy(image_CHW) for image_CHW in (pair.before_CHW, pair.after_CHW)]
    answer = find_probabilities(predictor, *images)
    maps = predict_images(predictor, ImagePair(pair.before_CHW, pair.after_CHW))
    assert maps[0].any()
    changed_HW = answer.change_HW >= predictor.rule.threshold
    for date_KHW, map_HW in zip(answer, maps, strict=False):
        assert (np.where(changed_HW, date_KHW.argmax(axis=0) + 1, 0) == map_HW).all()
        assert date_KHW.sum(axis=0) == pytest.approx(1, abs=1e-5)


def test_rounds_train_on_the_labels_and_the_new_model_votes_next(data, tmp_path):
    output = tmp_path / "out"
    options = {"rounds": 2, "models_per_round": 2}
    rounds = pseudo_label([TRAINED], data, output, RECIPE, RULE, **options)
    assert rounds[0].report["models"] == [TRAINED]
    runs = [output / "round-1" / f"run-{seed}" for seed in (0, 1)]
    assert rounds[1].report["models"] == [str(run / "best") for run in runs]
    card = load_model(runs[1] / "last").card
    assert card.training["data"].endswith("data.csv")
    assert card.training["class_weight_rule"] == "equal"
    assert rounds[1].results[0].test_scores is not None
    scores = rounds[1].results[1].test_scores
    shutil.rmtree(output / "round-2" / "run-1")
    (output / "round-2" / "labels" / "kept.txt").touch()
    again = pseudo_label([TRAINED], data, output, RECIPE, RULE, **options, resume=True)
    assert again[1].results[1].test_scores["second"] == pytest.approx(scores["second"])
    assert (output / "round-2" / "labels" / "kept.txt").exists()
    other = replace(RULE, confidence=0.7)
    with pytest.raises(ArgumentError, match=r"resume with the same options"):
        pseudo_label([TRAINED], data, output, RECIPE, other, **options, resume=True)
    with pytest.raises(OutputExistsError):
        pseudo_label([TRAINED], data, output, RECIPE, RULE, **options)


def test_what_cannot_be_labelled_is_refused_before_anything_is_written(data, tmp_path):
    binary = tmp_path / "binary"
    for old, new in (("im1", "A"), ("im2", "B"), ("label1", "label")):
        shutil.copytree(data / "test" / old, binary / new)
    for path in (binary / "label").iterdir():
        write_change_mask(path, (read_mask(path, td.SENSEEARTH) > 0).astype(np.uint8))
    with pytest.raises(ArgumentError, match="one class"):
        label_unchanged([TRAINED], binary, tmp_path / "out", RULE)
    with pytest.raises(ArgumentError, match="confidence floor is 1"):
        VotingRule(confidence=1.5)
    with pytest.raises(ArgumentError, match="'everyone' is not known"):
        VotingRule(agreement="everyone")
    with pytest.raises(ArgumentError, match="rounds is 0"):
        pseudo_label([TRAINED], data, tmp_path / "out", RECIPE, RULE, rounds=0)
    assert not (tmp_path / "out").exists()
