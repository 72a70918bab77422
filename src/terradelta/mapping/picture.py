"""One picture of a prediction: before, after, the from-to map and its legend.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio.enums import Resampling

from terradelta.classes import ClassTable
from terradelta.geo.cog import find_map
from terradelta.geo.grid import allow_no_place
from terradelta.geo.pair import RasterPair
from terradelta.geo.stretch import draw_rgb, find_range
from terradelta.prediction.records import DatesRecord, Summary
from terradelta.reports.wording import say_percent

MAX_SIDE_PX = 1200
MAX_LEGEND_ROWS = 14


def draw_picture(
    pair: RasterPair,
    folder: Path,
    classes: ClassTable,
    summary: Summary,
    name: str = "picture.png",
):
    """Draw before, after and the change map of a prediction folder side by side.

    Args:
        pair: The two rasters; the first three bands are drawn as red, green, blue.
        folder: The prediction folder with its maps; the picture is stored there.
        classes: The classes of the map.
        summary: The prediction's summary, whose largest transitions make the legend.
        name: File name of the picture.
    """
    with allow_no_place(), rasterio.open(find_map(folder, "change")) as source:
        scale = max(1.0, max(source.width, source.height) / MAX_SIDE_PX)
        shape = (max(1, round(source.height / scale)), max(1, round(source.width / scale)))
        change_HW = source.read(1, out_shape=shape, resampling=Resampling.mode)
        nodata = source.nodata
    images = pair.read_overview(shape)
    map_HWC = np.full((*change_HW.shape, 3), 235, dtype=np.uint8)
    for transition in range(classes.num_transitions):
        map_HWC[change_HW == transition] = classes.colour_transition(transition)
    map_HWC[change_HW == nodata] = (160, 160, 160)

    aspect = shape[1] / shape[0]
    figure = Figure(figsize=(4.6 * 3 * min(aspect, 1.6) + 3.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    dates = summary.dates or DatesRecord()
    titles = [
        f"{name}, {date.text}" if date else name
        for name, date in (("before", dates.before), ("after", dates.after))
    ]
    panels = (
        (titles[0], _stretch(images.before_CHW, images.valid_HW)),
        (titles[1], _stretch(images.after_CHW, images.valid_HW)),
        (_title_map(summary), map_HWC),
    )
    for axis, (title, picture_HWC) in zip(axes, panels, strict=True):
        axis.imshow(picture_HWC, interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    if summary.cautions:
        names = ", ".join(dict.fromkeys(caution.name for caution in summary.cautions))
        figure.suptitle(f"Doubtful: {names} (see report.html)", color="#8a5300")
    handles = _legend(classes, summary)
    if handles:
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(folder / name, dpi=110)


def _title_map(summary: Summary) -> str:
    if not summary.transitions:
        return "no change found"
    return f"changed: {say_percent(summary.changed_percent)}"


def _legend(classes: ClassTable, summary: Summary) -> list[Patch]:
    handles = []
    for row in summary.transitions[:MAX_LEGEND_ROWS]:
        ids = classes.names.index(row.from_class), classes.names.index(row.to_class)
        red, green, blue = classes.colour_transition(classes.encode_transition(*ids))
        colour = (red / 255, green / 255, blue / 255)
        amount = f"{row.pixels:,} px" if row.area_ha is None else f"{row.area_ha:.2f} ha"
        label = f"{row.from_class} → {row.to_class}  {amount}"
        handles.append(Patch(facecolor=colour, edgecolor="0.4", label=label))
    rest = len(summary.transitions) - len(handles)
    if rest > 0:
        handles.append(Patch(facecolor="none", edgecolor="none", label=f"and {rest} more"))
    return handles


def _stretch(image_CHW: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
    """Return a picture, (H, W, 3) uint8."""
    return np.moveaxis(draw_rgb(image_CHW, find_range(image_CHW, valid_HW)), 0, -1)
