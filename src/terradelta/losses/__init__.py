"""Losses for semantic change detection: torch modules that work with any network."""

from __future__ import annotations

from terradelta.losses.change import ChangeLoss, FocalChangeLoss
from terradelta.losses.objective import (
    CHANGE_LOSSES,
    CONSISTENCY_LOSSES,
    ChangeObjective,
    ObjectiveParts,
    register_loss,
)
from terradelta.losses.overlap import DiceLoss, LovaszLoss
from terradelta.losses.semantic import SemanticLoss
from terradelta.losses.unchanged_area import (
    AgreementLoss,
    CosineChangeLoss,
    SquaredDifferenceLoss,
    UnchangedAreaLoss,
)

__all__ = [
    "CHANGE_LOSSES",
    "CONSISTENCY_LOSSES",
    "AgreementLoss",
    "ChangeLoss",
    "ChangeObjective",
    "CosineChangeLoss",
    "DiceLoss",
    "FocalChangeLoss",
    "LovaszLoss",
    "ObjectiveParts",
    "SemanticLoss",
    "SquaredDifferenceLoss",
    "UnchangedAreaLoss",
    "register_loss",
]
