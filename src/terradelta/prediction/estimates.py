"""area_estimates.json, as `terradelta assess` writes it and the report reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from terradelta.errors import DataError
from terradelta.fields import (
    SHARE,
    UNKNOWN_KEYS,
    UNLESS_NONE,
    FieldError,
    Within,
    keyed,
    read_fields,
    show,
    write_fields,
)
from terradelta.inputs import read_json
from terradelta.outputs import null_undefined
from terradelta.prediction.records import Area, Count, Number

ESTIMATES_FILE = "area_estimates.json"
FORMAT = 1

Ratio = Annotated[float, SHARE]
Kappa = Annotated[float, Within(least=-1, most=1)]


@dataclass(frozen=True, kw_only=True)
class AreaEstimate:
    """Hectares, their standard error and their 95 % interval."""

    value: Area
    standard_error: float | None = None
    """None if the file lacks it."""
    interval_95_percent: tuple[Area, Area]


@dataclass(frozen=True, kw_only=True)
class NetEstimate:
    """Hectares that a class gained minus those that it lost; see `AreaEstimate`."""

    value: float
    standard_error: float | None = None
    interval_95_percent: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ShareEstimate:
    """A share of points or area, if the points can give it; see `AreaEstimate`."""

    value: Ratio | None
    standard_error: float | None = None
    interval_95_percent: tuple[Ratio | None, Ratio | None]


@dataclass(frozen=True, kw_only=True)
class EstimatedClass:
    """A class or transition: its mapped and its estimated area."""

    name: str = keyed("class")
    points: Count
    mapped_ha: Area
    area_ha: AreaEstimate
    users_accuracy: ShareEstimate
    producers_accuracy: ShareEstimate


@dataclass(frozen=True)
class ErrorMatrix:
    """A map against the points: mapped classes in rows, labelled classes in columns."""

    rows: str
    columns: str
    classes: tuple[str, ...]
    points: tuple[tuple[Count, ...], ...]
    area_shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Legend:
    """All classes of one legend of a map.

    Raises:
        FieldError: If it has no classes.
    """

    overall_accuracy: ShareEstimate
    classes: tuple[EstimatedClass, ...]
    error_matrix: ErrorMatrix | None = None
    """None if the file lacks it."""

    def __post_init__(self):
        if not self.classes:
            raise FieldError("classes", [], "a list of one or more")

    def list_shares(self) -> Iterator[ShareEstimate]:
        """Yield all accuracies."""
        yield self.overall_accuracy
        for row in self.classes:
            yield from (row.users_accuracy, row.producers_accuracy)


@dataclass(frozen=True)
class NetChange:
    """The gain of a class minus its loss."""

    name: str = keyed("class")
    area_ha: NetEstimate = field(kw_only=True)


@dataclass(frozen=True, kw_only=True)
class StratumRow:
    """A stratum and its points."""

    stratum: str
    pixels: Count = 0
    area_ha: Area
    points_drawn: Count = 0
    points_used: Count


@dataclass(frozen=True, kw_only=True)
class DesignRecord:
    """How points were shared out; see `SampleDesign`."""

    points: Count | None = None
    standard_error: Number | None = None
    allocation: Literal["proportional", "neyman"]
    floor: Count
    stratum_share: Number | None = None
    buffer_px: Count = 0
    expect_unchanged: Number | None = None
    expect_near: Number | None = None
    expect_changed: Number | None = None
    seed: Count


@dataclass(frozen=True)
class Alikeness:
    """How often two interpreters agree; None if they labelled no common point."""

    percent: Annotated[float, Within(least=0, most=100)] | None
    kappa: Kappa | None = None
    """Cohen's kappa; None if chance alone would give full agreement."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two interpreters compared."""

    interpreters: tuple[str, str]
    points: Count = 0
    """Points that both answered."""
    transition: Alikeness
    changed: Alikeness | None = None
    """On whether anything changed; None if the file lacks it."""


@dataclass(frozen=True, kw_only=True)
class UnresolvedPoints:
    """Points without an answer, by reason, and how they are handled."""

    rule: str = "exclude"
    points: dict[str, Count]


@dataclass(frozen=True, kw_only=True)
class AreaEstimates:
    """Estimates of a map from labelled points."""

    format: Literal[1]
    version: str = ""
    """Of terradelta."""
    map: str
    """"sampled", or the other map that is assessed with the points of this one."""
    area_ha: Area | None = None
    """Ground with data at both dates; None if the file lacks it."""
    design: DesignRecord
    interval: str = "logit"
    strata: tuple[StratumRow, ...]
    points_drawn: Count
    points_used: Count
    unresolved: UnresolvedPoints
    interpreters: tuple[str, ...]
    agreement: tuple[Agreement, ...]
    change: Legend
    """Changed or not."""
    transitions: Legend
    lost: Legend | None = field(default=None, metadata={"key": "from", **UNLESS_NONE})
    """By class before; None for a map without land cover."""
    gained: Legend | None = field(default=None, metadata={"key": "to", **UNLESS_NONE})
    """By class after; None for a map without land cover."""
    net: tuple[NetChange, ...] = ()
    notes: tuple[str, ...]
    """Limits of the intervals."""
    methods: str
    """A paragraph for a methods section."""
    others: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)
    """Keys of a later version."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `area_estimates.json`."""
        return null_undefined(write_fields(self))


def read_estimates(path: Path) -> AreaEstimates:
    """Return the content of an area_estimates.json.

    Raises:
        DataError: If it cannot be read, naming key and value.
    """
    try:
        content = read_json(path)
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise DataError(
                f"{path} has format {show(version)}, this version of terradelta reads {FORMAT}",
                fix="run `terradelta assess POINTS --overwrite` again",
            )
        estimates = read_fields(AreaEstimates, content)
        for legend in (estimates.change, estimates.transitions):
            for share in legend.list_shares():
                if share.value is not None and None in share.interval_95_percent:
                    raise FieldError(
                        "interval_95_percent",
                        share.interval_95_percent,
                        "two numbers if value is a number",
                    )
    except ValueError as error:
        raise DataError(
            f"{path} cannot be read as area estimates: {error}",
            fix="give the area_estimates.json that `terradelta assess` has written",
        ) from error
    return estimates
