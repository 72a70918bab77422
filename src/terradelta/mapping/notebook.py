"""Shows a prediction, or a shard of one, in a notebook.

Legend of the array names: H rows, W columns, last C red, green, blue, alpha.
"""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio.enums import Resampling

from terradelta.classes import ClassTable
from terradelta.errors import ArgumentError, OutputError
from terradelta.geo.cog import find_map, read_classes
from terradelta.geo.grid import OPEN_ERRORS, Grid, allow_no_place
from terradelta.prediction.changes import find_changes, read_patches
from terradelta.prediction.folder import FIX, PredictionFolder
from terradelta.prediction.records import Summary
from terradelta.reports.document import css_colour, render
from terradelta.reports.headline import find_unit, write_headline
from terradelta.reports.imagery import choose_shape

MAX_LEGEND_ROWS = 10
MAX_TABLE_ROWS = 8
UNCHANGED = (235, 235, 235, 255)
PICTURE_WIDTH_PX = 420
COLUMNS = ["from", "to", "pixels", "area_ha", "share_percent"]


def tabulate_transitions(summary: Summary) -> pandas.DataFrame:
    """Return the transitions of a prediction as a table; see `Prediction.transitions`."""
    rows = [
        (row.from_class, row.to_class, row.pixels, row.area_ha, row.share_percent)
        for row in summary.transitions
    ]
    table = pandas.DataFrame(rows, columns=COLUMNS)
    return table.astype({"pixels": "int64", "area_ha": "float64", "share_percent": "float64"})


def read_changes(folder: Path, summary: Summary) -> geopandas.GeoDataFrame:
    """Return the patches of a prediction; see `Prediction.changes`."""
    path = find_changes(folder)
    classes = PredictionFolder(folder).read_classes()
    return read_patches(path, classes, has_area=find_unit(summary).has_area)


def plot_changes(folder: Path, summary: Summary, ax: Axes | None = None) -> Axes:
    """Draw the from-to map; see `Prediction.plot`."""
    _require_map(folder)
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(8, 6), layout="constrained")
    _draw_map(folder, summary, ax)
    return ax


def explore_changes(folder: Path, summary: Summary, **options: Any) -> Any:
    """Return the patches on a web map; see `Prediction.explore`."""
    changes = read_changes(folder, summary)
    classes = read_classes(find_map(folder, "before_class"))
    occurring = [name for name in dict.fromkeys(classes.names) if name in set(changes["to"])]
    colours = [css_colour(classes.colours[classes.names.index(name)]) for name in occurring]
    defaults = {
        "column": "to",
        "categories": occurring,
        "cmap": colours,
        "tooltip": ["from", "to", "area_m2", "confidence"],
    }
    try:
        return changes.explore(**{**defaults, **options})
    except ImportError as error:
        raise ArgumentError(
            f"explore needs folium and mapclassify: {error}",
            fix='pip install "terradelta[notebook]"',
        ) from error


def render_prediction(folder: Path, summary: Summary) -> str:
    """Return a prediction as a piece of HTML: what changed in words, its map, the largest rows."""
    unit = find_unit(summary)
    rows = summary.transitions
    amounts = unit.say_column([unit.pick(row) for row in rows[:MAX_TABLE_ROWS]])
    return render(
        "notebook.html.jinja",
        headline=write_headline(summary),
        cautions=summary.cautions,
        rows=list(zip(rows[:MAX_TABLE_ROWS], amounts, strict=True)),
        more=max(0, len(rows) - MAX_TABLE_ROWS),
        unit=unit,
        picture=_draw_thumbnail(folder, summary) if _has_map(folder) else None,
        width=PICTURE_WIDTH_PX,
        folder=str(folder),
    )


def render_shard(folder: Path, blocks_done: int, blocks: int) -> str:
    """Return an unfinished map as a piece of HTML."""
    return render("shard.html.jinja", folder=str(folder), blocks_done=blocks_done, blocks=blocks)


def _draw_thumbnail(folder: Path, summary: Summary) -> str:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    _draw_map(folder, summary, figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
    return b64encode(file.getvalue()).decode()


def _draw_map(folder: Path, summary: Summary, ax: Axes):
    classes = read_classes(find_map(folder, "before_class"))
    path = find_map(folder, "change")
    try:
        with allow_no_place(), rasterio.open(path) as dataset:
            grid = Grid.of(dataset)
            shape = choose_shape(grid)
            change_HW = dataset.read(1, out_shape=shape, resampling=Resampling.mode)
            nodata = dataset.nodata
    except OPEN_ERRORS as error:
        raise OutputError(f"{path} cannot be read: {error}", FIX) from error
    map_HWC = np.zeros((*shape, 4), dtype=np.uint8)
    map_HWC[change_HW == 0] = UNCHANGED
    for transition in np.unique(change_HW).tolist():
        if transition not in (0, nodata):
            map_HWC[change_HW == transition] = (*classes.colour_transition(transition), 255)
    # Coordinates belong to the axes only where rows and columns run along them.
    is_upright = grid.crs is not None and grid.transform.b == grid.transform.d == 0
    left, bottom, right, top = grid.bounds if is_upright else (0, grid.height, grid.width, 0)
    ax.imshow(map_HWC, extent=(left, right, bottom, top), interpolation="nearest")
    ax.set_title(write_headline(summary), fontsize=10)
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.tick_params(labelsize=8)
    handles = list(_list_handles(summary, classes))
    if handles:
        ax.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8
        )


def _list_handles(summary: Summary, classes: ClassTable) -> list[Patch]:
    unit = find_unit(summary)
    handles = []
    for row in summary.transitions[:MAX_LEGEND_ROWS]:
        ids = classes.names.index(row.from_class), classes.names.index(row.to_class)
        colour = classes.colour_transition(classes.encode_transition(*ids))
        label = f"{row.from_class} → {row.to_class}  {unit.say(unit.pick(row))}"
        handles.append(Patch(facecolor=css_colour(colour), edgecolor="0.4", label=label))
    return handles


def _has_map(folder: Path) -> bool:
    return find_map(folder, "change").is_file()


def _require_map(folder: Path):
    if not _has_map(folder):
        raise OutputError(
            f"{folder} has no map of changes: it holds maps of a folder of images",
            fix="open the PNGs in before/, after/ and change/",
        )
