"""The two rasters of a map, opened again as they were read for it."""

from __future__ import annotations

from terradelta.geo.listing import RasterPaths
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import DateOptions, PairOptions
from terradelta.prediction.records import RecordedPair


def reopen_pair(
    recorded: RecordedPair, before: RasterPaths | None = None, after: RasterPaths | None = None
) -> RasterPair:
    """Open the pair of a prediction as it was read for the map.

    Args:
        recorded: The content of run.json or job.json.
        before: New path of the earlier raster, if it was moved.
        after: New path of the later raster.

    Raises:
        RasterError: Same as in `RasterPair`.
    """
    return RasterPair(
        before or recorded.before.path,
        after or recorded.after.path,
        recorded.band_names,
        recall_options(recorded),
    )


def recall_options(recorded: RecordedPair) -> PairOptions:
    """Return the options that a pair was read with."""
    parameters = recorded.parameters
    before_nodata, after_nodata = parameters.nodata or (None, None)
    before_mask, after_mask = parameters.mask or (None, None)
    before_range = parameters.value_range
    after_range = parameters.after_value_range or before_range
    return PairOptions(
        bands=parameters.bands,
        grid=parameters.grid,
        aoi=None if parameters.aoi is None else parameters.aoi.path,
        shift_px=recorded.shift_px,
        before=DateOptions(before_nodata, before_range, before_mask),
        after=DateOptions(after_nodata, after_range, after_mask),
        mask_values=parameters.mask_values,
        match_light=parameters.match_light,
    )
