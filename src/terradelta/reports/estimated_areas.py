"""Areas as labelled points tell them, beside those that the map counts.

They are read from the area_estimates.json of `terradelta assess`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from terradelta.errors import DataError
from terradelta.fields import read_fields, show
from terradelta.inputs import read_json
from terradelta.prediction.estimates import FORMAT, AreaEstimates
from terradelta.prediction.records import Summary
from terradelta.reports.chart import MAX_TICKS, Tick
from terradelta.reports.wording import NO_BREAK, Unit, join_words, say_count, say_number

ESTIMATES_FILE = "area_estimates.json"
MAX_TRANSITIONS = 14
"""Shown by themselves; the others are in area_estimates.csv."""
LEAST_SHARE = 0.02
"""Of the mapped change, for a transition to be shown that no point was labelled as."""
MAX_DIFFERENCE = 1e-3
"""Between the changed area of a map and the one that its assessment names, relative."""
HECTARES = Unit(True)
ALLOCATION_WORDS = {
    "proportional": "in proportion to area",
    "neyman": "by area times expected spread (Neyman)",
}


def read_estimates(path: Path, summary: Summary) -> dict[str, Any]:
    """Return the content of an area_estimates.json of this map.

    Args:
        path: The file.
        summary: The summary.json of the map.

    Raises:
        DataError: If it cannot be read, or tells of another map.
    """
    try:
        content = read_json(path)
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise DataError(
                f"{path} has format {show(version)}, this version of terradelta reads {FORMAT}",
                fix="run `terradelta assess POINTS --overwrite` again",
            )
        changed_ha = read_fields(AreaEstimates, content).change.classes[-1].mapped_ha
    except ValueError as error:
        raise DataError(
            f"{path} cannot be read as area estimates: {error}",
            fix="give the area_estimates.json that `terradelta assess` has written",
        ) from error
    own_ha = summary.changed_ha or 0.0
    if abs(changed_ha - own_ha) > MAX_DIFFERENCE * max(own_ha, 1e-9):
        raise DataError(
            f"{path} is of a map with {changed_ha:,.4f} ha of change, this one has {own_ha:,.4f}",
            fix="run `terradelta assess POINTS --map PREDICTION` for this map",
        )
    return content


def describe_areas(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a page shows of an area_estimates.json: rows of table and chart, facts, notes."""
    changed, unchanged = content["change"]["classes"][-1], content["change"]["classes"][0]
    # Without land cover there is no transition but change itself.
    transitions = content["transitions"]["classes"][1:] if "from" in content else []
    shown = [
        row
        for row in sorted(transitions, key=_find_size, reverse=True)
        if row["points"] or row["mapped_ha"] >= LEAST_SHARE * changed["mapped_ha"]
    ][:MAX_TRANSITIONS]
    left = [row for row in transitions if row not in shown]
    rows = [changed, *shown]
    largest = max(_find_reach(row) for row in rows)
    ticks = list(map(float, MaxNLocator(MAX_TICKS).tick_values(0, largest)))
    return {
        "changed": HECTARES.say_words(changed["area_ha"]["value"]),
        "span": " to ".join(map(say_number, changed["area_ha"]["interval_95_percent"])),
        "points": content["points_used"],
        "rows": [*_write_rows([*rows, unchanged])],
        "bars": [_draw_bar(row, ticks[-1]) for row in rows],
        "ticks": [Tick(100 * tick / ticks[-1], f"{tick:,.4g}") for tick in ticks],
        "left": {
            "count": len(left),
            "mapped": HECTARES.say(sum(row["mapped_ha"] for row in left)),
            "points": sum(row["points"] for row in left),
        },
        "facts": _list_facts(content),
        "strata": content["strata"],
        "stratum_areas": HECTARES.say_column([row["area_ha"] for row in content["strata"]]),
        "notes": content["notes"],
        "methods": content["methods"],
    }


def _find_size(row: dict[str, Any]) -> float:
    return max(row["mapped_ha"], row["area_ha"]["value"])


def _find_reach(row: dict[str, Any]) -> float:
    """Return how far to the right a row's marks go."""
    return max(row["mapped_ha"], row["area_ha"]["interval_95_percent"][1])


def _write_rows(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the table's cells, areas of as many decimals each."""
    columns = [
        [row["mapped_ha"] for row in rows],
        [row["area_ha"]["value"] for row in rows],
        *([row["area_ha"]["interval_95_percent"][end] for row in rows] for end in (0, 1)),
    ]
    cells = HECTARES.say_column([value for column in columns for value in column])
    mapped, estimated, lows, highs = (
        cells[start : start + len(rows)] for start in range(0, len(cells), len(rows))
    )
    return [
        {
            "class": row["class"],
            "mapped": mapped[index],
            "estimated": estimated[index],
            "interval": f"{lows[index]} to {highs[index]}",
            "user": _say_share(row["users_accuracy"]),
            "producer": _say_share(row["producers_accuracy"]),
            "points": say_count(row["points"]),
        }
        for index, row in enumerate(rows)
    ]


def _draw_bar(row: dict[str, Any], full_ha: float) -> dict[str, Any]:
    """Return the places of a row's marks, in percent of the chart's width."""
    low, high = row["area_ha"]["interval_95_percent"]
    places = {"mapped": row["mapped_ha"], "value": row["area_ha"]["value"], "low": low}
    return {
        "class": row["class"],
        "width": 100 * (high - low) / full_ha,
        **{name: 100 * amount / full_ha for name, amount in places.items()},
    }


def _list_facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how accurate the map is and how that was found, as names and texts."""
    design, used, drawn = content["design"], content["points_used"], content["points_drawn"]
    names = content["interpreters"]
    facts = [
        (
            "Overall accuracy, changed or not",
            _say_share(content["change"]["overall_accuracy"], with_interval=True),
        )
    ]
    if "from" in content:
        overall = content["transitions"]["overall_accuracy"]
        facts.append(("Overall accuracy, transitions", _say_share(overall, with_interval=True)))
    facts += [
        ("Points", f"{used:,}" if used == drawn else f"{used:,} of {drawn:,} that were drawn"),
        ("Labelled by", f"{say_count(len(names), 'interpreter')}: {join_words(names)}"),
    ]
    for pair in content["agreement"]:
        percent = pair["transition"]["percent"]
        if percent is not None:
            facts.append((f"{join_words(pair['interpreters'])} agree on", f"{percent:.1f} %"))
    reasons = content["unresolved"]["points"]
    if reasons:
        listed = join_words([f"{count} {reason}" for reason, count in reasons.items()])
        facts.append(("Points left out", f"{listed}, as if a random part of their strata"))
    facts.append(
        (
            "Design",
            f"stratified random, {say_count(len(content['strata']), 'stratum', 'strata')}; points "
            f"{ALLOCATION_WORDS[design['allocation']]}, {design['floor']} or more in each; "
            f"seed {design['seed']}",
        )
    )
    if content["map"] != "sampled":
        facts.append(("Strata", "of another map than this one"))
    return facts


def _say_share(estimate: dict[str, Any], with_interval: bool = False) -> str:
    """Return an accuracy, and its interval where wanted or not known."""
    if estimate["value"] is None:
        return "–"
    text = f"{estimate['value']:.3f}"
    if with_interval:
        low, high = estimate["interval_95_percent"]
        text += f", 95{NO_BREAK}% interval {low:.3f} to {high:.3f}"
    return text
