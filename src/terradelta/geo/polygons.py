"""Polygons of any vector file and CRS, laid on a grid."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pyogrio
from pyogrio.errors import DataSourceError

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid

DENSIFY_PARTS = 64
"""A polygon's extent over this is the longest edge that is reprojected as it is."""


def read_polygons(path: str | Path, grid: Grid, option: str) -> geopandas.GeoDataFrame:
    """Return the polygons of a file's first layer, with their attributes, in a grid's CRS.

    Args:
        path: Any vector file that GDAL opens.
        grid: Whose CRS they are brought to, edges densified.
        option: What the file was given as, for messages: "--aoi".

    Raises:
        RasterError: If the file cannot be read, has no CRS or no polygon, or the grid has no CRS.
    """
    if grid.crs is None:
        raise RasterError(
            f"{path} cannot be laid on rasters that have no coordinate reference system",
            fix=f"georeference the rasters, or leave {option} out",
        )
    try:
        layers = pyogrio.list_layers(path)
        # Others are tables, such as the styles that QGIS keeps.
        spatial = [name for name, geometry in layers if geometry is not None]
        frame = geopandas.read_file(path, layer=spatial[0] if spatial else None)
    except DataSourceError as error:
        raise RasterError(
            f"{path} cannot be opened as a vector file: {error}",
            fix=f"give an {option} file that GDAL reads, for example GeoPackage or GeoJSON",
        ) from error
    if frame.crs is None:
        raise RasterError(
            f"{path} has no coordinate reference system, the rasters have {grid.crs}",
            fix="assign one, for example: ogr2ogr -a_srs EPSG:CODE out.gpkg FILE",
        )
    frame = frame[frame.geom_type.isin(("Polygon", "MultiPolygon"))].reset_index(drop=True)
    if frame.empty:
        raise RasterError(f"{path} holds no polygon", fix=f"give an {option} file with polygons")
    left, bottom, right, top = frame.total_bounds
    longest_edge = max(right - left, top - bottom) / DENSIFY_PARTS
    dense = frame.geometry.make_valid().segmentize(longest_edge)
    return frame.set_geometry(dense).to_crs(grid.crs.to_wkt())
