"""Line charts as shapes for SVG that stretch with the page, without their texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

MAX_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    position: float
    """Percent from the left, or from the top."""
    text: str


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    path: str
    """SVG path; both axes from 0 to 100, y downwards."""
    points: tuple[tuple[float, float], ...]
    """Positions of its values, on the same axes."""
    last: float
    """Its last value; nan if that is undefined."""


@dataclass(frozen=True)
class LineChart:
    """Curves over a common axis."""

    title: str
    x_name: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    @classmethod
    def of(
        cls, title: str, x_name: str, x: Sequence[float], series: Mapping[str, Sequence[float]]
    ) -> LineChart:
        """Lay out curves.

        Args:
            title: Title of the chart.
            x_name: Name of the values of `x`.
            x: Increasing values.
            series: Values of each curve at `x`; nan where undefined, which interrupts the curve.
        """
        finite = [value for values in series.values() for value in values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        y_values = list(MaxNLocator(MAX_TICKS).tick_values(min(low, high - 1e-9), high))
        x_values = list(MaxNLocator(MAX_TICKS, integer=True).tick_values(x[0], x[-1]))
        x_range = x[0], max(x[-1], x[0] + 1)
        y_range = y_values[0], y_values[-1]
        return cls(
            title,
            x_name,
            tuple(_draw_line(name, x, series[name], x_range, y_range) for name in series),
            tuple(
                Tick(100 * _place(value, x_range), f"{value:g}")
                for value in x_values
                if x_range[0] <= value <= x[-1]
            ),
            tuple(Tick(100 - 100 * _place(value, y_range), f"{value:.4g}") for value in y_values),
        )


def _draw_line(
    name: str,
    x: Sequence[float],
    values: Sequence[float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> Line:
    path, points = "", []
    is_drawing = False
    for position, value in zip(x, values, strict=True):
        if math.isfinite(value):
            points.append((100 * _place(position, x_range), 100 - 100 * _place(value, y_range)))
            path += f"{'L' if is_drawing else 'M'}{points[-1][0]:.2f} {points[-1][1]:.2f}"
        is_drawing = math.isfinite(value)
    return Line(name, path, tuple(points), values[-1])


def _place(value: float, span: tuple[float, float]) -> float:
    return (value - span[0]) / (span[1] - span[0])
