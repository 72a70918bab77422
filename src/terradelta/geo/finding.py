"""What was found about a pair, one line for each thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LEVELS = ("OK", "WARN", "FAIL")


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    name: str
    """What was looked at."""
    level: str
    """"OK", "WARN" or "FAIL"."""
    message: str
    """What was found."""
    fix: str | None = None
    """What mends it."""
    values: dict[str, Any] = field(default_factory=dict)
    """The numbers, JSON-ready."""


@dataclass(frozen=True)
class Report:
    """What was found about a pair."""

    findings: tuple[Finding, ...]
    """In the order in which they were looked for."""

    @property
    def level(self) -> str:
        """The worst level of all."""
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"level": self.level, "findings": [vars(finding) for finding in self.findings]}

    def to_text(self) -> str:
        """Return a line per finding, with the fix below."""
        width = max(len(finding.name) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.level:<5} {finding.name:<{width}}  {finding.message}")
            if finding.fix:
                lines.append(f"{'':<5} {'':<{width}}  fix: {finding.fix}")
        return "\n".join(lines)
