"""Polygons of a from-to map, with ground area and confidence, as a GeoPackage layer.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio import features
from shapely import STRtree, from_wkb, to_wkb
from shapely.geometry import box, shape

from terradelta.classes import ClassTable
from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid, cut_window
from terradelta.outputs import stage_file

STRIP_HEIGHT_PX = 512


def trace_changes(
    change_path: Path, confidence_path: Path, classes: ClassTable
) -> geopandas.GeoDataFrame:
    """Return one polygon per 4-connected patch of one transition.

    Args:
        change_path: From-to map as `predict` writes it (0 = unchanged).
        confidence_path: Confidence in percent on the same grid.
        classes: The classes of the map.

    Returns:
        Columns `from`, `to` (class names), `transition` (value in the map), `pixels`, `area_m2`
        (sum of the ground areas of the patch's pixels; missing without a CRS), `confidence` (mean,
        0 to 1) and the geometry in the map's CRS, largest patch first.
    """
    with rasterio.open(change_path) as change:
        grid = Grid.of(change)
        traced = [
            (shape(geometry), int(value))
            for geometry, value in _trace(change)
            if value not in (0, change.nodata)
        ]
    geometries = [geometry for geometry, _ in traced]
    transitions = np.array([value for _, value in traced], dtype=np.int64)
    pixels, area_m2, confidence = _measure(geometries, grid, confidence_path)
    from_ids, to_ids = classes.decode_transition(transitions)
    names = np.array(classes.names, dtype=object)
    table = {
        "from": names[from_ids],
        "to": names[to_ids],
        "transition": transitions,
        "pixels": pixels,
        "area_m2": area_m2 if grid.crs is not None else np.full(len(pixels), np.nan),
        "confidence": confidence / 100,
    }
    # Through WKB, so that an empty list still makes a geometry column.
    geometry = from_wkb(to_wkb(np.array(geometries, dtype=object)))
    order = np.argsort(-pixels, kind="stable")
    columns = {name: values[order] for name, values in table.items()}
    return geopandas.GeoDataFrame(columns, geometry=geometry[order], crs=grid.crs)


def write_changes(frame: geopandas.GeoDataFrame, path: Path):
    """Write the polygons to a GeoPackage with the layer `changes`, whole or not at all."""
    with stage_file(path) as staged:
        frame.to_file(staged, layer="changes", driver="GPKG", engine="pyogrio")


def _trace(change: rasterio.DatasetReader) -> Iterator[tuple[dict, float]]:
    # GDAL traces 8, 16 and 32-bit integers, and streams the band line by line.
    yield from features.shapes(rasterio.band(change, 1), connectivity=4, transform=change.transform)


def _measure(
    geometries: list, grid: Grid, confidence_path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels, area in m2 and mean confidence of each polygon, strip by strip."""
    pixels = np.zeros(len(geometries), dtype=np.int64)
    area_m2 = np.zeros(len(geometries))
    confidence = np.zeros(len(geometries))
    if not geometries:
        return pixels, area_m2, confidence
    tree = STRtree(geometries)
    with rasterio.open(confidence_path) as source:
        for top in range(0, grid.height, STRIP_HEIGHT_PX):
            height = min(STRIP_HEIGHT_PX, grid.height - top)
            window = cut_window(0, top, grid.width, height)
            strip = grid.crop(window)
            touched = tree.query(box(*strip.bounds))
            if len(touched) == 0:
                continue
            burnt = features.rasterize(
                ((geometries[index], index + 1) for index in touched),
                out_shape=(height, grid.width),
                transform=strip.transform,
                dtype="int32",
            )
            owner_HW = np.asarray(burnt)
            inside_HW = owner_HW > 0
            owner = owner_HW[inside_HW] - 1
            size = len(geometries)
            pixels += np.bincount(owner, minlength=size)
            values = source.read(1, window=window)[inside_HW]
            confidence += np.bincount(owner, weights=values, minlength=size)
            if grid.crs is not None:
                areas = measure_pixels(grid, window)[inside_HW]
                area_m2 += np.bincount(owner, weights=areas, minlength=size)
    return pixels, area_m2, confidence / pixels
