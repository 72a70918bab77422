"""The file of changed patches of a prediction folder, GeoPackage or GeoParquet, when read.

Legend of the array names: N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import shapely

from terradelta.classes import ClassTable
from terradelta.errors import ArgumentError, OutputError
from terradelta.geo.vector import LAYER
from terradelta.tables import Numbers, TableError, check_table

GEOPACKAGE = "changes.gpkg"
GEOPARQUET = "changes.parquet"
COLUMNS = ["transition", "pixels", "area_m2", "confidence"]
LARGEST_AREA_M2 = 1e16
FIX = "run the same `terradelta predict` again, or restore the file from a copy"


def find_changes(folder: Path) -> Path:
    """Return the file of the polygons of a prediction folder.

    Raises:
        OutputError: If there is no such file.
    """
    for name in (GEOPACKAGE, GEOPARQUET):
        if (folder / name).is_file():
            return folder / name
    raise OutputError(
        f"{folder} has neither {GEOPACKAGE} nor {GEOPARQUET}",
        fix="give the folder of a complete prediction of two rasters",
    )


@contextmanager
def guard_reading(path: Path) -> Iterator[None]:
    """Turn the libraries' errors about a damaged file of patches into an OutputError."""
    try:
        yield
    except (
        OSError,
        ValueError,  # ArrowInvalid is one
        KeyError,
        TypeError,
        RuntimeError,  # all of pyogrio's are
        shapely.errors.ShapelyError,
    ) as error:
        raise OutputError(f"{path} cannot be read: {error}", FIX) from error


def read_patch_table(path: Path, classes: ClassTable, *, has_area: bool) -> pandas.DataFrame:
    """Return transition, pixels, area_m2 and confidence of every patch, by its id in the file.

    Geometries, which may be large, are not read.

    Args:
        path: The file.
        classes: Classes of the map.
        has_area: Whether the map has a CRS, so that patches have areas.

    Raises:
        OutputError: If the file cannot be read, or a patch has an invalid value.
    """
    with guard_reading(path):
        table = _read_columns(path)
    check_patches(path, table, classes, has_area=has_area)
    return table


def read_patches(path: Path, classes: ClassTable, *, has_area: bool) -> geopandas.GeoDataFrame:
    """Return the patches with their outlines; see `read_patch_table`.

    Raises:
        OutputError: If the file cannot be read, or a patch has an invalid value.
    """
    with guard_reading(path):
        if path.suffix == ".parquet":
            require_pyarrow(path)
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path, layer=LAYER)
    check_patches(path, frame, classes, has_area=has_area)
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise OutputError(f"{path} has no geometry in its layer {LAYER!r}", FIX)
    return frame


def read_outlines(path: Path, ids: Sequence[int]) -> dict[int, shapely.Polygon]:
    """Return the polygons of some patches, by id, in the map's CRS.

    Raises:
        OutputError: If they cannot be read, or are not polygons.
    """
    with guard_reading(path):
        if path.suffix == ".parquet":
            outlines = _read_parquet_outlines(path, ids)
        else:
            # One by one, as a query for several does not keep their order.
            outlines = {index: _read_outline(path, index) for index in ids}
    for index, outline in outlines.items():
        require_polygons(path, [index], np.array([outline]))
    return outlines


def read_bounds(path: Path, ids_N: np.ndarray) -> np.ndarray:
    """Return left, bottom, right and top of the patches of a GeoPackage, (4, N).

    Args:
        path: The file.
        ids_N: The expected patches, in the file's order.

    Raises:
        OutputError: If they cannot be read, or one has no bounds.
    """
    with guard_reading(path):
        found_N, bounds_4N = pyogrio.read_bounds(path, layer=LAYER)
    has_place_N = np.isfinite(bounds_4N).all(axis=0)
    if not np.array_equal(found_N, ids_N) or not has_place_N.all():
        raise OutputError(f"{path}: some of its {len(ids_N)} patches have no outline", FIX)
    return bounds_4N


def require_polygons(path: Path, ids: Sequence[int], outlines_N: np.ndarray):
    """Raise if the outline of a patch is not a polygon.

    Raises:
        OutputError: Naming the patch.
    """
    is_polygon_N = np.isin(shapely.get_type_id(outlines_N), (3, 6)) & ~shapely.is_empty(outlines_N)
    is_polygon_N &= np.isfinite(shapely.bounds(outlines_N)).all(axis=-1)
    if not is_polygon_N.all():
        first = ids[int(np.argmin(is_polygon_N))]
        raise OutputError(f"{path}: the outline of patch {first} is not a polygon", FIX)


def check_patches(path: Path, table: pandas.DataFrame, classes: ClassTable, *, has_area: bool):
    """Raise if a column is missing, or a patch has an invalid value; see `read_patch_table`.

    The columns have their proper data types afterwards.

    Raises:
        OutputError: Naming file, column, patch and value.
    """
    columns: dict[str, Numbers | str] = {
        "transition": Numbers(1, classes.num_transitions - 1, is_whole=True),
        "pixels": Numbers(1, is_whole=True),
        "confidence": Numbers(0, 1),
    }
    if has_area:
        columns["area_m2"] = Numbers(0, LARGEST_AREA_M2)
    try:
        check_table(table, columns)
        if has_area and len(table) and not np.asarray(table["area_m2"]).any():
            raise TableError("area_m2 is 0 of every patch")
    except TableError as error:
        raise OutputError(f"{path}: in the layer {LAYER!r}, {error}", FIX) from error


def require_pyarrow(path: Path):
    """Raise if the reader of a file of polygons is not installed.

    Raises:
        ArgumentError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ArgumentError(
            f"{path} cannot be read: pyarrow is not installed",
            fix='pip install "terradelta[parquet]"',
        ) from error


def _read_columns(path: Path) -> pandas.DataFrame:
    if path.suffix == ".parquet":
        require_pyarrow(path)
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, columns=COLUMNS).to_pandas()
    frame = pyogrio.read_dataframe(
        path, layer=LAYER, columns=COLUMNS, read_geometry=False, fid_as_index=True
    )
    return pandas.DataFrame(frame)


def _read_outline(path: Path, index: int) -> shapely.Polygon:
    frame = pyogrio.read_dataframe(path, layer=LAYER, columns=[], fids=[index])
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise ValueError(f"the layer {LAYER!r} has no geometry")
    return frame.geometry.iloc[0]


def _read_parquet_outlines(path: Path, ids: Sequence[int]) -> dict[int, shapely.Polygon]:
    """Read only the row groups that hold the patches."""
    import pyarrow.parquet

    outlines = {}
    with pyarrow.parquet.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            wanted = [index for index in ids if start <= index < end]
            if wanted:
                column = file.read_row_group(group, columns=["geometry"])["geometry"]
                outlines |= {
                    index: shapely.from_wkb(column[index - start].as_py()) for index in wanted
                }
            start = end
    return outlines
