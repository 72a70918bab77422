"""The findings of an examination of a data set, and the action of a repair on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from terradelta.classes import ClassTable

Level = Literal["OK", "WARN", "FAIL"]
Action = Literal["kept", "fixed", "dropped", "left out"]

COPY = "terradelta doctor --fix writes a copy with"
FETCH_AGAIN = "make or fetch it again, or take the pair out"
LEVELS: tuple[Level, ...] = ("OK", "WARN", "FAIL")
_MOST_FILES_SHOWN = 3


@dataclass(frozen=True)
class DatasetFinding:
    """One thing that was found, with all the files it was found in."""

    level: Level
    """FAIL: training would stop or learn what is wrong. WARN: look at it. OK: good to know."""
    code: str
    """Its name, which stays the same from version to version."""
    message: str
    """What was found."""
    files: tuple[str, ...] = ()
    """Where, relative to the data set: masks, or the before image where a pair is meant."""
    fix: str | None = None
    """What fixes it."""
    action: Action = "kept"
    """What a repair does with these files, or with their pairs."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The numbers, JSON-ready."""


@dataclass(frozen=True)
class DoctorReport:
    """What was found in a data set."""

    root: Path
    """The folder or CSV file."""
    findings: tuple[DatasetFinding, ...]
    """In the order in which they were looked for."""
    classes: ClassTable
    """What the class ids were taken to mean."""
    is_binary: bool = False
    """Whether the labels are change masks."""

    @property
    def level(self) -> Level:
        """The worst level of all."""
        found = {finding.level for finding in self.findings}
        return next(level for level in reversed(LEVELS) if level in found)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of what is not OK."""
        return tuple(finding.code for finding in self.findings if finding.level != "OK")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with every file name."""
        findings = [{**vars(finding), "values": dict(finding.values)} for finding in self.findings]
        return {"data": str(self.root), "level": self.level, "findings": findings}

    def to_text(self) -> str:
        """Return a line per finding, with the first files and the fix below."""
        width = max(len(finding.code) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.level:<5} {finding.code:<{width}}  {finding.message}")
            if finding.files:
                lines.append(f"{'':<5} {'':<{width}}  in: {shorten_list(finding.files)}")
            if finding.fix:
                lines.append(f"{'':<5} {'':<{width}}  fix: {finding.fix}")
        return "\n".join(lines)


def shorten_list(names: tuple[str, ...]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:_MOST_FILES_SHOWN])
    more = len(names) - _MOST_FILES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, noun: str) -> str:
    """Return `1 pair`, `2 pairs`."""
    return f"{number} {noun}" + "s" * (number != 1)
