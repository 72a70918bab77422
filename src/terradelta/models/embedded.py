"""The model that ships with the package, and the folders that a `model` argument names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from terradelta.models.bundle import load_card
from terradelta.models.card import ModelCard

DEFAULT_MODEL = Path(str(files("terradelta") / "weights" / "default"))


def find_model_folders(model: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Return the folders of a `model` argument, the embedded model's by default."""
    if model is None:
        return [DEFAULT_MODEL]
    return [model] if isinstance(model, str | Path) else list(model)


def load_cards(model: str | Path | Sequence[str | Path] | None) -> list[ModelCard]:
    """Return the cards of the models of a `model` argument.

    Raises:
        ModelError: If one of them is not a model.
    """
    return [load_card(folder) for folder in find_model_folders(model)]


def info(model: str | Path | None = None) -> ModelCard:
    """Return the card of a model.

    Args:
        model: Model folder; the embedded model by default.

    Raises:
        ModelError: If it is not a model.
    """
    return load_card(DEFAULT_MODEL if model is None else model)
