"""The GeoPackage of a prediction's patches, copied from GeoParquet if necessary."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyproj

from terradelta.classes import ClassTable
from terradelta.errors import DataError
from terradelta.geo.style import write_layer_style
from terradelta.geo.vector import CHUNK_ROWS, PolygonWriter
from terradelta.outputs import stage_file
from terradelta.prediction.changes import (
    GEOPACKAGE,
    GEOPARQUET,
    check_patches,
    guard_reading,
    require_pyarrow,
)

logger = logging.getLogger(__name__)


def provide_geopackage(folder: Path, classes: ClassTable) -> Path:
    """Return the path of a prediction folder's GeoPackage.

    Reviews are stored in it, and GeoParquet cannot be written row by row: for such polygons a
    GeoPackage is made beside the file.

    Raises:
        ArgumentError: If pyarrow, which reads Parquet, is not installed.
        DataError: If the folder has no polygons.
        OutputError: If the GeoParquet file cannot be read or the GeoPackage cannot be written.
    """
    path = folder / GEOPACKAGE
    if path.is_file():
        return path
    source = folder / GEOPARQUET
    if not source.is_file():
        raise DataError(
            f"{folder} has neither {GEOPACKAGE} nor {GEOPARQUET}",
            fix="run the same `terradelta predict` again",
        )
    logger.info("copying %s into %s, which can store reviews", source, path)
    with stage_file(path) as staged:
        _copy_parquet(source, staged, classes)
    return path


def _copy_parquet(source: Path, target: Path, classes: ClassTable):
    import geopandas

    require_pyarrow(source)
    import pyarrow.parquet

    transitions: set[int] = set()
    with (
        guard_reading(source),
        pyarrow.parquet.ParquetFile(source) as file,
        PolygonWriter(target, None) as writer,
    ):
        facts = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
        crs = pyproj.CRS.from_json_dict(facts["crs"])
        for batch in file.iter_batches(CHUNK_ROWS):
            table = batch.to_pandas()
            check_patches(source, table, classes, has_area=False)
            shapes = geopandas.GeoSeries.from_wkb(table.pop("geometry"), crs=crs)
            writer.write(geopandas.GeoDataFrame(table, geometry=shapes, crs=crs))
            transitions.update(table["transition"])
        if not file.metadata.num_rows:
            writer.write(geopandas.read_parquet(source))
    write_layer_style(target, classes, transitions)
