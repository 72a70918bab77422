"""A close look at the embedded model on drawn pairs, against what evaluate and predict say."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from tests.flat_options import sort_options

import terradelta as td
from terradelta.data.dataset import ChangeDataset
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import OutputExistsError
from terradelta.evaluation.diagnosis import diagnose
from terradelta.evaluation.scoring_protocols import PROTOCOLS
from terradelta.evaluation.temperatures import calibrate_card
from terradelta.inference.folders import ImageProbabilities
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import Model, load_model, save_model
from terradelta.models.card import Temperatures
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train

PAIRS, SIZE_PX = 8, 96
EXACT = {"backend": "torch", "precision": "fp32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    write_folders(root, PAIRS, seed=3, size_px=SIZE_PX)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A small model that knows a little, and is too sure or not sure enough."""
    config = TrainConfig(
        data=str(data), encoder="resnet18_slim", epochs=5, batch_size=2, learning_rate=1e-3, seed=5
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run").folder / "last"


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.fixture(scope="module")
def diagnosis(trained, data):
    predictor = Predictor([load_model(trained)], **sort_options(EXACT))
    return diagnose(predictor, ChangeDataset(find_pairs(data)))


def test_it_counts_what_evaluate_counts(diagnosis, trained, data):
    for protocol in PROTOCOLS:
        expected = td.evaluate(
            trained, data, **sort_options(EXACT, split="all", protocol=protocol)
        ).numbers
        assert diagnosis.protocols[protocol].compute() == pytest.approx(expected, nan_ok=True)
    ious = [row["iou"] for row in diagnosis.list_class_ious()[1:]]
    numbers = diagnosis.protocols["ual"].compute()
    # The ual protocol looks at classes where both maps say changed, this table everywhere.
    assert len(ious) == 6 == sum(name.startswith("iou_class") for name in numbers)
    rows = diagnosis.list_transitions()
    counts_II = diagnosis.protocols["from-to"].counts
    assert sum(row["true_px"] for row in rows) == counts_II[:, 1:].sum() > 0
    assert sum(row["right_px"] for row in rows) == np.trace(counts_II[1:, 1:])
    assert all(row["from"] != "unchanged" != row["to"] for row in rows)


def test_every_pixel_is_in_the_curves_of_change_and_answer(diagnosis):
    pixels = PAIRS * SIZE_PX**2
    assert diagnosis.change.number_S.sum() == diagnosis.answer.number_S.sum() == pixels
    changed = diagnosis.protocols["second"].counts[:, 1:].sum()
    assert diagnosis.land_cover.number_S.sum() == changed
    # A whole answer is right no more often than its part about change.
    right = diagnosis.protocols["from-to"].counts.trace()
    assert diagnosis.answer.true_S.sum() == right


def test_files_are_whole_and_json(diagnosis, tmp_path):
    diagnosis.write(tmp_path)
    fields = json.loads((tmp_path / "diagnosis.json").read_text())
    assert fields["pairs"] == PAIRS
    assert set(fields["calibration"]) == {"change", "land cover", "answer"}
    rows = list(csv.DictReader((tmp_path / "class_iou.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == list(td.SENSEEARTH.names)
    assert (tmp_path / "reliability.png").stat().st_size > 1000
    assert (tmp_path / "transitions.csv").read_text().startswith("from,to,true_px")


def test_calibration_is_better_and_leaves_the_map_as_it_is(model, data, diagnosis, tmp_path):
    before = td.evaluate(model, data, **sort_options(EXACT, split="all")).numbers
    fitted = td.calibrate(model, data, split="all", **EXACT)
    card = load_model(model).card
    assert card.temperatures == fitted != Temperatures()
    assert card.change_threshold == pytest.approx(expit(fitted.change_shift))
    assert td.evaluate(model, data, **sort_options(EXACT, split="all")).numbers == before
    predictor = Predictor([load_model(model)], **sort_options(EXACT))
    after = diagnose(predictor, ChangeDataset(find_pairs(data)))
    # What is minimized is cross entropy; fitted again, nothing is left to do.
    again = after.fit_temperatures()
    assert (again.change, again.classes) == pytest.approx((1, 1), rel=0.02)
    assert again.change_shift == pytest.approx(0, abs=0.02)


def test_calibrating_keeps_what_counts_as_changed_at_any_threshold(trained, data):
    model = load_model(trained)
    model = replace(model, card=replace(model.card, change_threshold=0.3))
    hot = replace(model, card=calibrate_card(model.card, Temperatures(2.5, 1.7, 0.4)))
    sample = ChangeDataset(find_pairs(data))[3]
    images = sample.before_CHW[None], sample.after_CHW[None]
    maps = [Predictor([m], **sort_options(EXACT)).classify(*images)[0] for m in (model, hot)]
    assert (maps[0].before_HW == maps[1].before_HW).all()
    assert (maps[0].after_HW == maps[1].after_HW).all()
    plain, cooled = (Predictor([m], **sort_options(EXACT))(*images) for m in (model, hot))
    # Nearer to 1 float32 keeps too few digits of a logit.
    clear_BHW = (plain.change_BHW > 1e-30) & (plain.change_BHW < 0.999)
    logits, plain_logits = (p.change_BHW[clear_BHW].logit() for p in (cooled, plain))
    assert len(logits) > SIZE_PX
    torch.testing.assert_close((logits - 0.4) * 2.5, plain_logits, rtol=1e-3, atol=1e-3)
    expected = (plain.before_BKHW.log() / 1.7).softmax(dim=1)
    torch.testing.assert_close(cooled.before_BKHW, expected, rtol=1e-4, atol=1e-5)


def test_temperatures_outlive_saving_and_older_cards_have_none(trained, tmp_path):
    model = load_model(trained)
    card = replace(model.card, temperatures=Temperatures(2.0, 0.5, -1.0))
    save_model(Model(model.network, card), tmp_path / "hot")
    assert load_model(tmp_path / "hot").card == card
    fields = card.to_dict()
    del fields["temperatures"]
    assert type(card).from_dict(fields).temperatures == Temperatures()
    with pytest.raises(td.TerradeltaError, match="temperature of change is 0"):
        Temperatures(change=0)


def test_a_vote_and_views_cannot_be_calibrated(trained, data):
    with pytest.raises(TypeError, match="tta"):
        td.calibrate(trained, data, tta="flips")  # pyright: ignore[reportCallIssue]
    with pytest.raises(td.TerradeltaError, match="is not a model"):
        td.calibrate(f"{trained},{trained}", data)


def test_the_output_of_evaluate_is_of_the_maps_it_scores(trained, data, diagnosis, tmp_path):
    options = {"split": "all", "bootstrap": 100, **EXACT}
    scores = td.evaluate(trained, data, **sort_options(options, output=tmp_path / "seen"))
    assert scores == td.evaluate(trained, data, **sort_options(options))
    seen = json.loads((tmp_path / "seen" / "diagnosis.json").read_text())
    assert seen == json.loads(json.dumps(diagnosis.to_dict()))


def test_nothing_is_lost_and_nothing_left_where_evaluate_fails(trained, data, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").touch()
    with pytest.raises(OutputExistsError):
        td.evaluate(trained, data, split="all", output=tmp_path / "there")
    with pytest.raises(td.TerradeltaError, match="1 image is too few"):
        td.evaluate(trained, data, split="val", bootstrap=100, output=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_probability_that_is_just_the_threshold_counts_as_changed_as_in_predict(trained, data):
    model = load_model(trained)
    sample = ChangeDataset(find_pairs(data))[0]
    images = sample.before_CHW[None], sample.after_CHW[None]
    some = Predictor([model], **sort_options(EXACT))(*images).change_BHW[0, 40, 50].item()
    assert 0 < some < 1
    model = replace(model, card=replace(model.card, change_threshold=some))
    predictor = Predictor([model], **sort_options(EXACT))
    answer = ImageProbabilities(*(part[0].numpy() for part in predictor(*images)))
    before_HW, after_HW, confidence_HW = answer.decide(predictor.rule)
    assert before_HW[40, 50] > 0
    (maps,) = predictor.classify(*images)
    assert (before_HW == maps.before_HW).all()
    assert (after_HW == maps.after_HW).all()
    assert np.abs(100 * confidence_HW - maps.confidence_HW).max() <= 0.51
