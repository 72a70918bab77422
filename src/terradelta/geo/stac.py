"""STAC items (SpatioTemporal Asset Catalog, version 1.1) of maps, as one item collection.

Source: the specification's item, with the extensions projection 2.0 and classification 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from rasterio.warp import transform_geom

from terradelta.classes import Colour
from terradelta.geo.cog import MapFormat
from terradelta.geo.grid import Grid

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)
UNKNOWN_PERIOD = "The dates of the images are unknown; this is the date when the map was made."
POINTS_PER_SIDE = 16
DEGREE_DIGITS = 9


def describe_item(
    name: str,
    grid: Grid,
    period: Sequence[datetime],
    assets: Mapping[str, Mapping[str, Any]],
    created: datetime | None = None,
) -> dict[str, Any]:
    """Return the item of maps that share their pixels.

    Args:
        name: Identifies it.
        grid: The pixels; they need a CRS.
        period: Begin and end of the period that the maps show, or one instant; if it is empty,
            the item gets the time of its creation, as an item must have a date.
        assets: See `describe_asset`.
        created: When the item was made; now by default.
    """
    created = created or datetime.now(UTC)
    unknown = {} if period else {"description": UNKNOWN_PERIOD}
    period = period or [created]
    assert grid.crs is not None
    geometry = _draw_outline(grid)
    authority = grid.crs.to_authority()
    dates = [_write_moment(date) for date in period]
    is_instant = dates[0] == dates[-1]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "geometry": geometry,
        "bbox": _find_box(geometry),
        "properties": {
            "datetime": dates[0] if is_instant else None,
            **({} if is_instant else {"start_datetime": dates[0], "end_datetime": dates[-1]}),
            "created": _write_moment(created),
            **unknown,
            "proj:code": ":".join(authority) if authority else None,
            **({} if authority else {"proj:wkt2": grid.crs.to_wkt(version="WKT2_2019")}),
            "proj:transform": list(grid.transform)[:6],
            "proj:shape": [grid.height, grid.width],
        },
        "links": [],
        "assets": {key: dict(asset) for key, asset in assets.items()},
    }


def _write_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def describe_asset(
    href: str, map_format: MapFormat, legend: Mapping[int, tuple[str, Colour]] | None = None
) -> dict[str, Any]:
    """Return the asset of one map.

    Args:
        href: Its path, relative to the file of the items.
        map_format: Format of the map.
        legend: Name and colour of its values, if they are classes.
    """
    classes = [
        {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z]+", "-", label.replace("→", "to")).strip("-") or "class",
            "title": label,
            "color_hint": "{:02X}{:02X}{:02X}".format(*colour),
        }
        for value, (label, colour) in sorted((legend or {}).items())
    ]
    return {
        "href": href,
        "type": COG_TYPE,
        "title": map_format.description,
        "roles": ["data"],
        "data_type": map_format.dtype,
        "nodata": map_format.nodata,
        **({"classification:classes": classes} if classes else {}),
    }


def _draw_outline(grid: Grid) -> dict[str, Any]:
    """Return the ground of a grid in degrees, cut in two where it crosses the antimeridian."""
    frame = shapely.Polygon(np.stack(grid.walk_around(POINTS_PER_SIDE), axis=1))
    # Outer rings of GeoJSON are counterclockwise.
    frame = shapely.geometry.polygon.orient(frame)
    outline = transform_geom(
        grid.crs, "EPSG:4326", shapely.geometry.mapping(frame), precision=DEGREE_DIGITS
    )
    assert isinstance(outline, dict)
    return {"type": outline["type"], "coordinates": outline["coordinates"]}


def _find_box(geometry: dict[str, Any]) -> list[float]:
    """Return west, south, east, north; west is larger across the antimeridian."""
    boxes = shapely.bounds(shapely.get_parts(shapely.geometry.shape(geometry)))
    west, south, east, north = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
    if len(boxes) > 1:
        west, east = boxes[boxes[:, 0] > 0, 0].min(), boxes[boxes[:, 2] < 0, 2].max()
    return [float(edge) for edge in (west, south, east, north)]
