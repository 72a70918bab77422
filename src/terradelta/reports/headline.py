"""Sentences on what changed, the first of a page and of a notebook."""

from __future__ import annotations

from dataclasses import dataclass

from terradelta.prediction.records import Summary
from terradelta.reports.wording import Unit, say_percent

TOLD_TRANSITIONS = 3


@dataclass(frozen=True)
class LargeTransition:
    """One of the largest transitions, in words."""

    from_class: str
    to_class: str
    amount: str
    share: str
    """Share of all change."""


def find_unit(summary: Summary) -> Unit:
    """Return the unit of the amounts of a map."""
    return Unit(summary.changed_ha is not None)


def sum_changed(summary: Summary) -> float:
    """Return the changed amount in hectares, or in pixels if areas are unknown."""
    return summary.changed_pixels if summary.changed_ha is None else summary.changed_ha


def sum_compared(summary: Summary) -> float:
    """Return the amount with data at both dates, in the same unit."""
    return summary.valid_pixels if summary.valid_ha is None else summary.valid_ha


def list_largest(summary: Summary) -> list[LargeTransition]:
    """Return the largest transitions."""
    unit, total = find_unit(summary), sum_changed(summary)
    return [
        LargeTransition(
            row.from_class,
            row.to_class,
            unit.say(unit.pick(row)),
            say_percent(100 * unit.pick(row) / total),
        )
        for row in summary.transitions[:TOLD_TRANSITIONS]
    ]


def write_headline(summary: Summary) -> str:
    """Return the change in one sentence."""
    unit = find_unit(summary)
    compared = unit.say_words(sum_compared(summary))
    if not summary.transitions:
        return f"No change found in the {compared} compared."
    share = say_percent(summary.changed_percent)
    return f"{unit.say_words(sum_changed(summary))} changed, {share} of the {compared} compared."
