"""The maps of a prediction folder: which there are and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from terradelta.classes import ClassTable
from terradelta.errors import OutputError
from terradelta.geo.cog import MapFormat
from terradelta.geo.grid import allow_no_place
from terradelta.predict.store import CLASS_NODATA, CONFIDENCE_NODATA, transition_format

MAP_FILES = {
    "before_class.tif": "before",
    "after_class.tif": "after",
    "change.tif": "change",
    "confidence.tif": "confidence",
}
"""Map file: the layer of the blocks that it shows."""


def describe_maps(classes: ClassTable) -> Mapping[str, MapFormat]:
    """Return what each map file holds."""
    dtype, nodata = transition_format(classes)
    transitions = range(classes.num_transitions)
    formats = {
        f"{date}_class.tif": MapFormat(
            dtype="uint8",
            nodata=CLASS_NODATA,
            description=f"land cover {date}, where changed",
            palette=dict(enumerate(classes.colours)),
            names=dict(enumerate(classes.names)),
        )
        for date in ("before", "after")
    }
    formats["change.tif"] = MapFormat(
        dtype=dtype,
        nodata=nodata,
        description=f"change, from * {classes.num_classes + 1} + to",
        palette={i: classes.colour_transition(i) for i in transitions},
        names={i: classes.name_transition(i) for i in transitions},
    )
    formats["confidence.tif"] = MapFormat(
        dtype="uint8",
        nodata=CONFIDENCE_NODATA,
        description="confidence in percent",
        resampling="AVERAGE",
    )
    return formats


def read_classes(folder: Path) -> ClassTable:
    """Return what the values of a prediction's maps mean, as `before_class.tif` itself says.

    Raises:
        OutputError: If it is not there or does not say.
    """
    path = folder / "before_class.tif"
    try:
        with allow_no_place(), rasterio.open(path) as dataset:
            tags, colours = dataset.tags(1), dataset.colormap(1)
    except (RasterioError, ValueError) as error:
        raise OutputError(
            f"{path} does not tell the classes of the map: {error}",
            fix="give the folder of a prediction of two rasters, as `terradelta predict` left it",
        ) from error
    names = {
        int(key.removeprefix("class_")): name
        for key, name in tags.items()
        if key.startswith("class_")
    }
    ids = range(len(names))
    return ClassTable(
        tuple(names[index] for index in ids), tuple(colours[index][:3] for index in ids)
    )
