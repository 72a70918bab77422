"""Give the classes of a trained network their own frequencies back.

A class that weighs w in the loss is told w times as readily as its probability deserves (Elkan,
"The foundations of cost-sensitive learning", 2001): a network whose rare classes weighed more sees
water in shadows. Taking a share of log w off the logits undoes that share of it, without training.
Which share is best is seen on validation pairs.

Legend of the array names: K classes.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch

from terradelta.data.dataset import ChangeDataset
from terradelta.data.layouts import find_pairs
from terradelta.evaluate.scoring import evaluate_dataset
from terradelta.models.bundle import Model
from terradelta.predict.engine import Predictor
from terradelta.train.class_weights import choose_class_weights
from terradelta.train.config import TrainConfig

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def undo_class_weights(model: Model, recipe: TrainConfig, pairs: Path) -> tuple[Model, float]:
    """Return the model that tells classes best on validation pairs, and the share undone.

    Args:
        model: A trained model and its threshold.
        recipe: What it was trained by.
        pairs: The CSV of its pairs, with a validation split.
    """
    weights = choose_class_weights(recipe, find_pairs(pairs, split="train"))
    if weights is None:
        return model, 0.0
    log_weights_K = torch.tensor(weights).log()
    dataset = ChangeDataset(find_pairs(pairs, split="val"))
    scores: dict[float, float] = {}
    models = {share: shift_classes(model, -share * log_weights_K) for share in SHARES}
    for share, shifted in models.items():
        scores[share] = evaluate_dataset(Predictor([shifted]), dataset, "second")["fscd"]
        logging.info(
            "fscd with %.0f %% of the class weights undone: %.4f", 100 * share, scores[share]
        )
    best = max(scores, key=scores.__getitem__)
    return models[best], best


def shift_classes(model: Model, logits_K: torch.Tensor) -> Model:
    """Return a model whose land-cover logits are shifted, the same at both dates."""
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        network.semantic_head.classifier.bias += logits_K
    return Model(network, model.card)
