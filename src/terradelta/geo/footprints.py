"""Outlines of a mosaic's rasters on a grid; without reading pixels.

Legend of the array names: N rasters, P points of an outline.
"""

from __future__ import annotations

import numpy as np
import shapely

from terradelta.geo.grid import Grid, make_transformer
from terradelta.geo.mosaic import Mosaic, Sheet, list_edges

POINTS_PER_SIDE = 16


def draw_footprints(mosaic: Mosaic, grid: Grid) -> np.ndarray:
    """Return the outline of each raster of a mosaic in pixels of a grid, (N,) of polygons."""
    return np.concatenate([_draw_sheet(sheet, grid) for sheet in mosaic.sheets])


def _draw_sheet(sheet: Sheet, grid: Grid) -> np.ndarray:
    edges_N4 = np.array([list_edges(window) for _, window in sheet.placed], dtype=np.float64)
    left, top, right, bottom = (edge[:, None] for edge in edges_N4.T)
    steps = np.linspace(0, 1, POINTS_PER_SIDE, endpoint=False)[None]
    along, down = left + (right - left) * steps, top + (bottom - top) * steps
    back, up = right - (right - left) * steps, bottom - (bottom - top) * steps
    still = np.ones_like(steps)
    columns_NP = np.hstack([along, right * still, back, left * still])
    rows_NP = np.hstack([top * still, down, bottom * still, up])
    x_NP, y_NP = sheet.grid.transform @ (columns_NP, rows_NP)  # pyright: ignore[reportOperatorIssue]
    if sheet.grid.crs != grid.crs and sheet.grid.crs is not None and grid.crs is not None:
        transformer = make_transformer(sheet.grid.crs.to_wkt(), grid.crs.to_wkt())
        x_NP, y_NP = transformer.transform(x_NP, y_NP)
    points_NP = np.stack(~grid.transform @ (x_NP, y_NP), axis=-1)  # pyright: ignore[reportOperatorIssue]
    return np.asarray(shapely.polygons(points_NP[np.isfinite(points_NP).all(axis=(1, 2))]))
