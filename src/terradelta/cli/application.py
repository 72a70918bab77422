"""The application that verbs are added to, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from terradelta.flags import as_flag, read_list
from terradelta.inference.prediction_options import Cluster, MapOptions, RasterOptions, Runtime

app = App(
    name="terradelta",
    help="Map what changed between two images of a place: from what, to what, where and how much.",
    help_format="markdown",
)

Models = Annotated[
    tuple[str, ...] | None,
    as_flag(read_list, name=["--model", "-m"], metavar="FOLDER"),
]
"""Model folder, or several that vote."""
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Overwrite = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Protocol = Literal["second", "from-to", "ual"]
DiscardReviews = Annotated[bool, Parameter(negative=())]
Rasters = Annotated[RasterOptions, Parameter(name="*", group=Group("Reading", sort_key=1))]
Maps = Annotated[MapOptions, Parameter(name="*", group=Group("Map", sort_key=2))]
Networks = Annotated[Runtime, Parameter(name="*", group=Group("Network", sort_key=3))]
Workers = Annotated[Cluster, Parameter(name="*", group=Group("Cluster", sort_key=4))]
Split = Literal["train", "val", "test", "all"]
