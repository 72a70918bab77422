"""The prediction folder that is viewed: the content of its files, and its two rasters."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.io import DatasetReader

from terradelta.classes import ClassTable
from terradelta.errors import DataError, RasterError
from terradelta.geo.grid import OPEN_ERRORS, Grid, allow_no_place
from terradelta.geo.listing import RasterPaths, name_source
from terradelta.geo.mosaic import describe_images, open_images
from terradelta.geo.pair_options import Bands
from terradelta.prediction.folder import SUMMARY_FILE, PredictionFolder
from terradelta.prediction.records import PairRun, SourceRecord, Summary
from terradelta.viewer.geopackage import provide_geopackage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A prediction of a georeferenced pair."""

    folder: Path
    """The prediction folder."""
    rasters: dict[str, RasterPaths]
    """The raster or mosaic of each date, "before" and "after"."""
    polygons: Path
    """The GeoPackage of its patches."""
    classes: ClassTable
    """Classes of the maps' values."""
    grid: Grid
    """The pixels of the pair that it was made of; the maps lie on it or on a part of it."""
    run: PairRun
    """How the pair was read."""
    summary: Summary
    """The sums of the map."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        before: RasterPaths | None = None,
        after: RasterPaths | None = None,
    ) -> Result:
        """Read a prediction folder.

        Args:
            folder: Prediction folder of two rasters.
            before: New path of the earlier raster or mosaic, if it was moved.
            after: New path of the later one.

        Raises:
            DataError: If the folder is not a prediction of rasters.
            RasterError: If the prediction has no CRS or one of its rasters cannot be opened.
            OutputError: If one of its files cannot be read, or GeoParquet polygons cannot be copied
                into a GeoPackage.
        """
        folder = Path(folder)
        files = PredictionFolder(folder)
        if (folder / SUMMARY_FILE).is_file() and not files.has_map:
            raise DataError(
                f"{folder} holds no map of changes: its images have no place on a map",
                fix="look at the pictures in its before/, after/ and change/",
            )
        run, grid = files.read_pair(), files.read_grid()
        if grid.crs is None:
            raise RasterError(
                f"{folder} has no coordinate reference system, and a map needs one",
                fix="look at its picture.png (`predict --picture`) or report.html, or georeference "
                "both rasters and predict again",
            )
        rasters = {
            date: _find_raster(folder, date, recorded, run.parameters.bands, given)
            for date, recorded, given in (
                ("before", run.before, before),
                ("after", run.after, after),
            )
        }
        classes = files.read_classes()
        return cls(
            folder=folder,
            rasters=rasters,
            polygons=provide_geopackage(folder, classes),
            classes=classes,
            grid=grid,
            run=run,
            summary=files.read_summary(classes),
        )


def open_map(path: Path) -> DatasetReader:
    """Open a map of a prediction folder.

    Raises:
        RasterError: If it cannot be opened, or has no CRS.
    """
    try:
        with allow_no_place():
            dataset = rasterio.open(path)
    except OPEN_ERRORS as error:
        raise RasterError(
            f"{path} cannot be opened: {error}", fix="run the same `terradelta predict` again"
        ) from error
    if dataset.crs is None:
        dataset.close()
        raise RasterError(
            f"{path} has no coordinate reference system, and the pair that was mapped has one",
            fix="run the same `terradelta predict` again: the file is damaged",
        )
    return dataset


def _find_raster(
    folder: Path,
    date: str,
    recorded: SourceRecord,
    bands: Bands | None,
    given: RasterPaths | None,
) -> RasterPaths:
    """Return a raster or mosaic that can be opened."""
    source: RasterPaths = recorded.path if given is None else given
    try:
        with open_images(source, bands) as images:
            found = describe_images(images, source).header_sha256
    except RasterError as error:
        if given is not None:
            raise
        raise RasterError(
            f"{name_source(source)}, the {date} raster of {folder}, cannot be opened: {error}",
            fix=f"give its new path with --{date} FILE",
        ) from error
    if found != recorded.header_sha256:
        logger.warning(
            "%s differs from the file that %s was made from",
            name_source(source),
            folder,
        )
    return source
