"""Polygons of any vector file and CRS, in the CRS of a grid."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS
from shapely.errors import ShapelyError

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid
from terradelta.geo.placement import require_way
from terradelta.geo.reprojection import cut_polygons, extract_polygons, show_whole

LAYER_MARK = "#"
"""Separator of a file and the name of one of its layers."""
NOT_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString", "MultiCurve", "CompoundCurve")


def split_layer(path: str | Path) -> tuple[str, str | None]:
    """Return the file and the layer in FILE#LAYER; the layer is None if not named."""
    text = str(path)
    if LAYER_MARK not in text or Path(text).exists():
        return text, None
    file, _, layer = text.rpartition(LAYER_MARK)
    return file, layer


def read_polygons(
    path: str | Path, grid: Grid, option: str, *, is_whole: bool = False
) -> geopandas.GeoDataFrame:
    """Return the polygons of a file's layer, with their attributes, in a grid's CRS.

    Polygons that the grid's CRS cannot represent as a whole are cut to the surroundings of the
    grid.

    Args:
        path: Any vector file that GDAL opens, or FILE#LAYER; without a named layer, the
            only one that holds polygons.
        grid: Grid whose CRS they are transformed to, with densified edges.
        option: Option that gave the file, for messages: "--aoi".
        is_whole: Whether polygons that cannot be represented as a whole are refused.

    Raises:
        RasterError: If the file cannot be read, has no CRS or no polygon, holds them in several
            layers, or the grid has no CRS or cannot represent them.
    """
    frame = load_polygons(path, grid, option)
    assert grid.crs is not None
    assert frame.crs is not None
    shapes = [show_whole(shape, frame.crs, grid.crs) for shape in frame.geometry]
    missing = [index for index, shape in enumerate(shapes) if shape is None]
    if missing and not is_whole:
        cut = cut_polygons(np.asarray(frame.geometry)[missing], frame.crs, grid)
        for index, shape in zip(missing, cut, strict=True):
            shapes[index] = shape
    if any(shape is None for shape in shapes):
        raise refuse_polygons(path, frame, grid.crs)
    series = geopandas.GeoSeries(np.array(shapes, object), crs=grid.crs.to_wkt())
    return frame.set_geometry(series)


def load_polygons(path: str | Path, grid: Grid, option: str) -> geopandas.GeoDataFrame:
    """Return the polygons of a file's layer made valid, in their own CRS.

    Args:
        path: See `read_polygons`.
        grid: Grid that they are used on.
        option: Option that gave the file, for messages.

    Raises:
        RasterError: See `read_polygons`.
    """
    if grid.crs is None:
        raise RasterError(
            f"{path} cannot be laid on rasters that have no coordinate reference system of the "
            "Earth",
            fix=f"georeference the rasters, or leave {option} out",
        )
    frame = _choose_layer(path, option)
    if frame.crs is None:
        raise RasterError(
            f"{path} has no coordinate reference system, the rasters have {grid.crs}",
            fix="assign one, for example: ogr2ogr -a_srs EPSG:CODE out.gpkg FILE",
        )
    require_way(CRS.from_wkt(frame.crs.to_wkt()), str(path))
    return frame


def refuse_polygons(path: str | Path, frame: geopandas.GeoDataFrame, crs: CRS) -> RasterError:
    """Return the error that a CRS cannot represent the polygons of a file."""
    assert frame.crs is not None
    return RasterError(
        f"{crs} cannot show all of {path}, which covers {frame.total_bounds.tolist()} in "
        f"{frame.crs.name}",
        fix="give polygons of the rasters' part of the world, or a grid in a CRS that shows them: "
        "--grid EPSG:6933@10",
    )


def _choose_layer(path: str | Path, option: str) -> geopandas.GeoDataFrame:
    """Return the rows with polygons of the named layer, or of the only one with polygons."""
    file, wanted = split_layer(path)
    try:
        layers = {str(name): kind for name, kind in pyogrio.list_layers(file)}
        if wanted is not None and wanted not in layers:
            raise RasterError(
                f"{file} has no layer {wanted}, it has {', '.join(layers)}",
                fix=f"name one of its layers: {option} {file}{LAYER_MARK}LAYER",
            )
        # Layers without geometry are tables, such as QGIS's styles.
        names = [
            name
            for name, kind in layers.items()
            if kind is not None and str(kind).split(" ")[0] not in NOT_AREAS
        ]
        # A vertex that is NaN is refused later, with its coordinates.
        with np.errstate(invalid="ignore"):
            found = {
                name: _keep_polygons(geopandas.read_file(file, layer=name), path)
                for name in ([wanted] if wanted is not None else names)
                if layers[name] is not None
            }
    except (
        DataSourceError,
        DataLayerError,
        FeatureError,
        GeometryError,
        ShapelyError,
    ) as error:
        raise RasterError(
            f"{path} cannot be opened as a vector file: {error}",
            fix=f"give an {option} file that GDAL reads, for example GeoPackage or GeoJSON",
        ) from error
    filled = {name: frame for name, frame in found.items() if len(frame)}
    if not filled:
        raise RasterError(f"{path} holds no polygon", fix=f"give an {option} file with polygons")
    if len(filled) > 1:
        raise RasterError(
            f"{path} holds polygons in several layers: {', '.join(filled)}",
            fix=f"name one of them: {option} {file}{LAYER_MARK}{next(iter(filled))}",
        )
    return next(iter(filled.values()))


def _keep_polygons(frame: geopandas.GeoDataFrame, path: str | Path) -> geopandas.GeoDataFrame:
    """Return the rows that hold polygons, without other geometries."""
    shapes = [extract_polygons(shape, path) for shape in frame.geometry]
    kept = [shape is not None for shape in shapes]
    series = geopandas.GeoSeries(np.array(shapes, object), crs=frame.crs, index=frame.index)
    return geopandas.GeoDataFrame(frame.set_geometry(series)[kept].reset_index(drop=True))
