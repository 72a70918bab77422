"""Pairs composed from labelled images of one date: real pixels, and a change mask that is exact."""

from terradelta.data.composite.files import compose_pairs
from terradelta.data.composite.options import Composition
from terradelta.data.composite.scene import ComposedPair, LabelledScene, compose_pair

__all__ = ["ComposedPair", "Composition", "LabelledScene", "compose_pair", "compose_pairs"]
