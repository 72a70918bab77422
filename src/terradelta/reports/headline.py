"""Sentences on what changed, the first of a page and of a notebook."""

from __future__ import annotations

from typing import Any

from terradelta.reports.wording import Unit, say_percent

TOLD_TRANSITIONS = 3


def find_unit(summary: dict[str, Any]) -> Unit:
    """Return what the amounts of a summary.json are told in."""
    return Unit(summary["changed_ha"] is not None)


def sum_changed(summary: dict[str, Any]) -> float:
    """Return how much changed, in hectares, or in pixels where areas are unknown."""
    has_area = summary["changed_ha"] is not None
    return summary["changed_ha"] if has_area else summary["changed_pixels"]


def sum_compared(summary: dict[str, Any]) -> float:
    """Return how much has data at both dates, likewise."""
    return summary["valid_pixels"] if summary["valid_ha"] is None else summary["valid_ha"]


def list_largest(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Return the largest transitions: from, to, amount and share of all that changed."""
    unit, total = find_unit(summary), sum_changed(summary)
    return [
        {
            "from": row["from"],
            "to": row["to"],
            "amount": unit.say(unit.pick(row)),
            "share": say_percent(100 * unit.pick(row) / total),
        }
        for row in summary["transitions"][:TOLD_TRANSITIONS]
    ]


def write_headline(summary: dict[str, Any]) -> str:
    """Return what changed in one sentence."""
    unit = find_unit(summary)
    compared = unit.say_words(sum_compared(summary))
    if not summary["transitions"]:
        return f"No change found in the {compared} compared."
    share = say_percent(summary["changed_percent"])
    return f"{unit.say_words(sum_changed(summary))} changed, {share} of the {compared} compared."
