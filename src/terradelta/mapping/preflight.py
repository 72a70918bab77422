"""The `check` verb: what is wrong with a pair before it is mapped, for the models that will."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from terradelta.geo.check import examine_pair
from terradelta.geo.finding import Report
from terradelta.geo.listing import RasterPaths
from terradelta.geo.pair_options import Bands, Both, PairOptions
from terradelta.inference.needs import describe_needs
from terradelta.models.embedded import load_cards


def check(
    before: RasterPaths,
    after: RasterPaths,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    bands: Bands | None = None,
    value_range: tuple[float, float] | None = None,
    after_value_range: tuple[float, float] | None = None,
    match_light: str = "none",
    nodata: Both[float] = None,
    mask: Both[str | Path] = None,
    mask_values: str | None = None,
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
        match_light: How the after image gets the light of the before image; see `predict`.
        nodata: A stored value that is no data; one for both dates, or a pair.
        mask: A raster of pixels to leave out; one for both dates, or a pair.
        mask_values: Which values of the masks leave a pixel out.
        grid: Whose pixels the map gets; see `predict`.
        aoi: A vector file with polygons.
        before_date: When the before image was taken, in ISO 8601; by default what the raster says.
        after_date: When the after image was taken.

    Returns:
        Findings of all that can be looked at, whatever fails.

    Raises:
        ModelError: If a model cannot be read.
        ArgumentError: If an option cannot be used, or a date is none.
    """
    options = PairOptions.from_flags(
        bands=bands,
        grid=grid,
        aoi=aoi,
        value_range=value_range,
        after_value_range=after_value_range,
        match_light=match_light,
        nodata=nodata,
        mask=mask,
        mask_values=mask_values,
    )
    needs = describe_needs(load_cards(model))
    return examine_pair(before, after, options, needs, (before_date, after_date))
