"""What a prediction shows of itself in a notebook.

Legend of the array names: H rows, W columns, last C red, green, blue, alpha.
"""

from __future__ import annotations

import io
from base64 import b64encode
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
from terradelta.predict.prediction import Prediction
from terradelta.prediction.changes import find_changes, read_patches
from terradelta.prediction.folder import FIX, PredictionFolder
from terradelta.report.document import css_colour, render
from terradelta.report.headline import find_unit, write_headline
from terradelta.report.imagery import choose_shape

MAX_LEGEND_ROWS = 10
MAX_TABLE_ROWS = 8
UNCHANGED = (235, 235, 235, 255)
PICTURE_WIDTH_PX = 420
COLUMNS = ["from", "to", "pixels", "area_ha", "share_percent"]


def tabulate_transitions(prediction: Prediction) -> pandas.DataFrame:
    """Return the transitions of a prediction as a table; see `Prediction.transitions`."""
    _require_whole(prediction)
    table = pandas.DataFrame(prediction.summary["transitions"], columns=COLUMNS)
    return table.astype({"pixels": "int64", "area_ha": "float64", "share_percent": "float64"})


def read_changes(prediction: Prediction) -> geopandas.GeoDataFrame:
    """Return the patches of a prediction; see `Prediction.changes`."""
    _require_whole(prediction)
    path = find_changes(prediction.folder)
    classes = PredictionFolder(prediction.folder).read_classes()
    return read_patches(path, classes, has_area=find_unit(prediction.summary).has_area)


def plot_changes(prediction: Prediction, ax: Axes | None = None) -> Axes:
    """Draw the from-to map; see `Prediction.plot`."""
    _require_map(prediction)
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(8, 6), layout="constrained")
    _draw_map(prediction, ax)
    return ax


def explore_changes(prediction: Prediction, **options: Any) -> Any:
    """Return the patches on a web map; see `Prediction.explore`."""
    changes = read_changes(prediction)
    classes = read_classes(find_map(prediction.folder, "before_class"))
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


def render_prediction(prediction: Prediction) -> str:
    """Return a prediction as a piece of HTML: what changed in words, its map, the largest rows."""
    summary = prediction.summary
    if "blocks" in summary:
        return render("shard.html.jinja", folder=str(prediction.folder), summary=summary)
    unit = find_unit(summary)
    rows = summary["transitions"]
    amounts = unit.say_column([unit.pick(row) for row in rows[:MAX_TABLE_ROWS]])
    return render(
        "notebook.html.jinja",
        headline=write_headline(summary),
        cautions=prediction.cautions,
        rows=list(zip(rows[:MAX_TABLE_ROWS], amounts, strict=True)),
        more=max(0, len(rows) - MAX_TABLE_ROWS),
        unit=unit,
        picture=_draw_thumbnail(prediction) if _has_map(prediction) else None,
        width=PICTURE_WIDTH_PX,
        folder=str(prediction.folder),
    )


def _draw_thumbnail(prediction: Prediction) -> str:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    _draw_map(prediction, figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
    return b64encode(file.getvalue()).decode()


def _draw_map(prediction: Prediction, ax: Axes):
    classes = read_classes(find_map(prediction.folder, "before_class"))
    path = find_map(prediction.folder, "change")
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
    ax.set_title(write_headline(prediction.summary), fontsize=10)
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.tick_params(labelsize=8)
    handles = list(_list_handles(prediction.summary, classes))
    if handles:
        ax.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8
        )


def _list_handles(summary: dict[str, Any], classes: ClassTable) -> list[Patch]:
    unit = find_unit(summary)
    handles = []
    for row in summary["transitions"][:MAX_LEGEND_ROWS]:
        ids = classes.names.index(row["from"]), classes.names.index(row["to"])
        colour = classes.colour_transition(classes.encode_transition(*ids))
        label = f"{row['from']} → {row['to']}  {unit.say(unit.pick(row))}"
        handles.append(Patch(facecolor=css_colour(colour), edgecolor="0.4", label=label))
    return handles


def _has_map(prediction: Prediction) -> bool:
    return find_map(prediction.folder, "change").is_file()


def _require_whole(prediction: Prediction):
    if "blocks" in prediction.summary:
        raise OutputError(
            f"{prediction.folder} is a shard that is under way, and no map yet",
            fix="td.merge(output) joins the shards when all are done",
        )


def _require_map(prediction: Prediction):
    _require_whole(prediction)
    if not _has_map(prediction):
        raise OutputError(
            f"{prediction.folder} has no map of changes: it holds maps of a folder of images",
            fix="open the PNGs in before/, after/ and change/",
        )
