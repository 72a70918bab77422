"""The from-to table for the matrix and the flow chart, and the shapes of the chart.

Legend of the array names: F classes before, T classes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terradelta.classes import ClassTable, Colour
from terradelta.prediction.records import TransitionRow
from terradelta.reports.wording import Unit

MAX_CLASSES = 14
"""Classes per date with their own node; the smallest of more are shown as one."""
OTHERS_COLOUR: Colour = (150, 150, 150)
MAX_BANDS = 60
CHART_HEIGHT_PX = 300
SLOT_PX = 38
"""Height of the two lines of a class's label."""
GAP_PX = 8


@dataclass(frozen=True)
class FlowTable:
    """Amounts by class before and class after."""

    names: tuple[str, ...]
    """Names of the classes that changed at either date, in the order of the class table."""
    colours: tuple[Colour, ...]
    amounts_FT: np.ndarray
    """Hectares, or pixels where areas are unknown."""
    groups: tuple[int, ...]
    """For each class id of the map, its place in `names`; -1 where it did not change."""

    @classmethod
    def of(cls, transitions: Sequence[TransitionRow], classes: ClassTable, unit: Unit) -> FlowTable:
        """Sum the transitions of a map."""
        size = len(classes.names)
        whole_FT = np.zeros((size, size))
        for row in transitions:
            ids = classes.names.index(row.from_class), classes.names.index(row.to_class)
            whole_FT[ids] += unit.pick(row)
        totals = whole_FT.sum(axis=0) + whole_FT.sum(axis=1)
        occurring = np.flatnonzero(totals)
        shown = occurring
        if len(occurring) > MAX_CLASSES:
            shown = np.sort(np.argsort(-totals, kind="stable")[: MAX_CLASSES - 1])
        groups = np.full(size, -1)
        groups[occurring] = len(shown)
        groups[shown] = np.arange(len(shown))
        names = [classes.names[index] for index in shown]
        colours = [classes.colours[index] for index in shown]
        if len(shown) < len(occurring):
            names.append(f"{len(occurring) - len(shown)} others")
            colours.append(OTHERS_COLOUR)
        amounts_FT = np.zeros((len(names), len(names)))
        for index in occurring:
            for other in occurring:
                amounts_FT[groups[index], groups[other]] += whole_FT[index, other]
        return cls(tuple(names), tuple(colours), amounts_FT, tuple(groups.tolist()))


@dataclass(frozen=True)
class Node:
    """A class at one date in the chart, in pixels from its top."""

    index: int
    """Place in the table's names."""
    amount: float
    top: float
    height: float
    label_y: float
    """Middle of the label."""


@dataclass(frozen=True)
class Band:
    """The amount of one transition."""

    start: int
    end: int
    amount: float
    path: str
    """SVG path; x from 0 to 100, y in pixels."""


@dataclass(frozen=True)
class FlowChart:
    """Shapes of a flow chart (Sankey diagram) of two columns."""

    height: float
    left: tuple[Node, ...]
    right: tuple[Node, ...]
    bands: tuple[Band, ...]
    hidden_share: float
    """Share of the amount in bands that are not drawn."""

    @classmethod
    def of(cls, table: FlowTable) -> FlowChart:
        """Lay out a table that is not empty."""
        amounts_FT = table.amounts_FT
        scale = CHART_HEIGHT_PX / amounts_FT.sum()
        left, left_height = _stack(amounts_FT.sum(axis=1), scale)
        right, right_height = _stack(amounts_FT.sum(axis=0), scale)
        height = max(left_height, right_height)
        left, right = (
            _move(nodes, (height - own) / 2)
            for nodes, own in ((left, left_height), (right, right_height))
        )
        bands = _draw_bands(amounts_FT, left, right, scale)
        drawn = sorted(bands, key=lambda band: -band.amount)[:MAX_BANDS]
        hidden = 1 - sum(band.amount for band in drawn) / amounts_FT.sum()
        return cls(height, left, right, tuple(drawn), max(0.0, hidden))


def _stack(amounts: np.ndarray, scale: float) -> tuple[tuple[Node, ...], float]:
    """Return the nodes of one date in a column, and its height."""
    nodes = []
    top = 0.0
    for index in np.flatnonzero(amounts).tolist():
        height = amounts[index] * scale
        slot = max(height, SLOT_PX)
        middle = top + slot / 2
        nodes.append(Node(index, float(amounts[index]), middle - height / 2, height, middle))
        top += slot + GAP_PX
    return tuple(nodes), top - GAP_PX


def _move(nodes: tuple[Node, ...], down: float) -> tuple[Node, ...]:
    return tuple(
        Node(node.index, node.amount, node.top + down, node.height, node.label_y + down)
        for node in nodes
    )


def _draw_bands(
    amounts_FT: np.ndarray, left: tuple[Node, ...], right: tuple[Node, ...], scale: float
) -> list[Band]:
    start_y = {node.index: node.top for node in left}
    end_y = {node.index: node.top for node in right}
    bands = []
    for start, end in np.argwhere(amounts_FT > 0).tolist():
        amount = float(amounts_FT[start, end])
        thickness = amount * scale
        a, b = start_y[start], end_y[end]
        start_y[start] += thickness
        end_y[end] += thickness
        path = (
            f"M0 {a:.2f}C45 {a:.2f} 55 {b:.2f} 100 {b:.2f}v{thickness:.2f}"
            f"C55 {b + thickness:.2f} 45 {a + thickness:.2f} 0 {a + thickness:.2f}z"
        )
        bands.append(Band(start, end, amount, path))
    return bands
