"""Going on from a trained network: its weights, its classes, what cannot be asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.cli import main
from terradelta.data.images import read_mask, write_change_mask
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError
from terradelta.evaluation.model_scores import evaluate
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.reports.page import report
from terradelta.training.batches import load_data
from terradelta.training.config import TrainConfig
from terradelta.training.inferred_recipe import infer_plan
from terradelta.training.loop import train
from terradelta.training.network import adopt_architecture, build_network, load_start

QUICK = TrainConfig(
    start_from="default",
    epochs=1,
    batch_size=2,
    val_every=3,
    workers=0,
    picture_pairs=1,
    crop_size_px=64,
    # So small that the weights after the run are still recognisably those before it.
    learning_rate=1e-7,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "pairs"
    write_folders(folder, 6, seed=5, size_px=96)
    return folder


@pytest.fixture(scope="module")
def masks(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pairs as LEVIR would label them: A, B and a change mask."""
    folder = tmp_path_factory.mktemp("masks")
    (folder / "A").symlink_to(drawn / "im1")
    (folder / "B").symlink_to(drawn / "im2")
    (folder / "label").mkdir()
    for path in (drawn / "label1").iterdir():
        changed_HW = read_mask(path, SENSEEARTH) > 0
        write_change_mask(folder / "label" / path.name, changed_HW.astype("uint8"))
    return folder


def test_a_run_continues_from_the_weights_of_the_model(drawn: Path, tmp_path: Path):
    result = train(replace(QUICK, data=str(drawn)), tmp_path / "run")
    trained, start = load_model(result.folder / "best"), load_model(DEFAULT_MODEL)
    assert trained.card.architecture == start.card.architecture
    assert trained.card.scaling == start.card.scaling
    for name, parameter in start.network.named_parameters():
        torch.testing.assert_close(
            dict(trained.network.named_parameters())[name], parameter, atol=1e-4, rtol=1e-3
        )


def test_the_recipe_of_such_a_run_repeats_it(drawn: Path, tmp_path: Path):
    config = replace(QUICK, data=str(drawn))
    result = train(config, tmp_path / "run")
    recipe = TrainConfig.read_yaml(result.folder / "config.yaml")
    assert recipe.start_from == "default"
    assert recipe.encoder == load_model(DEFAULT_MODEL).card.architecture["encoder"]
    again = train(recipe, tmp_path / "again")
    assert again.scores == result.scores


def test_change_masks_leave_the_classes_as_they_are(masks: Path, tmp_path: Path):
    config = replace(QUICK, data=str(masks))
    data = load_data(config, classes=SENSEEARTH)
    assert data.training.pairs.classes == SENSEEARTH
    sample = data.training[0]
    assert not sample.before_labels_HW.any()
    assert set(sample.change_HW.unique().tolist()) == {0, 1}
    assert data.held_out.pairs.classes == BINARY

    result = train(config, tmp_path / "run")
    assert load_model(result.folder / "best").card.classes == SENSEEARTH
    # Masks cannot say which class was wrong, so the run's page says why it shows none.
    assert "names 1 classes, and the model 6" in report(result.folder).read_text()
    # The land cover of no pixel is labelled, so nothing pulls at it.
    log = (result.folder / "log.jsonl").read_text()
    assert '"loss_semantic_before": 0.0' in log


def test_a_model_of_many_classes_is_scored_on_change_masks_by_change_alone(
    drawn: Path, masks: Path
):
    by_mask = evaluate(DEFAULT_MODEL, masks, split="all").numbers
    by_class = evaluate(DEFAULT_MODEL, drawn, split="all").numbers
    assert by_mask["miou"] == pytest.approx(by_class["miou"])
    assert by_mask["iou_changed"] == pytest.approx(by_class["iou_changed"])


def test_other_classes_get_a_new_classifier_and_keep_the_rest(drawn: Path):
    config = adopt_architecture(replace(QUICK, data=str(drawn)), load_start(QUICK))
    start = load_start(QUICK)
    assert start is not None
    data = load_data(config)
    other = ClassTable.numbered(6)
    data.training.pairs = replace(data.training.pairs, classes=other)
    network, card = build_network(config, data, start)
    assert card.classes == other
    own, trained = network.state_dict(), start.network.state_dict()
    classifier = "semantic_head.classifier.weight"
    assert not torch.equal(own[classifier], trained[classifier])
    assert all(
        torch.equal(own[key], trained[key])
        for key in own
        if not key.startswith("semantic_head.classifier.")
    )


def test_the_recipe_may_name_the_model(drawn: Path, tmp_path: Path, capsys):
    recipe = tmp_path / "recipe.yaml"
    replace(QUICK, data=str(drawn)).write_yaml(recipe)
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(recipe)])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["start_from"] == "default"
    assert printed["encoder"] == load_model(DEFAULT_MODEL).card.architecture["encoder"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("model", "pspnet"), ("encoder", "hrnet_w18"), ("encoder_weights", "imagenet")],
)
def test_another_architecture_is_refused(option: str, value: str):
    with pytest.raises(ArgumentError, match=f"{option} {value} is requested"):
        adopt_architecture(replace(QUICK, **{option: value}), load_start(QUICK))


def test_images_of_other_bands_are_refused(drawn: Path):
    config = adopt_architecture(replace(QUICK, data=str(drawn)), load_start(QUICK))
    start = load_start(QUICK)
    assert start is not None
    card = replace(
        start.card,
        bands=("red",),
        architecture={**start.card.architecture, "in_channels": 1},
        scaling=replace(start.card.scaling, mean=(0.5,), std=(0.5,)),
    )
    with pytest.raises(ArgumentError, match="3 bands, and the model to start from reads red"):
        build_network(config, load_data(config), replace(start, card=card))


def test_the_plan_of_change_masks_weighs_the_classes_of_the_model(masks: Path):
    plan = infer_plan(replace(QUICK, data=str(masks), crop_size_px=None))
    assert plan.config.class_weights is None or len(plan.config.class_weights) == 6
