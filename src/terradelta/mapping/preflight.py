"""The `check` verb: finds problems of a pair before models map it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from terradelta.geo.check import examine_pair
from terradelta.geo.finding import Report
from terradelta.geo.listing import RasterPaths
from terradelta.inference.needs import describe_needs
from terradelta.inference.prediction_options import RasterOptions, require_kinds
from terradelta.models.embedded import load_cards


def check(
    before: RasterPaths,
    after: RasterPaths,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    rasters: RasterOptions = RasterOptions(),  # noqa: B008
) -> Report:
    """Look a pair over before it is predicted.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        model: A model folder, or several that vote; the embedded model by default.
        rasters: How the pair is read, same as in `predict`.

    Returns:
        Findings of all checks that can be made, whatever fails.

    Raises:
        ModelError: If a model cannot be read.
        ArgumentError: If an option cannot be used, or a date is not valid.
    """
    require_kinds(rasters=rasters)
    needs = describe_needs(load_cards(model))
    return examine_pair(before, after, rasters.reading, needs, rasters.dates)
