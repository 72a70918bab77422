"""area_estimates.json, as `terradelta assess` writes it and the report reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from terradelta.fields import SHARE, FieldError, Within, keyed
from terradelta.prediction.records import Area, Count

FORMAT = 1

Ratio = Annotated[float, SHARE]


@dataclass(frozen=True)
class AreaEstimate:
    """Hectares and their 95 % interval."""

    value: Area
    interval_95_percent: tuple[Area, Area]


@dataclass(frozen=True)
class ShareEstimate:
    """A share of points or area, where the points can say."""

    value: Ratio | None
    interval_95_percent: tuple[Ratio | None, Ratio | None]

    def __post_init__(self):
        if self.value is not None and None in self.interval_95_percent:
            raise FieldError(
                "interval_95_percent", self.interval_95_percent, "two numbers where value is one"
            )


@dataclass(frozen=True)
class EstimatedClass:
    """A class or transition: what the map counts, and what the points say."""

    points: Count
    mapped_ha: Area
    area_ha: AreaEstimate
    users_accuracy: ShareEstimate
    producers_accuracy: ShareEstimate
    name: str = keyed("class")


@dataclass(frozen=True)
class Legend:
    """All classes of one way to look at a map.

    Raises:
        FieldError: If there is no class.
    """

    overall_accuracy: ShareEstimate
    classes: tuple[EstimatedClass, ...]

    def __post_init__(self):
        if not self.classes:
            raise FieldError("classes", [], "a list of one or more")


@dataclass(frozen=True)
class StratumRow:
    """A stratum and its points."""

    stratum: str
    area_ha: Area
    points_used: Count


@dataclass(frozen=True)
class Design:
    """How points were shared out, as far as the report says it."""

    allocation: Literal["proportional", "neyman"]
    floor: Count
    seed: Count


@dataclass(frozen=True)
class Percentage:
    """How often two interpreters agree, where they labelled the same points."""

    percent: Annotated[float, Within(least=0, most=100)] | None


@dataclass(frozen=True)
class Agreement:
    """Two interpreters against each other."""

    interpreters: tuple[str, str]
    transition: Percentage


@dataclass(frozen=True)
class Unresolved:
    """Points without an answer, by why."""

    points: dict[str, Count]


@dataclass(frozen=True)
class AreaEstimates:
    """What labelled points say of a map."""

    format: Literal[1]
    map: str
    design: Design
    strata: tuple[StratumRow, ...]
    points_drawn: Count
    points_used: Count
    unresolved: Unresolved
    interpreters: tuple[str, ...]
    agreement: tuple[Agreement, ...]
    change: Legend
    transitions: Legend
    notes: tuple[str, ...]
    methods: str
