"""Pixels that nobody could label: 255 in a land-cover mask, from the file to loss and score.

Legend of the array names: H rows, W columns.
"""

import shutil

import numpy as np
import pytest
import torch
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.data.dataset import ChangeDataset
from terradelta.data.doctor import examine, repair
from terradelta.data.images import IGNORE, read_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import DataError
from terradelta.evaluation.diagnosis import diagnose
from terradelta.evaluation.model_scores import answer_pair, count_dataset
from terradelta.evaluation.scoring_protocols import create_protocol
from terradelta.inference.predictor import Predictor
from terradelta.losses.objective import ChangeObjective
from terradelta.models.bundle import load_model
from terradelta.models.change_network import ChangeOutput
from terradelta.training.pseudo_labels import VotingRule, label_unchanged

SIZE_PX = 96
HOLE = slice(20, 70), slice(10, 60)


@pytest.fixture
def whole(tmp_path):
    """Drawn pairs, fully labelled, in the three splits."""
    root = tmp_path / "whole"
    for seed, split in enumerate(("train", "val", "test")):
        write_folders(root / split, 3, seed=seed, size_px=SIZE_PX)
    return root


@pytest.fixture
def holed(whole, tmp_path):
    """The same with a part that is ignored before, and a smaller part after."""
    root = shutil.copytree(whole, tmp_path / "holed")
    for path in root.glob("*/label1/*.png"):
        ids_HW = read_mask(path, SENSEEARTH)
        ids_HW[HOLE] = IGNORE
        write_mask(path, ids_HW, SENSEEARTH, may_ignore=True)
    return root


def mark_hole() -> np.ndarray:
    hole_HW = np.zeros((SIZE_PX, SIZE_PX), bool)
    hole_HW[HOLE] = True
    return hole_HW


def open_dataset(root, split: str = "val") -> ChangeDataset:
    return ChangeDataset(find_pairs(root, split))


def test_an_ignored_pixel_has_no_class_and_its_change_is_not_known(whole, holed):
    for full, sample in zip(open_dataset(whole), open_dataset(holed), strict=True):
        hole_HW = mark_hole()
        assert (sample.change_HW.numpy()[hole_HW] == -1).all()
        assert (sample.before_labels_HW.numpy()[hole_HW] == 0).all()
        for name in ("before_labels_HW", "after_labels_HW", "change_HW"):
            kept, all_of_it = getattr(sample, name).numpy(), getattr(full, name).numpy()
            assert (kept[~hole_HW] == all_of_it[~hole_HW]).all()


def test_no_loss_looks_at_an_ignored_pixel_before(holed):
    sample = open_dataset(holed)[0]
    random = torch.Generator().manual_seed(0)
    semantic = [
        torch.randn(1, 6, SIZE_PX, SIZE_PX, generator=random, requires_grad=True) for _ in "ab"
    ]
    change = torch.randn(1, SIZE_PX, SIZE_PX, generator=random, requires_grad=True)
    labels = (sample.before_labels_HW, sample.after_labels_HW, sample.change_HW)
    for consistency in ("ual", "ual-probability", "cosine", "mse"):
        objective = ChangeObjective(consistency)
        output = ChangeOutput(*semantic, change)
        loss = objective(output, *(part[None] for part in labels)).total
        gradients = torch.autograd.grad(loss, (semantic[0], change))
        for gradient in gradients:
            by_pixel_HW = gradient.abs().sum(dim=tuple(range(gradient.ndim - 2)))
            assert by_pixel_HW[HOLE].sum() == 0
            assert by_pixel_HW.sum() > 0


def test_scores_are_those_of_the_other_pixels(holed, tmp_path):
    predictor, dataset = Predictor([load_model(DRAWN_MODEL)]), open_dataset(holed)
    full = open_dataset(holed.with_name("whole"))
    kept_HW = ~mark_hole()
    wanted = create_protocol("from-to", 6)
    for sample, complete in zip(dataset, full, strict=True):
        maps = answer_pair(predictor, dataset, sample)
        is_changed_HW = complete.change_HW.numpy() == 1
        true = [
            np.where(is_changed_HW, labels_HW.numpy(), 0)
            for labels_HW in (complete.before_labels_HW, complete.after_labels_HW)
        ]
        wanted.update(*(part_HW[kept_HW] for part_HW in (*maps, *true)))
        for folder, map_HW in zip(("im1", "im2"), maps, strict=True):
            name = dataset.pairs.pairs[int(sample.index)].name
            write_mask(tmp_path / "maps" / folder / f"{name}.png", map_HW, SENSEEARTH)
    numbers = wanted.compute()
    assert count_dataset(predictor, dataset, "from-to").metric.compute() == numbers
    assert diagnose(predictor, dataset).protocols["from-to"].compute() == numbers
    labels = tmp_path / "labels"
    for folder in ("label1", "label2"):
        shutil.copytree(holed / "val" / folder, labels / folder)
    assert td.score(tmp_path / "maps", labels, protocol="from-to").numbers == numbers


def test_probabilities_of_ignored_pixels_are_not_rated(whole, holed):
    """The same as of pairs whose ignored part was cut off."""
    predictor = Predictor([load_model(DRAWN_MODEL)])
    diagnosis = diagnose(predictor, open_dataset(holed))
    counted = diagnosis.change.number_S.sum()
    assert counted == 3 * (SIZE_PX**2 - mark_hole().sum())
    assert diagnose(predictor, open_dataset(whole)).change.number_S.sum() == 3 * SIZE_PX**2


def test_the_doctor_accepts_ignored_pixels_and_keeps_them(holed, tmp_path):
    report = examine(holed)
    found = {finding.code: finding.level for finding in report.findings}
    assert {code: level for code, level in found.items() if code.startswith("mask-")} == {
        "mask-no-class": "WARN"  # all that changed in some pairs is ignored
    }
    image = holed / "train/im1/00000.png"
    image.write_bytes(image.read_bytes()[:300])
    copy = repair(holed, tmp_path / "copy")
    kept = read_mask(copy / "train/label1/00001.png", SENSEEARTH, may_ignore=True)
    assert (kept[HOLE] == IGNORE).all()


def test_pseudo_labels_leave_ignored_pixels_ignored(holed, tmp_path):
    output = tmp_path / "voted"
    label_unchanged([str(DRAWN_MODEL)], holed, output, VotingRule(0.3, views="none"))
    hole_HW = mark_hole()
    for sample in ChangeDataset(find_pairs(output / "data.csv", "train")):
        assert ((sample.change_HW.numpy() == -1) == hole_HW).all()
        assert (sample.before_labels_HW.numpy()[~hole_HW] > 0).any()


def test_change_masks_in_the_place_of_land_cover_are_refused(whole):
    """There 255 is not ignored but changed."""
    for path in whole.glob("train/label?/*.png"):
        ids_HW = read_mask(path, SENSEEARTH)
        write_mask(path, np.where(ids_HW > 0, IGNORE, 0), SENSEEARTH, may_ignore=True)
    with pytest.raises(DataError, match="only 0 and 255") as caught:
        open_dataset(whole, "train")
    assert "named label" in caught.value.fix


def test_a_mask_without_any_class_is_fine_among_others(whole):
    path = whole / "train/label1/00001.png"
    nothing_HW = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    nothing_HW[HOLE] = IGNORE
    write_mask(path, nothing_HW, SENSEEARTH, may_ignore=True)
    assert (open_dataset(whole, "train")[1].change_HW[HOLE] == -1).all()
