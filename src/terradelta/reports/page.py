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

    A prediction has one already; made again, it shows the images as they are now, and what `assess`
    and `stats` have found since. The page of a run also evaluates its best model on the validation
    pairs, where the data set is still there.

    Args:
        folder: What `predict`, `merge` or `demo` left behind, or what `train` did.
        areas: The area_estimates.json of `assess`; of a prediction the one in the folder, if there
            is one, if left out.
        zones: The zones.gpkg of `stats`; the one in the folder's `zones`, likewise.
        overwrite: Replace a report that is there.

    Returns:
        The page.

    Raises:
        ArgumentError: If the folder is neither, or a run with areas or zones.
        DataError: If areas or zones cannot be read, or are of another map.
        OutputError: If it lacks a part, or the page cannot be written.
        OutputExistsError: If there is a report and `overwrite` is False.
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
                f"{folder} is a training run, of which there are no areas and no zones",
                fix="leave --areas and --zones out, or give the folder of a prediction",
            )
        claim_file(path, overwrite=overwrite)
        write_training_page(folder)
    else:
        raise ArgumentError(
            f"{folder} has neither a map of changes nor log.csv: it is not a prediction of two "
            "rasters and no training run",
            fix="give the output of `terradelta predict` on two rasters, or of `terradelta train`",
        )
    return path
