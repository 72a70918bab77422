"""The inputs that models need."""

from __future__ import annotations

from collections.abc import Sequence

from terradelta.geo.pair_options import ModelNeeds
from terradelta.models.card import ModelCard


def describe_needs(cards: Sequence[ModelCard]) -> ModelNeeds:
    """Return what models that vote must be given.

    Args:
        cards: Of models of the same bands, at least one.

    Returns:
        Their bands, the brightest value that any of them knows, and the pixels on the ground that
        all of them know; None if one is silent.
    """
    ranges = [card.resolution_m for card in cards]
    known = [span for span in ranges if span is not None]
    resolution_m = None
    if len(known) == len(ranges):
        resolution_m = max(least for least, _ in known), min(most for _, most in known)
    return ModelNeeds(
        cards[0].bands,
        (0.0, max(card.scaling.divisor for card in cards)),
        resolution_m,
    )
