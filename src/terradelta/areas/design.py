"""The options of a sample; imports nothing heavy, as the command line reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from terradelta.fields import COUNT, POSITIVE_COUNT, SHARE, Within, check_fields

Allocation = Literal["proportional", "neyman"]
IntervalKind = Literal["logit", "wald"]


@dataclass(frozen=True)
class SampleDesign:
    """How points are drawn from a map.

    Raises:
        ArgumentError: If a value is out of its range.
    """

    points: Annotated[int, POSITIVE_COUNT] | None = None
    """Number of points; by default as many as the standard error needs."""
    standard_error: Annotated[float, Within(above=0, most=1)] = 0.01
    """Target standard error of the overall accuracy, if the expected shares are right."""
    allocation: Allocation = "proportional"
    """Points by a stratum's area, or by area times expected spread (neyman)."""
    floor: Annotated[int, POSITIVE_COUNT] = 50
    """Least number of points in a stratum."""
    stratum_share: Annotated[float, SHARE] = 0.05
    """Transitions with less than this share of the changed area are pooled into one stratum."""
    buffer_px: Annotated[int, Within(least=0, most=4096)] = 0
    """Unchanged ground within this distance of change, in pixels, is its own stratum; 0 = none."""
    expect_unchanged: Annotated[float, SHARE] = 0.98
    """Expected share of the unchanged stratum that is mapped right."""
    expect_near: Annotated[float, SHARE] = 0.9
    """The same for unchanged ground near change."""
    expect_changed: Annotated[float, SHARE] = 0.7
    """The same for every stratum of change."""
    seed: Annotated[int, COUNT] = 0
    """Seed of the drawing."""

    def __post_init__(self):
        check_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)
