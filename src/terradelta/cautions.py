"""What makes a map doubtful: it stands above the map's numbers, wherever they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Caution:
    """One reason to doubt a map, and what the reader can do about it."""

    name: str
    """What it is about, in one word: "scale", "dates", "confidence"."""
    message: str
    """What was found, with its numbers."""
    fix: str
    """An imperative that removes the cause or limits its effect."""

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready form."""
        return asdict(self)

    def to_text(self) -> str:
        """Return two lines for a terminal."""
        return f"CAUTION  {self.message}\n         fix: {self.fix}"


def read_cautions(rows: Iterable[dict[str, Any]]) -> tuple[Caution, ...]:
    """Return the cautions of a run.json or summary.json; those of earlier versions have none."""
    return tuple(Caution(row["name"], row["message"], row["fix"]) for row in rows)
