"""Pairs composed from labelled images of one date: real pixels with an exact change mask."""

from terradelta.data.composite.composed_pairs import compose
from terradelta.data.composite.composition import ComposedPair, LabelledScene, compose_pair
from terradelta.data.composite.options import Composition

__all__ = ["ComposedPair", "Composition", "LabelledScene", "compose", "compose_pair"]
