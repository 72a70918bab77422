"""Computes the share of each pixel that polygons cover: `exactextract` in pixel coordinates.

Legend of the array names: H rows, W columns, M pixels of a polygon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import geopandas
import numpy as np
import shapely
from rasterio.windows import Window
from shapely.geometry import mapping

from terradelta.errors import ArgumentError
from terradelta.geo.grid import Grid


class CoveredPixels(NamedTuple):
    """The pixels of a window that a polygon covers, wholly or in part."""

    polygon: int
    """Which polygon."""
    values_M: np.ndarray
    """The pixels' values."""
    area_m2_M: np.ndarray
    """Ground area of the covered part of each."""


class Coverage:
    """Polygons on a grid, rotated or not.

    A pixel's share is that of its square, assuming even ground within a pixel.

    Args:
        polygons: Polygons in the grid's CRS.
        grid: The grid.

    Raises:
        ArgumentError: If exactextract is not installed.
    """

    def __init__(self, polygons: geopandas.GeoSeries, grid: Grid):
        try:
            import exactextract  # noqa: F401
        except ImportError as error:
            raise ArgumentError(
                "zones were requested and exactextract is not installed",
                fix='pip install "terradelta[zones]"',
            ) from error
        # Rows count downwards, exactextract's y upwards.
        inverse = ~grid.transform
        matrix = (inverse.a, inverse.b, -inverse.d, -inverse.e, inverse.c, -inverse.f)
        self._polygons = np.asarray(polygons.affine_transform(matrix))
        self._tree = shapely.STRtree(self._polygons)

    def measure(
        self, window: Window, values_HW: np.ndarray, area_m2_HW: np.ndarray
    ) -> Iterator[CoveredPixels]:
        """Yield the part of a window that each polygon covers.

        Args:
            window: Its place on the grid.
            values_HW: Values of its pixels, unsigned integers.
            area_m2_HW: Their ground areas.
        """
        from exactextract import exact_extract
        from exactextract.feature import JSONFeatureSource
        from exactextract.raster import NumPyRasterSource

        left, top = window.col_off, -window.row_off
        edges = left, top - window.height, left + window.width, top
        touched = np.sort(self._tree.query(shapely.box(*edges), predicate="intersects"))
        features = [
            {"type": "Feature", "geometry": part, "properties": {"polygon": int(index)}}
            for index in touched
            if (part := _clip(self._polygons[index], edges)) is not None
        ]
        if not features:
            return
        found: Any = exact_extract(
            NumPyRasterSource(values_HW, *edges),
            JSONFeatureSource(features),
            ["values", "coverage", "weights"],
            weights=NumPyRasterSource(area_m2_HW, *edges),
            include_cols=["polygon"],
        )
        for feature in found:
            part = feature["properties"]
            area_m2_M = np.asarray(part["coverage"]) * np.asarray(part["weights"])
            yield CoveredPixels(part["polygon"], np.asarray(part["values"]), area_m2_M)


def _clip(polygon: Any, edges: tuple[float, float, float, float]) -> dict[str, Any] | None:
    """Return the part of a polygon within a window as GeoJSON, None without area."""
    part = shapely.intersection(polygon, shapely.box(*edges))
    pieces = [piece for piece in shapely.get_parts(part) if piece.geom_type == "Polygon"]
    return mapping(shapely.MultiPolygon(pieces)) if pieces else None
