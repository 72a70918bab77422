"""A model that decides by the probability of the whole transition, at three sensitivities."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import rasterio
import torch
from tests.flat_options import predict_flat
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.cli import main
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.inference.export import DeepnessGraph, PairGraph
from terradelta.inference.folders import ImageProbabilities
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model, save_model

SENSITIVITIES = ("find-all", "balanced", "few-alarms")


@pytest.fixture(scope="module")
def model():
    model = load_model(DRAWN_MODEL)
    card = replace(
        model.card,
        decided_by="transition",
        same_class_changes=False,
        change_threshold=0.4,
        sensitivities={"few-alarms": 0.7, "find-all": 0.15},
    )
    return replace(model, card=card)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_geotiff_pair(folder, 5, (300, 420))
    return folder


@pytest.fixture(scope="module")
def maps(model, scene, tmp_path_factory):
    """The prediction of each sensitivity."""
    folder = tmp_path_factory.mktemp("maps")
    save_model(model, folder / "model")
    rasters = scene / "before.tif", scene / "after.tif"
    return {
        name: predict_flat(*rasters, folder / name, model=folder / "model", sensitivity=name)
        for name in SENSITIVITIES
    }


def read(prediction, layer):
    with rasterio.open(prediction.folder / f"{layer}.tif") as dataset:
        return dataset.read(1)


def test_a_higher_sensitivity_only_adds_change(maps):
    changed = [read(maps[name], "before_class") for name in SENSITIVITIES]
    shares = [(part > 0).mean() for part in changed]
    assert 0.9 > shares[0] > shares[1] > shares[2] > 0
    for more, less in pairwise(changed):
        assert (more[less > 0] == less[less > 0]).all()


def test_no_change_is_less_probable_than_its_threshold(maps):
    for name, percent in zip(SENSITIVITIES, (15, 40, 70), strict=True):
        changed_HW = read(maps[name], "before_class") > 0
        assert read(maps[name], "confidence")[changed_HW].min() >= percent


def test_the_run_says_by_what_it_was_decided(maps):
    for name, threshold in zip(SENSITIVITIES, (0.15, 0.4, 0.7), strict=True):
        said = td.PredictionFolder(maps[name].folder).read_run().parameters
        assert (said.sensitivity, said.decided_by) == (name, "transition")
        assert said.change_threshold == threshold
    page = (maps["few-alarms"].folder / "report.html").read_text()
    assert "few-alarms" in page


@pytest.mark.parametrize("same_class", [True, False])
def test_scores_and_deepness_decide_as_the_map_does(model, scene, same_class):
    model = replace(model, card=replace(model.card, same_class_changes=same_class))
    images = []
    for name in ("before", "after"):
        with rasterio.open(scene / f"{name}.tif") as dataset:
            images.append(torch.from_numpy(dataset.read()[None, :3, :160, :192]))
    predictor = Predictor([model], Runtime(backend="torch", precision="fp32", device="cpu"))
    (wanted,) = predictor.classify(*images)
    answer = ImageProbabilities(*(part[0].numpy() for part in predictor(*images)))
    scored = answer.decide(predictor.rule)
    with torch.inference_mode():
        values = torch.cat([image.float() for image in images], dim=1)
        assert PairGraph(model)(values)[2].shape == (1, 160, 192)
        drawn = [part.argmax(dim=1)[0].numpy() for part in DeepnessGraph(model)(values)]
    assert 0.01 < (wanted.before_HW > 0).mean() < 0.9
    for one in (scored, drawn):
        assert (one[0] == wanted.before_HW).mean() > 0.9999
        assert (one[1] == wanted.after_HW).mean() > 0.9999


def test_calibration_leaves_thresholds_of_whole_answers(model):
    from terradelta.evaluation.temperatures import calibrate_card
    from terradelta.models.card import Temperatures

    card = calibrate_card(model.card, Temperatures(2.0, 1.5, 0.5))
    own = model.card.temperatures
    assert card.temperatures == Temperatures(
        2.0 * own.change, 1.5 * own.classes, own.change_shift / 2 + 0.5
    )
    assert card.find_rule("few-alarms") == model.card.find_rule("few-alarms")
    by_change = calibrate_card(replace(model.card, decided_by="change"), Temperatures(2.0, 1.5))
    assert np.isclose(
        by_change.sensitivities["few-alarms"], torch.sigmoid(torch.tensor(0.7).logit() / 2)
    )


def test_a_model_without_such_a_threshold_says_which_it_has(scene, tmp_path, capsys):
    arguments = [str(scene / "before.tif"), str(scene / "after.tif"), "-o", str(tmp_path / "out")]
    arguments += ["--model", str(DRAWN_MODEL), "--sensitivity", "few-alarms"]
    with pytest.raises(SystemExit) as ended:
        main(["predict", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no threshold for --sensitivity few-alarms, but for balanced" in said
    assert not (tmp_path / "out").exists()


def test_thresholds_are_probabilities(model):
    with pytest.raises(td.TerradeltaError, match=r"threshold \(find-all\) is 1.5"):
        replace(model.card, sensitivities={"find-all": 1.5})
