"""Losses for semantic change detection: torch modules that work with anybody's network."""

from __future__ import annotations

from terradelta.losses.change import ChangeLoss
from terradelta.losses.objective import CONSISTENCY_LOSSES, ChangeObjective, ObjectiveParts
from terradelta.losses.semantic import SemanticLoss
from terradelta.losses.unchanged_area import (
    AgreementLoss,
    CosineChangeLoss,
    SquaredDifferenceLoss,
    UnchangedAreaLoss,
)

__all__ = [
    "CONSISTENCY_LOSSES",
    "AgreementLoss",
    "ChangeLoss",
    "ChangeObjective",
    "CosineChangeLoss",
    "ObjectiveParts",
    "SemanticLoss",
    "SquaredDifferenceLoss",
    "UnchangedAreaLoss",
]
