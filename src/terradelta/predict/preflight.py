"""The `check` verb: what is wrong with a pair before it is mapped, for the models that will."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from terradelta.geo.check import examine_pair
from terradelta.geo.finding import Report
from terradelta.geo.listing import RasterPaths
from terradelta.geo.options import Bands, DateOptions, PairOptions
from terradelta.geo.ranges import require_range
from terradelta.predict.needs import describe_needs
from terradelta.predict.run import load_cards


def check(
    before: RasterPaths,
    after: RasterPaths,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    bands: Bands | None = None,
    value_range: tuple[float, float] | None = None,
    after_value_range: tuple[float, float] | None = None,
    grid: str | float = "before",
    aoi: str | Path | None = None,
    before_date: str | None = None,
    after_date: str | None = None,
) -> Report:
    """Look a pair over before it is predicted.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        model: A model folder, or several that vote; the embedded model by default.
        bands: Band numbers (from 1) or names to read instead of those that the rasters name.
        value_range: Values that become the darkest and the brightest the model knows.
        after_value_range: The same of the after image, where it differs.
        grid: Whose pixels the map gets; see `predict`.
        aoi: A vector file with polygons.
        before_date: When the before image was taken, in ISO 8601; by default what the raster says.
        after_date: When the after image was taken.

    Returns:
        Findings; where one fails, what cannot be found without it is left out.

    Raises:
        ModelError: If a model cannot be read.
        ArgumentError: If a range is not finite or runs backwards, or a date is none.
    """
    first, second = (
        DateOptions(value_range=require_range(part, flag))
        for part, flag in (
            (value_range, "--value-range"),
            (after_value_range or value_range, "--after-value-range"),
        )
    )
    options = PairOptions(bands=bands, grid=grid, aoi=aoi, before=first, after=second)
    needs = describe_needs(load_cards(model))
    return examine_pair(before, after, options, needs, (before_date, after_date))
