"""Copy the descriptions in card.yaml to the card of the default model.

The scores on real pairs are measured after training, so `train.py` cannot write them. Weights
not named in card.yaml are left alone. Run: `python recipes/default/describe.py`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import yaml

from terradelta.models.bundle import hash_model, load_card, replace_card
from terradelta.models.embedded import DEFAULT_MODEL

CARD = Path(__file__).with_name("card.yaml")


def main():
    """Write the card."""
    described = yaml.safe_load(CARD.read_text(encoding="utf-8"))
    weights = hash_model(DEFAULT_MODEL)
    if described["weights_sha256"] != weights:
        sys.exit(
            f"{CARD} describes other weights, {described['weights_sha256']}, than those of "
            f"{DEFAULT_MODEL}, {weights}: measure these with `make real-pairs` first"
        )
    card = load_card(DEFAULT_MODEL)
    replace_card(
        DEFAULT_MODEL,
        replace(
            card,
            strengths=tuple(described["strengths"]),
            limits=tuple(described["limits"]),
            training={**card.training, **described["training"]},
        ),
    )


if __name__ == "__main__":
    main()
