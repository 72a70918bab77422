import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.calibration import (
    BINS,
    Reliability,
    draw_reliability,
    fit_change_calibration,
    fit_class_temperature,
)


def draw_binary(temperature, number=40_000, seed=0):
    """Logits of a network that is too sure by a factor, and what came true."""
    random = np.random.default_rng(seed)
    honest = random.normal(0, 2, number)
    return expit(honest * temperature), random.random(number) < expit(honest)


def test_the_calibration_error_is_torchmetrics_and_that_of_an_honest_forecast_is_small():
    stated, true = draw_binary(2.5)
    curve = Reliability()
    curve.update(stated[:1000], true[:1000])
    curve.update(stated[1000:], true[1000:])
    expected = binary_calibration_error(
        torch.from_numpy(stated), torch.from_numpy(true), n_bins=BINS, norm="l1"
    )
    assert curve.calibration_error == pytest.approx(float(expected), abs=1e-6)
    assert curve.calibration_error > 0.05
    honest = Reliability()
    honest.update(*draw_binary(1))
    assert honest.calibration_error < 0.01
    assert sum(row["pixels"] for row in honest.to_rows()) == 40_000


def test_certainty_falls_into_the_last_bin_and_nothing_is_undefined():
    curve = Reliability()
    assert math.isnan(curve.calibration_error)
    curve.update(np.array([1.0, 0.0]), np.array([True, True]))
    assert curve.number_S[[0, -1]].tolist() == [1, 1]
    assert curve.calibration_error == 0.5
    with pytest.raises(DataError, match=r"\(2,\) probabilities and \(3,\) outcomes"):
        curve.update(np.zeros(2), np.zeros(3, bool))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    stated, true = draw_binary(temperature)
    found, shift = fit_change_calibration(stated, true)
    assert found == pytest.approx(temperature, rel=0.05)
    assert shift == pytest.approx(0, abs=0.05)
    random = np.random.default_rng(1)
    honest_NK = random.normal(0, 2, (20_000, 4))
    chances_NK = softmax(honest_NK, axis=1)
    class_N = (chances_NK.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    stated_NK = softmax(honest_NK * temperature, axis=1)
    assert fit_class_temperature(stated_NK, class_N) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("shift", [-2.0, 1.5])
def test_change_that_is_stated_too_often_or_too_seldom_is_calibrated_as_scikit_learn_does(shift):
    random = np.random.default_rng(2)
    honest = random.normal(-1, 2, 30_000)
    stated, true = expit(2 * (honest - shift)), random.random(30_000) < expit(honest)
    temperature, found = fit_change_calibration(stated, true)
    assert temperature == pytest.approx(2, rel=0.05)
    assert found == pytest.approx(shift, abs=0.06)
    reference = LogisticRegression(C=np.inf).fit(logit(stated)[:, None], true)
    assert 1 / temperature == pytest.approx(float(reference.coef_[0, 0]), rel=1e-3)
    assert found == pytest.approx(float(reference.intercept_[0]), abs=1e-3)


def test_what_shows_nothing_is_refused_and_one_class_needs_no_temperature():
    with pytest.raises(ArgumentError, match="all pixels have changed, or none"):
        fit_change_calibration(np.full(3, 0.5), np.zeros(3, bool))
    with pytest.raises(ArgumentError, match="no pixel has a class"):
        fit_class_temperature(np.zeros((0, 3)), np.zeros(0, int))
    assert fit_class_temperature(np.ones((5, 1)), np.zeros(5, int)) == 1


def test_the_picture_is_drawn(tmp_path):
    curve = Reliability()
    curve.update(*draw_binary(2))
    draw_reliability({"change": curve, "empty": Reliability()}, tmp_path / "reliability.png")
    with Image.open(tmp_path / "reliability.png") as picture:
        width, height = picture.size
    assert width > height > 300
