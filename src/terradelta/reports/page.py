"""The `report` verb: one offline page for a prediction or a training run."""

from __future__ import annotations

from pathlib import Path

from terradelta.destination import claim_file
from terradelta.errors import ArgumentError
from terradelta.geo.cog import find_map
from terradelta.reports.document import REPORT_FILE


def report(
    folder: str | Path,
    *,
    areas: str | Path | None = None,
    zones: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write report.html into the folder of a raster prediction or of a training run.

    A prediction has one already; write it again to show the present images and the results of
    `assess` and `stats`. The page of a run also evaluates its best model on the validation pairs,
    if the data set still exists.

    Args:
        folder: Output of `predict`, `merge` or `demo`, or of `train`.
        areas: The area_estimates.json of `assess`; for a prediction, by default the one in the
            folder, if there is one.
        zones: The zones.gpkg of `stats`; by default the one in the folder's `zones`, if there is
            one.
        overwrite: Replace a report that exists.

    Returns:
        The page.

    Raises:
        ArgumentError: If the folder is neither, or a run with areas or zones.
        DataError: If areas or zones cannot be read, or belong to another map.
        OutputError: If it lacks a part, or the page cannot be written.
        OutputExistsError: If a report exists and `overwrite` is False.
    """
    folder = Path(folder)
    path = folder / REPORT_FILE
    if find_map(folder, "change").is_file():
        from terradelta.reports.prediction_page import write_prediction_page

        claim_file(path, [file for file in (areas, zones) if file], overwrite=overwrite)
        write_prediction_page(
            folder, *(None if file is None else Path(file) for file in (areas, zones))
        )
    elif (folder / "log.csv").is_file():
        from terradelta.reports.training_page import write_training_page

        if areas is not None or zones is not None:
            raise ArgumentError(
                f"{folder} is a training run, which has no areas and no zones",
                fix="leave --areas and --zones out, or give the folder of a prediction",
            )
        claim_file(path, overwrite=overwrite)
        write_training_page(folder)
    else:
        raise ArgumentError(
            f"{folder} has neither a map of changes nor log.csv: it is not a prediction of two "
            "rasters nor a training run",
            fix="give the output of `terradelta predict` on two rasters, or of `terradelta train`",
        )
    return path
