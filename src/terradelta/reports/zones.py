"""A choropleth of the sums of `terradelta stats` within polygons.

Legend of the array names: N points of an outline, last 2 x and y.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from matplotlib.ticker import MaxNLocator
from shapely.errors import ShapelyError

from terradelta.classes import ClassTable
from terradelta.errors import DataError
from terradelta.geo.grid import Grid
from terradelta.reports.wording import Unit, say_percent
from terradelta.tables import Numbers, TableError, check_table

ZONES_FILE = Path("zones") / "zones.gpkg"
LAYER = "zones"
COLUMNS = ("zone", "valid_ha", "changed_ha", "changed_percent")
VIEW_WIDTH = 1000
"""Width of the drawing in its own units; it is shown at any width."""
MAX_ASPECT = 1.4
"""Largest ratio of height to width of a drawing."""
MAX_OUTLINE_BYTES = 1_500_000
"""Size of all outlines together, so that the page stays below 5 MB."""
TOLERANCE = 0.5
"""Tolerance of simplified outlines, in units of the drawing; larger if they take too many bytes."""
MAX_ROWS = 50
"""Rows of the table; zones.csv has all."""
LEAST_NUMBERED = 45
"""Width and height, in units of the drawing, from which a zone shows its number."""
STEPS = 5
"""Largest number of shades."""
HECTARES = Unit(True)


@dataclass(frozen=True)
class Zone:
    """A polygon of the map of zones."""

    label: str
    """Text shown under the pointer."""
    path: str
    """SVG path."""
    shade: int | None
    """Its step of the legend; None without data."""


@dataclass(frozen=True)
class Number:
    """A zone's number in the table, if the zone is large enough on the map."""

    text: str
    x_percent: float
    y_percent: float


@dataclass(frozen=True)
class ZoneMap:
    """A page's section on zones."""

    width: int
    height: int
    zones: tuple[Zone, ...]
    numbers: tuple[Number, ...]
    steps: tuple[str, ...]
    """Meaning of the shades."""
    has_empty: bool
    """Whether some zone has no data."""
    rows: tuple[dict[str, str], ...]
    """Rows of the table, the largest change first."""
    count: int
    """Number of all zones."""


def read_zones(path: Path, grid: Grid) -> geopandas.GeoDataFrame:
    """Return the zones of a zones.gpkg, the largest change first.

    Args:
        path: The file.
        grid: Grid of the map, whose CRS they must have.

    Raises:
        DataError: If it cannot be read, or belongs to another map.
    """
    try:
        frame = pyogrio.read_dataframe(path, layer=LAYER)
    except (OSError, ValueError, RuntimeError, ShapelyError) as error:
        raise DataError(
            f"{path} cannot be read as zones: {error}",
            fix="give the zones.gpkg that `terradelta stats` wrote",
        ) from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing or not isinstance(frame, geopandas.GeoDataFrame):
        raise DataError(
            f"{path} lacks {', '.join(missing) or 'polygons'}",
            fix="give the zones.gpkg that `terradelta stats` wrote",
        )
    try:
        check_table(frame, {name: _choose_numbers(name) for name in frame if _is_amount(name)})
    except TableError as error:
        raise DataError(
            f"{path}: in the layer {LAYER!r}, {error}",
            fix="run `terradelta stats` again for this map",
        ) from error
    if frame.crs is None or grid.crs is None or frame.crs != grid.crs.to_wkt():
        raise DataError(
            f"{path} is in {frame.crs and frame.crs.name}, the map in {grid.crs}",
            fix="run `terradelta stats` for this map",
        )
    order = np.argsort(-frame["changed_ha"].to_numpy(), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _is_amount(name: str) -> bool:
    return name in COLUMNS[1:] or name.endswith(" (ha)")


def _choose_numbers(name: str) -> Numbers:
    # The share of a zone without data is unknown.
    return Numbers(0, 100.001, may_be_empty=True) if name == COLUMNS[-1] else Numbers(0, 1e12)


def draw_zones(frame: geopandas.GeoDataFrame, grid: Grid, classes: ClassTable) -> ZoneMap:
    """Lay out zones, clipped to the map, by the share of each that changed.

    Args:
        frame: Result of `read_zones`.
        grid: Grid of the map.
        classes: Classes of the map.
    """
    drawn, height = _place(frame.geometry.to_numpy(), grid)
    labels = [_label(row) for row in frame.to_dict("records")]
    is_empty = frame["valid_ha"].to_numpy() == 0
    percent = frame["changed_percent"].to_numpy(dtype=float)
    edges = MaxNLocator(STEPS).tick_values(0, max(np.nanmax(percent, initial=0), 1e-6))
    edges = edges[: np.searchsorted(edges, np.nanmax(percent, initial=0)) + 1]
    shades = np.clip(np.searchsorted(edges, percent, side="right") - 1, 0, len(edges) - 2)
    return ZoneMap(
        VIEW_WIDTH,
        height,
        tuple(
            Zone(label, path, None if empty else int(shade))
            for label, path, empty, shade in zip(
                labels, _write_paths(drawn, labels), is_empty, shades, strict=True
            )
            if path
        ),
        tuple(_number(drawn[:MAX_ROWS], height)),
        tuple(f"{low:g} to {high:g} %" for low, high in pairwise(edges)),
        bool(is_empty.any()),
        tuple(_write_rows(frame.iloc[:MAX_ROWS], classes)),
        len(frame),
    )


def _place(geometries: np.ndarray, grid: Grid) -> tuple[np.ndarray, int]:
    """Return polygons clipped to the map in units of the drawing, and its height."""
    left, bottom, right, top = grid.bounds
    assert grid.crs is not None
    # Degrees of longitude are shorter than those of latitude.
    shrink = np.cos(np.radians((bottom + top) / 2)) if grid.crs.is_geographic else 1.0
    scale = min(VIEW_WIDTH / ((right - left) * shrink), MAX_ASPECT * VIEW_WIDTH / (top - bottom))
    margin = (VIEW_WIDTH - scale * shrink * (right - left)) / 2
    clipped = shapely.clip_by_rect(geometries, left, bottom, right, top)

    def to_drawing(points_N2: np.ndarray) -> np.ndarray:
        x, y = points_N2[:, 0], points_N2[:, 1]
        return np.stack([margin + (x - left) * shrink * scale, (top - y) * scale], axis=1)

    return shapely.transform(clipped, to_drawing), round((top - bottom) * scale)


def _write_paths(drawn: np.ndarray, labels: list[str]) -> list[str]:
    """Return SVG paths, as detailed as their total size allows; empty if too small to draw."""
    tolerance = TOLERANCE
    while True:
        simple = shapely.simplify(drawn, tolerance, preserve_topology=False)
        paths = [_write_path(geometry) for geometry in simple]
        sizes = (len(path) + len(label) for path, label in zip(paths, labels, strict=True) if path)
        if sum(sizes) <= MAX_OUTLINE_BYTES:
            return paths
        tolerance *= 2


def _write_path(geometry: shapely.Geometry) -> str:
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring.coords[:-1]) + "z"
        for part in shapely.get_parts(geometry)
        if isinstance(part, shapely.Polygon)
        for ring in shapely.get_rings(part)
    )


def _number(drawn: np.ndarray, height: int) -> list[Number]:
    """Return the positions of the numbers of the table's zones."""
    numbers = []
    for index, geometry in enumerate(drawn, start=1):
        left, top, right, bottom = shapely.bounds(geometry)
        if min(right - left, bottom - top) >= LEAST_NUMBERED:
            point = geometry.representative_point()
            numbers.append(Number(str(index), 100 * point.x / VIEW_WIDTH, 100 * point.y / height))
    return numbers


def _label(row: dict[str, Any]) -> str:
    if not row["valid_ha"]:
        return f"{row['zone']}: no data"
    share = say_percent(row["changed_percent"])
    return f"{row['zone']}: {share} changed, {HECTARES.say(row['changed_ha'])}"


def _write_rows(frame: geopandas.GeoDataFrame, classes: ClassTable) -> list[dict[str, str]]:
    """Return the table's cells."""
    names = map(classes.name_transition, range(1, classes.num_transitions))
    columns = {f"{name} (ha)": name for name in names if f"{name} (ha)" in frame.columns}
    cells = {name: HECTARES.say_column(frame[name]) for name in ("valid_ha", "changed_ha")}
    rows = []
    for index, row in enumerate(frame.to_dict("records")):
        largest = max(columns, key=lambda column: row[column], default=None)
        amount = row[largest] if largest else 0
        rows.append(
            {
                "zone": str(row["zone"]),
                "valid": cells["valid_ha"][index],
                "changed": cells["changed_ha"][index],
                "share": say_percent(row["changed_percent"]) if row["valid_ha"] else "–",
                "largest": columns[largest] if largest and amount else "–",
                "largest_ha": HECTARES.say(amount) if amount else "",
            }
        )
    return rows
