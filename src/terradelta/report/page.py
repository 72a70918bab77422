"""The `report` verb: one offline page for a prediction or a training run."""

from __future__ import annotations

from pathlib import Path

from terradelta.errors import ArgumentError
from terradelta.outputs import refuse_existing

REPORT_FILE = "report.html"


def report(folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write report.html into the folder of a raster prediction or of a training run.

    A prediction has one already; made again, it shows the images as they are now. The page of a run
    also evaluates its best model on the validation pairs, where the data set is still there.

    Args:
        folder: What `predict`, `merge` or `demo` left behind, or what `train` did.
        overwrite: Replace a report that is there.

    Returns:
        The page.

    Raises:
        ArgumentError: If the folder is neither.
        OutputError: If it lacks a part, or the page cannot be written.
        OutputExistsError: If there is a report and `overwrite` is False.
    """
    folder = Path(folder)
    path = folder / REPORT_FILE
    if (folder / "change.tif").is_file():
        from terradelta.report.prediction_page import write_prediction_page as write
    elif (folder / "log.csv").is_file():
        from terradelta.report.training_page import write_training_page as write
    else:
        raise ArgumentError(
            f"{folder} has neither change.tif nor log.csv: it is no prediction of two rasters and "
            "no training run",
            fix="give the output of `terradelta predict` on two rasters, or of `terradelta train`",
        )
    refuse_existing(path, overwrite)
    write(folder)
    return path
