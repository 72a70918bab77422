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
FETCH_AGAIN = "make or fetch it again, or remove the pair"
LEVELS: tuple[Level, ...] = ("OK", "WARN", "FAIL")
_MOST_FILES_SHOWN = 3


@dataclass(frozen=True)
class DatasetFinding:
    """One problem, with all of its files."""

    level: Level
    """FAIL: training would stop or learn from errors. WARN: look at it. OK: for information."""
    code: str
    """Its name, which is the same in all versions."""
    message: str
    """The problem."""
    files: tuple[str, ...] = ()
    """Paths relative to the data set: masks, or the before image of a pair."""
    fix: str | None = None
    """The fix."""
    action: Action = "kept"
    """The action of a repair on these files, or on their pairs."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The numbers, JSON-ready."""


@dataclass(frozen=True)
class DoctorReport:
    """The findings of a data set."""

    root: Path
    """The folder or CSV file."""
    findings: tuple[DatasetFinding, ...]
    """Findings in the order of the checks."""
    classes: ClassTable
    """The class table used for the class ids."""
    is_binary: bool = False
    """Whether the labels are change masks."""

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        found = {finding.level for finding in self.findings}
        return next(level for level in reversed(LEVELS) if level in found)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings that are not OK."""
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
    """Return the first few names and the number of the others."""
    shown = ", ".join(names[:_MOST_FILES_SHOWN])
    more = len(names) - _MOST_FILES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, noun: str) -> str:
    """Return `1 pair`, `2 pairs`."""
    return f"{number} {noun}" + "s" * (number != 1)
