"""The findings of a check of a pair, one line for each subject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from terradelta.cautions import Caution

PairLevel = Literal["OK", "WARN", "FAIL"]
LEVELS: tuple[PairLevel, ...] = ("OK", "WARN", "FAIL")


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    name: str
    """The subject."""
    level: PairLevel
    """"OK", "WARN" or "FAIL"."""
    message: str
    """The result."""
    fix: str | None = None
    """The fix."""
    values: dict[str, Any] = field(default_factory=dict)
    """The numbers, JSON-ready."""
    is_doubt: bool = True
    """Whether a WARN makes a map of the pair doubtful; False for mere advice."""

    @property
    def caution(self) -> Caution | None:
        """The caution that a map of the pair gets, or None."""
        if self.level != "WARN" or not self.is_doubt:
            return None
        return Caution(self.name, self.message, self.fix or "look at both images")


@dataclass(frozen=True)
class Report:
    """The findings of a pair."""

    findings: tuple[Finding, ...]
    """Findings in the order of the checks."""

    @property
    def level(self) -> PairLevel:
        """The worst level of all findings."""
        return find_worst(finding.level for finding in self.findings)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """The cautions that a map of the pair gets."""
        return list_cautions(self.findings)

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


def find_worst(levels: Iterable[PairLevel]) -> PairLevel:
    """Return the worst of the levels."""
    occurring = set(levels)
    return next(level for level in reversed(LEVELS) if level in occurring)


def list_cautions(findings: Iterable[Finding]) -> tuple[Caution, ...]:
    """Return the cautions of findings, in their order."""
    cautions = (finding.caution for finding in findings)
    return tuple(caution for caution in cautions if caution is not None)
