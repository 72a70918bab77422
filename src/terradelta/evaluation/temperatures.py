"""Temperatures of a model's probabilities, fitted on labelled pairs and stored in its card."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from terradelta.data.layouts import Split
from terradelta.evaluation.diagnosis import diagnose
from terradelta.evaluation.model_scores import prepare
from terradelta.inference.prediction_options import BackendName, PrecisionName, Runtime
from terradelta.models.bundle import load_card, replace_card
from terradelta.models.card import ModelCard, Temperatures


def calibrate(
    model: str | Path,
    data: str | Path,
    *,
    split: Split = "val",
    device: str = "auto",
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
) -> Temperatures:
    """Store temperatures in a model, fitted on labelled pairs.

    The maps of a model that decides by change stay the same. One that decides by transition keeps
    its thresholds, as these are probabilities of a whole answer: choose them after calibration.

    Temperature scaling of the classes (Guo et al. 2017, On Calibration of Modern Neural Networks),
    Platt scaling of change (Platt 1999): also a shift, as a model may find change too probable
    everywhere. A temperature
    belongs to one model without test-time views: calibrate each model alone, then let them vote.

    Args:
        model: Model folder.
        data: A data set folder in a known layout, or a CSV.
        split: "train", "val", "test" or "all".
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: Runtime of the network; see `evaluate`.
        precision: "auto", "fp32", "bf16", "fp16" or "int8".

    Returns:
        The new corrections of the logits, in addition to the earlier ones.

    Raises:
        TerradeltaError: If the model or the data cannot be used, or the pairs have nothing to
            calibrate on.
    """
    runtime = Runtime(device=device, backend=backend, precision=precision)
    prepared = prepare(model, data, split, runtime)
    fitted = diagnose(*prepared).fit_temperatures()
    replace_card(model, calibrate_card(load_card(model), fitted))
    return fitted


def calibrate_card(card: ModelCard, fitted: Temperatures) -> ModelCard:
    """Return a card with temperatures combined with its own; see `calibrate`."""
    card = replace(card, temperatures=card.temperatures.then(fitted))
    if card.decided_by == "transition":
        return card

    def move(threshold: float) -> float:
        logit = math.log(threshold / (1 - threshold))
        return 1 / (1 + math.exp(-logit / fitted.change - fitted.change_shift))

    return replace(
        card,
        change_threshold=move(card.change_threshold),
        sensitivities={name: move(value) for name, value in card.sensitivities.items()},
    )
