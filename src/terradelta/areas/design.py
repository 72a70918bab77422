"""The options of a sample; imports nothing heavy, as the command line shows them."""

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
        ArgumentError: If a value makes no sense.
    """

    points: Annotated[int, POSITIVE_COUNT] | None = None
    """How many points; by default as many as the standard error asks for."""
    standard_error: Annotated[float, Within(above=0, most=1)] = 0.01
    """What the overall accuracy's standard error is to be, if the expectations hold."""
    allocation: Allocation = "proportional"
    """Points by a stratum's area, or by area times expected spread (neyman)."""
    floor: Annotated[int, POSITIVE_COUNT] = 50
    """Least number of points in a stratum."""
    stratum_share: Annotated[float, SHARE] = 0.05
    """Transitions with less than this share of the changed area share one stratum."""
    buffer_px: Annotated[int, Within(least=0, most=4096)] = 0
    """Unchanged ground this near to change, in pixels, is a stratum of its own; 0 = none is."""
    expect_unchanged: Annotated[float, SHARE] = 0.98
    """Share of the unchanged stratum that is probably mapped right."""
    expect_near: Annotated[float, SHARE] = 0.9
    """The same, of unchanged ground near change."""
    expect_changed: Annotated[float, SHARE] = 0.7
    """The same, of every stratum of change."""
    seed: Annotated[int, COUNT] = 0
    """Of the drawing."""

    def __post_init__(self):
        check_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)
