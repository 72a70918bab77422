"""Strata from the map: unchanged ground, frequent transitions, the rare ones together.

Legend of the array names: C codes, H strata.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terradelta.areas.design import SampleDesign
from terradelta.areas.estimators import Strata
from terradelta.areas.map_census import Census
from terradelta.classes import ClassTable

UNCHANGED, NEAR, RARE = "unchanged", "unchanged near change", "rare transitions"


@dataclass(frozen=True)
class Stratification:
    """The strata of a map."""

    strata: Strata
    """The strata, none of them empty."""
    stratum_C: np.ndarray
    """Stratum of each code, -1 = the code does not occur."""
    accuracy_H: np.ndarray
    """Expected share of each stratum that is mapped right."""


def stratify(census: Census, classes: ClassTable, design: SampleDesign) -> Stratification:
    """Divide a map into strata: unchanged, near change, frequent transitions, rare ones.

    A transition with at least `design.stratum_share` of the changed area is its own stratum.
    """
    near_code = classes.num_transitions
    changed_m2_C = census.area_m2_C.copy()
    changed_m2_C[[0, near_code]] = 0
    least_m2 = design.stratum_share * changed_m2_C.sum()
    occurs_C = census.pixels_C > 0
    is_own_C = occurs_C & (changed_m2_C >= least_m2) & (changed_m2_C > 0)
    frequent = np.flatnonzero(is_own_C)
    frequent = frequent[np.argsort(-changed_m2_C[frequent], kind="stable")]

    parts = [
        (UNCHANGED, [0], design.expect_unchanged),
        (NEAR, [near_code], design.expect_near),
        *((classes.name_transition(int(c)), [c], design.expect_changed) for c in frequent),
        (RARE, np.flatnonzero(occurs_C & (changed_m2_C > 0) & ~is_own_C), design.expect_changed),
    ]
    parts = [part for part in parts if census.pixels_C[part[1]].any()]
    stratum_C = np.full(len(census.pixels_C), -1)
    for index, (_, codes, _) in enumerate(parts):
        stratum_C[codes] = index
    strata = Strata(
        tuple(name for name, *_ in parts),
        np.array([census.pixels_C[codes].sum() for _, codes, _ in parts]),
        np.array([census.area_m2_C[codes].sum() for _, codes, _ in parts]),
    )
    return Stratification(strata, stratum_C, np.array([accuracy for *_, accuracy in parts]))
