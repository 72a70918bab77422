"""The file of changed patches, written chunk by chunk: GeoPackage or GeoParquet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import pandas
import pyogrio
import pyproj
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS

from terradelta.errors import ArgumentError, OutputError

LAYER = "changes"
CHUNK_ROWS = 20_000
GEOPACKAGE_VERSION = "1.2"
"""Readable by GDAL 2.2 and later; the polygons need nothing newer."""
GEOPARQUET_VERSION = "1.0.0"
FIXED_DATE = "1970-01-01T00:00:00.000Z"
"""GDAL stamps a GeoPackage with the time of writing; the same map must give the same bytes."""


@contextmanager
def fix_date() -> Iterator[None]:
    """Make GDAL write a fixed time stamp, so that equal content gives equal bytes."""
    dated = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_DATE})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": dated})


def write_tables(path: Path, tables: Mapping[str, pandas.DataFrame]):
    """Write a GeoPackage of layers, of those with geometry and those without.

    Args:
        path: A file that does not exist yet.
        tables: By layer name; the first is the default layer.

    Raises:
        OutputError: If it cannot be written.
    """
    with guard_writing(path), fix_date():
        for index, (name, table) in enumerate(tables.items()):
            options = {"VERSION": GEOPACKAGE_VERSION} if index == 0 else None
            pyogrio.write_dataframe(table, path, layer=name, driver="GPKG", dataset_options=options)


class PolygonWriter:
    """Writes patches returned by `PatchTracer.take_finished`; a context manager.

    Only one chunk is in memory. Equal patches in equal order give equal bytes. Without
    patches the file still has its columns.

    Args:
        path: `.gpkg` or `.parquet`; must not exist yet.
        crs: CRS of the geometries.

    Raises:
        ArgumentError: If pyarrow, which writes Parquet, is not installed.
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path, crs: CRS | None):
        self.count = 0
        """Polygons so far."""
        self._path = path
        self._waiting: list[geopandas.GeoDataFrame] = []
        self._waiting_rows = 0
        with guard_writing(path):
            self._file = _Parquet(path, crs) if path.suffix == ".parquet" else _GeoPackage(path)

    def __enter__(self) -> PolygonWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object):
        if kind is None:
            self._flush()
        with guard_writing(self._path):
            self._file.close()

    def write(self, frame: geopandas.GeoDataFrame):
        """Add patches.

        Raises:
            OutputError: If the file cannot be written.
        """
        self.count += len(frame)
        self._waiting.append(frame)
        self._waiting_rows += len(frame)
        if self._waiting_rows >= CHUNK_ROWS:
            self._flush()

    def _flush(self):
        filled = [frame for frame in self._waiting if len(frame)] or self._waiting[:1]
        if filled:
            chunk = pandas.concat(filled, ignore_index=True)
            assert isinstance(chunk, geopandas.GeoDataFrame)
            with guard_writing(self._path):
                self._file.append(chunk)
        self._waiting, self._waiting_rows = [], 0


@contextmanager
def guard_writing(path: Path) -> Iterator[None]:
    """Turn errors of the libraries, for example because the disk is full, into an OutputError."""
    try:
        yield
    except (OSError, DataSourceError, DataLayerError, FeatureError, GeometryError) as error:
        raise OutputError(
            f"{path} cannot be written: {error}",
            fix="make room or allow writing there, then run the same command again: it resumes "
            "where it stopped",
        ) from error


class _GeoPackage:
    """Polygons in the layer `changes` of a GeoPackage."""

    def __init__(self, path: Path):
        self._path = path

    def append(self, frame: geopandas.GeoDataFrame):
        exists = self._path.exists()
        if exists and frame.empty:
            return
        with fix_date(), warnings.catch_warnings():
            # A picture without georeference gives polygons without; no warning is needed.
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.write_dataframe(
                frame,
                self._path,
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                append=exists,
                dataset_options=None if exists else {"VERSION": GEOPACKAGE_VERSION},
            )

    def close(self):
        """No file is open between two chunks."""


class _Parquet:
    """Polygons in a GeoParquet file, a row group for each chunk."""

    def __init__(self, path: Path, crs: CRS | None):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ArgumentError(
                f"{path.name} was requested and pyarrow is not installed",
                fix='pip install "terradelta[parquet]", or leave out --vector parquet',
            ) from error
        self._from_pandas = pyarrow.Table.from_pandas
        # Stated, as an empty chunk does not show the types of its columns.
        fields = {
            "from": pyarrow.string(),
            "to": pyarrow.string(),
            "transition": pyarrow.int64(),
            "pixels": pyarrow.int64(),
            "area_m2": pyarrow.float64(),
            "confidence": pyarrow.float64(),
            "before_date": pyarrow.string(),
            "after_date": pyarrow.string(),
            "geometry": pyarrow.binary(),
        }
        self._schema = pyarrow.schema(list(fields.items()), metadata={"geo": _describe(crs)})
        self._writer: Any = pyarrow.parquet.ParquetWriter(path, self._schema)

    def append(self, frame: geopandas.GeoDataFrame):
        table = self._from_pandas(frame.to_wkb(), schema=self._schema, preserve_index=False)
        self._writer.write_table(table.replace_schema_metadata(self._schema.metadata))

    def close(self):
        self._writer.close()


def _describe(crs: CRS | None) -> str:
    """Return GeoParquet's metadata of the geometry column."""
    geometry: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}
    if crs is not None:
        geometry["crs"] = pyproj.CRS.from_user_input(crs).to_json_dict()
    return json.dumps(
        {
            "version": GEOPARQUET_VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": geometry},
        }
    )
