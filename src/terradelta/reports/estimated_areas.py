"""Areas estimated from labelled points, beside those counted on the map.

They are read from the area_estimates.json of `terradelta assess`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from terradelta.errors import DataError
from terradelta.prediction.estimates import AreaEstimates, EstimatedClass, ShareEstimate, StratumRow
from terradelta.prediction.records import Summary
from terradelta.reports.chart import MAX_TICKS, Tick
from terradelta.reports.wording import NO_BREAK, Unit, join_words, say_count, say_number

MAX_TRANSITIONS = 14
"""Transitions with their own row; the others are in area_estimates.csv."""
LEAST_SHARE = 0.02
"""Share of the mapped change from which a transition without labelled points is shown."""
MAX_DIFFERENCE = 1e-3
"""Relative tolerance between the changed area of a map and that in its assessment."""
HECTARES = Unit(True)
ALLOCATION_WORDS = {
    "proportional": "in proportion to area",
    "neyman": "by area times expected spread (Neyman)",
}


def require_same_map(path: Path, estimates: AreaEstimates, summary: Summary):
    """Raise unless estimates belong to this map.

    Args:
        path: Their file.
        estimates: The content of the file.
        summary: The sums of the map.

    Raises:
        DataError: If they belong to another map.
    """
    changed_ha = estimates.change.classes[-1].mapped_ha
    own_ha = summary.changed_ha or 0.0
    if abs(changed_ha - own_ha) > MAX_DIFFERENCE * max(own_ha, 1e-9):
        raise DataError(
            f"{path} is of a map with {changed_ha:,.4f} ha of change, this one has {own_ha:,.4f}",
            fix="run `terradelta assess POINTS --map PREDICTION` for this map",
        )


@dataclass(frozen=True)
class AreaRow:
    """The cells of a row of the table."""

    name: str
    mapped: str
    estimated: str
    interval: str
    user: str
    producer: str
    points: str


@dataclass(frozen=True)
class AreaBar:
    """Positions of the marks of a row of the chart, in percent of its width."""

    name: str
    width: float
    """Width of the interval."""
    mapped: float
    value: float
    low: float


@dataclass(frozen=True)
class LeftOut:
    """The transitions without their own row."""

    count: int
    mapped: str
    points: int


@dataclass(frozen=True)
class EstimatedAreas:
    """The content of a page's section on estimated areas."""

    changed: str
    span: str
    """The interval of all change."""
    points: int
    rows: list[AreaRow]
    bars: list[AreaBar]
    ticks: list[Tick]
    left: LeftOut
    facts: list[tuple[str, str]]
    strata: tuple[StratumRow, ...]
    stratum_areas: list[str]
    notes: tuple[str, ...]
    methods: str


def describe_areas(estimates: AreaEstimates) -> EstimatedAreas:
    """Return a page's section on estimates: rows of table and chart, facts, notes."""
    changed, unchanged = estimates.change.classes[-1], estimates.change.classes[0]
    # Without land cover the only transition is change itself.
    transitions = () if estimates.lost is None else estimates.transitions.classes[1:]
    shown = [
        row
        for row in sorted(transitions, key=_find_size, reverse=True)
        if row.points or row.mapped_ha >= LEAST_SHARE * changed.mapped_ha
    ][:MAX_TRANSITIONS]
    left = [row for row in transitions if row not in shown]
    rows = [changed, *shown]
    largest = max(_find_reach(row) for row in rows)
    ticks = list(map(float, MaxNLocator(MAX_TICKS).tick_values(0, largest)))
    return EstimatedAreas(
        changed=HECTARES.say_words(changed.area_ha.value),
        span=" to ".join(map(say_number, changed.area_ha.interval_95_percent)),
        points=estimates.points_used,
        rows=_write_rows([*rows, unchanged]),
        bars=[_draw_bar(row, ticks[-1]) for row in rows],
        ticks=[Tick(100 * tick / ticks[-1], f"{tick:,.4g}") for tick in ticks],
        left=LeftOut(
            len(left),
            HECTARES.say(sum(row.mapped_ha for row in left)),
            sum(row.points for row in left),
        ),
        facts=_list_facts(estimates),
        strata=estimates.strata,
        stratum_areas=HECTARES.say_column([row.area_ha for row in estimates.strata]),
        notes=estimates.notes,
        methods=estimates.methods,
    )


def _find_size(row: EstimatedClass) -> float:
    return max(row.mapped_ha, row.area_ha.value)


def _find_reach(row: EstimatedClass) -> float:
    """Return the right end of a row's marks."""
    return max(row.mapped_ha, row.area_ha.interval_95_percent[1])


def _write_rows(rows: list[EstimatedClass]) -> list[AreaRow]:
    """Return the table's cells, areas with the same number of decimals."""
    columns = [
        [row.mapped_ha for row in rows],
        [row.area_ha.value for row in rows],
        *([row.area_ha.interval_95_percent[end] for row in rows] for end in (0, 1)),
    ]
    cells = HECTARES.say_column([value for column in columns for value in column])
    mapped, estimated, lows, highs = (
        cells[start : start + len(rows)] for start in range(0, len(cells), len(rows))
    )
    return [
        AreaRow(
            name=row.name,
            mapped=mapped[index],
            estimated=estimated[index],
            interval=f"{lows[index]} to {highs[index]}",
            user=_say_share(row.users_accuracy),
            producer=_say_share(row.producers_accuracy),
            points=say_count(row.points),
        )
        for index, row in enumerate(rows)
    ]


def _draw_bar(row: EstimatedClass, full_ha: float) -> AreaBar:
    low, high = row.area_ha.interval_95_percent
    return AreaBar(
        name=row.name,
        width=100 * (high - low) / full_ha,
        mapped=100 * row.mapped_ha / full_ha,
        value=100 * row.area_ha.value / full_ha,
        low=100 * low / full_ha,
    )


def _list_facts(estimates: AreaEstimates) -> list[tuple[str, str]]:
    """Return the accuracy of the map and the method, as names and texts."""
    design, used, drawn = estimates.design, estimates.points_used, estimates.points_drawn
    names = list(estimates.interpreters)
    facts = [
        (
            "Overall accuracy, changed or not",
            _say_share(estimates.change.overall_accuracy, with_interval=True),
        )
    ]
    if estimates.lost is not None:
        overall = estimates.transitions.overall_accuracy
        facts.append(("Overall accuracy, transitions", _say_share(overall, with_interval=True)))
    facts += [
        ("Points", f"{used:,}" if used == drawn else f"{used:,} of {drawn:,} drawn"),
        ("Labelled by", f"{say_count(len(names), 'interpreter')}: {join_words(names)}"),
    ]
    for pair in estimates.agreement:
        percent = pair.transition.percent
        if percent is not None:
            facts.append((f"{join_words(list(pair.interpreters))} agree on", f"{percent:.1f} %"))
    reasons = estimates.unresolved.points
    if reasons:
        listed = join_words([f"{count} {reason}" for reason, count in reasons.items()])
        facts.append(("Points left out", f"{listed}, as if a random part of their strata"))
    facts.append(
        (
            "Design",
            f"stratified random, {say_count(len(estimates.strata), 'stratum', 'strata')}; points "
            f"{ALLOCATION_WORDS[design.allocation]}, {design.floor} or more in each; "
            f"seed {design.seed}",
        )
    )
    if estimates.map != "sampled":
        facts.append(("Strata", "of another map than this one"))
    return facts


def _say_share(estimate: ShareEstimate, with_interval: bool = False) -> str:
    """Return an accuracy, and its interval if wanted or if the accuracy is unknown."""
    if estimate.value is None:
        return "–"
    text = f"{estimate.value:.3f}"
    if with_interval:
        low, high = estimate.interval_95_percent
        text += f", 95{NO_BREAK}% interval {low:.3f} to {high:.3f}"
    return text
