"""The inputs that models need."""

from __future__ import annotations

from collections.abc import Sequence

from terradelta.geo.pair_options import ModelNeeds
from terradelta.models.card import ModelCard


def describe_needs(cards: Sequence[ModelCard]) -> ModelNeeds:
    """Return the inputs that models need to vote.

    Args:
        cards: Cards of models with the same bands, at least one.

    Returns:
        Their bands, the brightest value of any of them, and the ground sizes of pixels that
        all of them know; None if a card does not say.
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
