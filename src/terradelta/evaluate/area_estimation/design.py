"""What is asked of a sample; imports nothing heavy, as the command line shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from terradelta.errors import ArgumentError

Allocation = Literal["proportional", "neyman"]
IntervalKind = Literal["logit", "wald"]


@dataclass(frozen=True)
class SampleDesign:
    """How points are drawn from a map.

    Raises:
        ArgumentError: If a value makes no sense.
    """

    points: int | None = None
    """How many points; by default as many as the standard error asks for."""
    standard_error: float = 0.01
    """What the overall accuracy's standard error is to be, if the expectations hold."""
    allocation: Allocation = "proportional"
    """Points by a stratum's area, or by area times expected spread (neyman)."""
    floor: int = 50
    """Least number of points in a stratum."""
    stratum_share: float = 0.05
    """Transitions with less than this share of the changed area share one stratum."""
    buffer_px: int = 0
    """Unchanged ground this near to change, in pixels, is a stratum of its own; 0 = none is."""
    expect_unchanged: float = 0.98
    """Share of the unchanged stratum that is probably mapped right."""
    expect_near: float = 0.9
    """The same, of unchanged ground near change."""
    expect_changed: float = 0.7
    """The same, of every stratum of change."""
    seed: int = 0
    """Of the drawing."""

    def __post_init__(self):
        if self.buffer_px < 0:
            raise ArgumentError(
                f"a buffer of {self.buffer_px} px cannot be drawn", fix="use 0 or more pixels"
            )
        if not 0 <= self.stratum_share <= 1:
            raise ArgumentError(
                f"a share of {self.stratum_share:g} of the changed area makes no sense",
                fix="use a --stratum-share from 0 to 1, such as 0.05",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)
