"""Weights of the land-cover classes in the semantic loss, by rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.errors import ArgumentError
from terradelta.training.config import TrainConfig

REFERENCE_CLASS_WEIGHTS = (2.0, 1.0, 2.0, 2.0, 1.0, 1.0)


def choose_class_weights(
    config: TrainConfig, classes: ClassTable, count: Callable[[], np.ndarray]
) -> tuple[float, ...] | None:
    """Return the weights that a recipe asks for on these classes; None means all 1.

    Args:
        config: The recipe.
        classes: The classes.
        count: Returns the number of pixels of each of them, (K,); called if the rule needs it.

    Raises:
        ArgumentError: If the number of given weights is not that of the classes.
    """
    if config.class_weights is not None:
        if len(config.class_weights) != classes.num_classes:
            raise ArgumentError(
                f"{len(config.class_weights)} class weights for {classes.num_classes} classes "
                f"({', '.join(classes.names[1:])})",
                fix="give one weight per class",
            )
        return config.class_weights
    if config.class_weight_rule == "reference":
        return REFERENCE_CLASS_WEIGHTS if classes == SENSEEARTH else None
    if config.class_weight_rule == "equal":
        return None
    return weigh_by_count(count(), config.class_weight_rule)


def weigh_by_count(pixels_K: np.ndarray, rule: str) -> tuple[float, ...]:
    """Return weights by the number of pixels of each class; their mean over the pixels is 1.

    "inverse" is 1 / n, "inverse-root" 1 / sqrt(n), "median" median(n) / n (Eigen and Fergus,
    "Predicting depth, surface normals and semantic labels", 2015) without the last step: in it, the
    class of median frequency has the weight 1. A class without pixels gets 1.
    """
    occurs_K = pixels_K > 0
    counts = pixels_K[occurs_K].astype(np.float64)
    raw = counts**-0.5 if rule == "inverse-root" else 1 / counts
    raw = raw * (np.median(counts) if rule == "median" else counts.sum() / (raw * counts).sum())
    weights_K = np.ones(len(pixels_K))
    weights_K[occurs_K] = raw
    return tuple(weights_K.tolist())
