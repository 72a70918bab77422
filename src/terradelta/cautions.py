"""Cautions about a doubtful map, shown above its numbers wherever they appear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from terradelta.errors import CautionError


@dataclass(frozen=True)
class Caution:
    """One reason to doubt a map, and what the reader can do about it."""

    name: str
    """Its subject, in one word: "scale", "dates", "confidence"."""
    message: str
    """The finding, with its numbers."""
    fix: str
    """An imperative that removes the cause or limits its effect."""

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready form."""
        return asdict(self)

    def to_text(self) -> str:
        """Return two lines for a terminal."""
        return f"CAUTION  {self.name}: {self.message}\n         fix: {self.fix}"


def refuse_cautions(cautions: Iterable[Caution], fix: str):
    """Raise if there is a caution: what `strict` does.

    Args:
        cautions: The cautions of a map.
        fix: A fix for all of them, added after the fix of each.

    Raises:
        CautionError: If there is one.
    """
    cautions = list(cautions)
    if cautions:
        raise CautionError(
            "the map would carry a caution, and --strict was given: "
            + "; ".join(f"{caution.name}: {caution.message}" for caution in cautions),
            fix="; ".join([*(caution.fix for caution in cautions), fix]),
        )
