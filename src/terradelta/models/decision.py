"""The rule by which probabilities become a map of changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from terradelta.errors import ArgumentError

Decision = Literal["change", "transition"]
Sensitivity = Literal["balanced", "few-alarms", "find-all"]


@dataclass(frozen=True)
class DecisionRule:
    """When a pixel counts as changed, and from which class to which."""

    threshold: float
    """Least probability of a change."""
    decided_by: Decision = "change"
    """Which probability must reach it: that of the change head, or that of the most probable
    transition, p_change * p_before * p_after."""
    same_class: bool = True
    """Whether a change may be from a class to itself."""


def join_rules(rules: Sequence[DecisionRule]) -> DecisionRule:
    """Return the rule of several models that vote: the mean of their thresholds.

    Raises:
        ArgumentError: If they decide by different probabilities.
    """
    kinds = sorted({rule.decided_by for rule in rules})
    if len(kinds) > 1:
        raise ArgumentError(
            f"some of the models decide by the probability of {kinds[0]} and others by that of "
            f"{kinds[1]}",
            fix="let models vote that decide alike (decided_by in model.json)",
        )
    threshold = fmean(rule.threshold for rule in rules)
    return DecisionRule(threshold, rules[0].decided_by, any(rule.same_class for rule in rules))
