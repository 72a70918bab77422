"""Mapped and error-adjusted areas side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from terradelta.areas.estimators import AccuracyReport
from terradelta.inference.transitions import M2_PER_HECTARE

MAX_ROWS = 15


def draw_areas(report: AccuracyReport, path: Path):
    """Draw each transition's area on the map and as estimated, with its 95 % interval.

    Args:
        report: Report of the transitions, unchanged first.
        path: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    areas_m2 = np.array([area.value for area in report.area_m2])
    order = 1 + np.argsort(-np.maximum(areas_m2, report.mapped_area_m2)[1:], kind="stable")
    order = order[:MAX_ROWS]
    figure = Figure(figsize=(8, 1.6 + 0.42 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = np.arange(len(order))
    mapped_ha = report.mapped_area_m2[order] / M2_PER_HECTARE
    axes.barh(places - 0.2, mapped_ha, 0.36, color="0.75", label="mapped: pixels counted")
    axes.barh(
        places + 0.2, areas_m2[order] / M2_PER_HECTARE, 0.36, label="estimated, 95 % interval"
    )
    estimated_ha = areas_m2[order] / M2_PER_HECTARE
    ends_m2 = np.array([[report.area_m2[k].low, report.area_m2[k].high] for k in order])
    spans = np.abs(ends_m2.T / M2_PER_HECTARE - estimated_ha)
    axes.errorbar(estimated_ha, places + 0.2, xerr=spans, fmt="none", ecolor="black", capsize=3)
    axes.set_yticks(places, [report.classes[k] for k in order])
    axes.invert_yaxis()
    axes.set_xlabel("hectares")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    left = len(report.classes) - 1 - len(order)
    if left > 0:
        axes.set_title(f"the {len(order)} largest; {left} more in the table", fontsize=9)
    figure.savefig(path, dpi=120)
