"""Formats numbers for readers: units, separators, significant digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from terradelta.geo.dates import ImageDate
from terradelta.geo.listing import RasterPaths, name_source
from terradelta.prediction.records import TransitionRow

M2_PER_HECTARE = 10_000
NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Unit:
    """Unit of a map's amounts: hectares, or pixels without a CRS."""

    has_area: bool
    """Whether ground areas are known."""

    @property
    def symbol(self) -> str:
        """Symbol after a number."""
        return "ha" if self.has_area else "px"

    @property
    def noun(self) -> str:
        """The unit in words."""
        return "hectares" if self.has_area else "pixels"

    def pick(self, row: TransitionRow) -> float:
        """Return a transition's amount."""
        return row.area_ha if self.has_area and row.area_ha is not None else row.pixels

    def say(self, amount: float) -> str:
        """Return an amount with its unit; small areas in square metres."""
        if not self.has_area:
            return f"{amount:,.0f}{NO_BREAK}px"
        if 0 < amount < 0.01:
            return say_m2(amount * M2_PER_HECTARE)
        return f"{say_number(amount)}{NO_BREAK}ha"

    def say_words(self, amount: float) -> str:
        """Return an amount as used in a sentence: 1.46 hectares, 35 square metres."""
        if not self.has_area:
            return f"{amount:,.0f}{NO_BREAK}pixels"
        if 0 < amount < 0.01:
            return f"{say_number(amount * M2_PER_HECTARE)}{NO_BREAK}square metres"
        return f"{say_number(amount)}{NO_BREAK}hectares"

    def say_column(self, amounts: Iterable[float]) -> list[str]:
        """Return amounts without their unit, with the same decimals, so that they align."""
        amounts = list(amounts)
        largest = max(amounts, default=0)
        decimals = _choose_decimals(largest / 10) if self.has_area else 0
        least = 10**-decimals
        return [
            f"<{NO_BREAK}{least:g}" if 0 < amount < least / 2 else f"{amount:,.{decimals}f}"
            for amount in amounts
        ]


def say_number(number: float) -> str:
    """Return a number with the decimals that matter at its size."""
    return f"{number:,.{_choose_decimals(number)}f}"


def say_m2(area_m2: float) -> str:
    """Return a small area in square metres, a large one in hectares."""
    if area_m2 >= M2_PER_HECTARE:
        return f"{say_number(area_m2 / M2_PER_HECTARE)}{NO_BREAK}ha"
    return f"{area_m2:,.{0 if area_m2 >= 10 else 1}f}{NO_BREAK}m²"


def say_percent(percent: float) -> str:
    """Return a share; a small one is distinguished from 0 %, a large one from 100 %."""
    if 0 < percent < 0.01:
        return f"less than 0.01{NO_BREAK}%"
    if 99.95 <= percent < 100:
        return f"over 99.9{NO_BREAK}%"
    decimals = 0 if percent in (0, 100) else 2 if percent < 1 else 1
    return f"{percent:.{decimals}f}{NO_BREAK}%"


def say_count(count: int, noun: str = "", plural: str = "") -> str:
    """Return a number with its noun."""
    if not noun:
        return f"{count:,}"
    return f"{count:,}{NO_BREAK}{noun if count == 1 else plural or noun + 's'}"


def say_place(longitude: float, latitude: float) -> str:
    """Return degrees to about a metre."""
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.5f}°{NO_BREAK}{north}, {abs(longitude):.5f}°{NO_BREAK}{east}"


def name_image(source: RasterPaths, taken: ImageDate | None) -> str:
    """Return the name of an image for readers: its file, and its date.

    Args:
        source: Path of the image.
        taken: Date of the image, if known.
    """
    name = name_source(source)
    return name if taken is None or taken.text in name else f"{name} ({taken.text})"


def join_words(parts: list[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _choose_decimals(number: float) -> int:
    if number >= 1000:
        return 0
    if number >= 100:
        return 1
    return 2 if number >= 1 else 3
