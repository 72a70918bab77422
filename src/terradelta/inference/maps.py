"""The maps of a prediction folder: their names and the meaning of their values."""

from __future__ import annotations

from collections.abc import Mapping

from terradelta.classes import ClassTable
from terradelta.geo.cog import MapFormat
from terradelta.inference.store import CLASS_NODATA, CONFIDENCE_NODATA, LAYERS, transition_format

MAP_LAYERS = {
    "before_class": "before",
    "after_class": "after",
    "change": "change",
    "confidence": "confidence",
}
"""Name of a map's file, without its suffix: the layer of the blocks that it shows."""


def find_band(name: str) -> int:
    """Return the band of the blocks' files that a map shows, counted from 1."""
    return LAYERS.index(MAP_LAYERS[name]) + 1


def describe_maps(classes: ClassTable) -> Mapping[str, MapFormat]:
    """Return the content of each map, by the name of its file."""
    dtype, nodata = transition_format(classes)
    transitions = range(classes.num_transitions)
    formats = {
        f"{date}_class": MapFormat(
            dtype="uint8",
            nodata=CLASS_NODATA,
            description=f"land cover {date}, where changed",
            palette=dict(enumerate(classes.colours)),
            names=dict(enumerate(classes.names)),
        )
        for date in ("before", "after")
    }
    formats["change"] = MapFormat(
        dtype=dtype,
        nodata=nodata,
        description=f"change, from * {classes.num_classes + 1} + to",
        palette={i: classes.colour_transition(i) for i in transitions},
        names={i: classes.name_transition(i) for i in transitions},
    )
    formats["confidence"] = MapFormat(
        dtype="uint8",
        nodata=CONFIDENCE_NODATA,
        description="confidence in percent",
        resampling="AVERAGE",
    )
    return formats
