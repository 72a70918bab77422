"""The `stats` verb: a map's transitions in hectares, polygon by polygon.

Legend of the array names: H rows, W columns, Z zones, C codes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from tqdm import tqdm

from terradelta.areas.map_census import ChangeMap
from terradelta.classes import ClassTable
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.area import measure_pixels
from terradelta.geo.cog import find_map
from terradelta.geo.coverage import Coverage
from terradelta.geo.polygons import read_polygons
from terradelta.geo.vector import write_tables
from terradelta.inference.transitions import M2_PER_HECTARE
from terradelta.outputs import stage_folder

LAYER = "zones"


@dataclass(frozen=True)
class ZoneAreas:
    """The change in each zone."""

    folder: Path
    """Folder of `zones.csv` and `zones.gpkg`."""
    names: tuple[str, ...]
    """Names of the zones."""
    transitions: tuple[int, ...]
    """Transitions that occur on the map, 0 = unchanged first."""
    area_m2_ZT: np.ndarray
    """Ground area of each transition in each zone."""
    nodata_m2_Z: np.ndarray
    """Ground of each zone on the map without data."""


def stats(
    folder: str | Path,
    zones: str | Path,
    output: str | Path | None = None,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> ZoneAreas:
    """Sum the transitions of a prediction's map within polygons.

    A pixel that a polygon covers in part counts with that part of its ground area, so polygons
    that tile the map have the map's totals. Polygons that overlap count twice.

    Args:
        folder: Prediction folder of two rasters.
        zones: A vector file with polygons, in any CRS.
        output: Folder to make; `zones` in the prediction by default.
        name: Column with the names of the polygons; their numbers, from 1, if left out.
        overwrite: Replace an existing output.

    Raises:
        ArgumentError: If the column does not exist, or exactextract is not installed.
        RasterError: If the map or the polygons cannot be read, or none lies on the map.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    folder = Path(folder)
    output = folder / "zones" if output is None else Path(output)
    # Nowhere else in a prediction, which may only hold files known to be its own.
    is_inside = output.absolute() == (folder / "zones").absolute()
    inputs = [find_map(folder, "change") if is_inside else folder, zones]
    output = claim_folder(output, inputs, overwrite=overwrite)
    with (
        ChangeMap(folder) as change_map,
        stage_folder(output, inputs, overwrite=overwrite, listed=False) as staged,
    ):
        polygons = read_polygons(zones, change_map.grid, "--zones")
        names = _name_zones(polygons, zones, name)
        sums_m2_ZC = _add_up(change_map, polygons.geometry)
        if not sums_m2_ZC.any():
            raise RasterError(
                f"no polygon of {zones} lies on {change_map.path}: in {change_map.grid.crs} they "
                f"cover {polygons.total_bounds.tolist()} and the map {change_map.grid.bounds}",
                fix="give zones that overlap the map",
            )
        classes = change_map.classes
        # The last one is nodata.
        occurring = np.flatnonzero(sums_m2_ZC[:, :-1].any(axis=0))
        occurring = np.union1d([0], occurring)
        areas = ZoneAreas(
            output,
            tuple(names),
            tuple(occurring.tolist()),
            sums_m2_ZC[:, occurring],
            sums_m2_ZC[:, -1],
        )
        _write_table(staged / "zones.csv", areas, classes)
        table = _attach(polygons, areas, classes)
        write_tables(staged / "zones.gpkg", {LAYER: table})
    return areas


def _name_zones(
    polygons: geopandas.GeoDataFrame, path: str | Path, column: str | None
) -> list[str]:
    if column is None:
        return [str(number) for number in range(1, len(polygons) + 1)]
    if column not in polygons.columns:
        columns = [str(other) for other in polygons.columns if other != polygons.geometry.name]
        raise ArgumentError(
            f"{path} has no column {column!r}, it has {', '.join(columns) or 'none'}",
            fix="give one of these with --name, or leave it out",
        )
    return [str(value) for value in polygons[column]]


def _add_up(change_map: ChangeMap, polygons: geopandas.GeoSeries) -> np.ndarray:
    """Return the area of each code in each zone, (Z, T + 1); the last one is nodata."""
    nodata = change_map.classes.num_transitions
    coverage = Coverage(polygons, change_map.grid)
    sums_m2_ZC = np.zeros((len(polygons), nodata + 1))
    for window in tqdm(change_map.windows, desc="zones", unit="block", disable=None):
        codes_HW = change_map.read(window)
        codes_HW[codes_HW < 0] = nodata
        areas_HW = measure_pixels(change_map.grid, window)
        # Outside of the projection's domain, pixels have no area.
        areas_HW[~np.isfinite(areas_HW)] = 0
        for covered in coverage.measure(window, codes_HW, areas_HW):
            sums_m2_ZC[covered.polygon] += np.bincount(
                covered.values_M, covered.area_m2_M, nodata + 1
            )
    return sums_m2_ZC


def _write_table(path: Path, areas: ZoneAreas, classes: ClassTable):
    """Write a line for each transition of each zone, then its valid total and nodata."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["zone", "from", "to", "area_ha", "share_percent"])
        for name, row_m2, nodata_m2 in zip(
            areas.names, areas.area_m2_ZT, areas.nodata_m2_Z, strict=True
        ):
            total_m2 = row_m2.sum()
            for transition, area_m2 in zip(areas.transitions, row_m2.tolist(), strict=True):
                ids = classes.decode_transition(transition)
                covers = [classes.names[value] for value in ids]
                writer.writerow([name, *covers, *_measure(area_m2, total_m2)])
            writer.writerow([name, "all valid", "all valid", *_measure(total_m2, total_m2)])
            writer.writerow([name, "nodata", "nodata", nodata_m2 / M2_PER_HECTARE, None])


def _measure(area_m2: float, total_m2: float) -> Sequence[float | None]:
    """Return hectares and percent."""
    percent = 100 * area_m2 / total_m2 if total_m2 else None
    return area_m2 / M2_PER_HECTARE, percent


def _attach(
    polygons: geopandas.GeoDataFrame, areas: ZoneAreas, classes: ClassTable
) -> geopandas.GeoDataFrame:
    """Return the polygons with a column of hectares for each transition."""
    valid_m2_Z = areas.area_m2_ZT.sum(axis=1)
    changed_m2_Z = valid_m2_Z - areas.area_m2_ZT[:, 0]
    with np.errstate(invalid="ignore"):
        percent_Z = 100 * changed_m2_Z / valid_m2_Z
    columns: dict[str, Any] = {
        "zone": list(areas.names),
        "valid_ha": valid_m2_Z / M2_PER_HECTARE,
        "nodata_ha": areas.nodata_m2_Z / M2_PER_HECTARE,
        "changed_ha": changed_m2_Z / M2_PER_HECTARE,
        "changed_percent": percent_Z,
    }
    for transition, column in zip(areas.transitions, areas.area_m2_ZT.T, strict=True):
        columns[f"{classes.name_transition(transition)} (ha)"] = column / M2_PER_HECTARE
    # A GeoPackage numbers its rows itself.
    replaced = [name for name in (*columns, "fid") if name in polygons.columns]
    kept = polygons.drop(columns=replaced)
    return geopandas.GeoDataFrame(kept.assign(**columns), geometry=polygons.geometry.name)
