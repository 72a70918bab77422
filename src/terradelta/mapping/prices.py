"""Prices and speeds of the machines that may do the work."""

from __future__ import annotations

import re
from dataclasses import dataclass

from terradelta.errors import ArgumentError


@dataclass(frozen=True)
class WorkerKind:
    """A kind of machine that may do the work."""

    name: str
    """Name."""
    speed: float
    """Speed as a multiple of this machine's, given by the user."""
    price_per_hour: float | None
    """In the user's currency; None if not given."""


def parse_workers(text: str | None) -> tuple[WorkerKind, ...]:
    """Return the kinds of workers in "PRICE" or "NAME[@SPEED]:PRICE,...".

    SPEED is a multiple of this machine's speed, as measured by a plan made on that kind.

    Raises:
        ArgumentError: If the text has another form.
    """
    if text is None:
        return (WorkerKind("like this machine", 1.0, None),)
    kinds = []
    for part in text.split(","):
        number = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
        match = re.fullmatch(rf"\s*(?:([^:@]+?)(?:@({number}))?:)?({number})\s*", part)
        if match is None or (match[2] and float(match[2]) == 0):
            raise ArgumentError(
                f"{part!r} is not a price of a worker",
                fix="write the price of an hour of this machine, --price-per-hour 0.40, or of "
                "several kinds and how many times as fast they are: cpu:0.40,gpu@25:1.20",
            )
        kinds.append(
            WorkerKind(match[1] or "like this machine", float(match[2] or 1), float(match[3]))
        )
    return tuple(kinds)
