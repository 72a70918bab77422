import builtins
import json
import sqlite3
from contextlib import closing
from itertools import pairwise

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from rasterio.crs import CRS

from terradelta.errors import ArgumentError, OutputError
from terradelta.geo import vector
from terradelta.geo.vector import PolygonWriter

UTM = CRS.from_epsg(32632)
# A CRS that no register knows.
LOCAL = CRS.from_proj4("+proj=tmerc +lat_0=47 +lon_0=9.5 +x_0=1234 +ellps=GRS80 +units=m")


def make_patches(count, crs=UTM, has_area=True):
    random = np.random.default_rng(count)
    x, y = random.integers(0, 1000, (2, count))
    hole = np.array([(1, 1), (1, 2), (2, 2), (2, 1)])
    outlines = [
        shapely.Polygon(shapely.box(a, b, a + 3, b + 3).exterior, [hole + np.array([a, b])])
        for a, b in zip(x, y, strict=True)
    ]
    table = {
        "from": np.full(count, "tree", object),
        "to": np.full(count, "bâtiment", object),
        "transition": random.integers(1, 49, count),
        "pixels": random.integers(1, 100, count),
        "area_m2": random.random(count) * 100 if has_area else np.full(count, np.nan),
        "confidence": random.random(count),
        "before_date": np.full(count, "2019-06-01", object),
        "after_date": np.full(count, "2024", object),
    }
    geometry = np.array(outlines, dtype=object)
    return geopandas.GeoDataFrame(table, geometry=geometry, crs=crs)


def write(path, frames, crs=UTM):
    with PolygonWriter(path, crs) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.count


def read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer="changes")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(vector, "CHUNK_ROWS", 8)


@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
@pytest.mark.parametrize("crs", [UTM, LOCAL, None], ids=["utm", "local", "none"])
def test_patches_are_read_back_as_written(tmp_path, small_chunks, suffix, crs):
    patches = make_patches(50, crs, has_area=crs is not None)
    path = tmp_path / f"changes.{suffix}"
    cuts = [0, 0, 3, 20, 21, 21, 47, 50]
    frames = [patches.iloc[start:end] for start, end in pairwise(cuts)]
    assert write(path, frames, crs) == 50
    found = read(path)
    assert list(found.columns) == list(patches.columns)
    if crs is not None:
        assert found.crs.equals(patches.crs, ignore_axis_order=True)
    assert_geodataframe_equal(found, patches, check_dtype=False, check_crs=False)


@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
def test_equal_patches_give_equal_bytes_whatever_the_day(tmp_path, small_chunks, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "other")]
    for path in paths:
        write(path, [make_patches(30)])
    one, other = (path.read_bytes() for path in paths)
    assert one == other
    if suffix == "gpkg":
        with closing(sqlite3.connect(paths[0])) as connection:
            dates = connection.execute("SELECT last_change FROM gpkg_contents").fetchall()
        # The form that the GeoPackage standard asks for.
        assert dates == [("1970-01-01T00:00:00.000Z",)]


def test_the_date_of_other_geopackages_is_left_alone(tmp_path):
    write(tmp_path / "changes.gpkg", [make_patches(3)])
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
def test_no_patches_are_a_file_with_the_columns(tmp_path, suffix):
    path = tmp_path / f"changes.{suffix}"
    assert write(path, [make_patches(0), make_patches(0)]) == 0
    found = read(path)
    assert len(found) == 0
    assert list(found.columns) == list(make_patches(1).columns)
    assert found.crs == UTM
    if suffix == "gpkg":
        assert pyogrio.read_info(path, layer="changes")["geometry_type"] == "Polygon"


def test_parquet_has_row_groups_and_says_what_its_geometry_is(tmp_path, small_chunks):
    path = tmp_path / "changes.parquet"
    write(path, [make_patches(8), make_patches(9), make_patches(2)])
    file = pyarrow.parquet.ParquetFile(path)
    assert file.num_row_groups == 3
    about = json.loads(file.schema_arrow.metadata[b"geo"])
    assert about["version"] == "1.0.0"
    column = about["columns"][about["primary_column"]]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32632}


def test_an_interrupted_file_keeps_the_error_that_interrupted_it(tmp_path):
    for suffix in ("gpkg", "parquet"):
        with (
            pytest.raises(KeyError, match="lost"),
            PolygonWriter(tmp_path / f"changes.{suffix}", UTM) as writer,
        ):
            writer.write(make_patches(3))
            raise KeyError("lost")


@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, suffix):
    path = tmp_path / "missing" / f"changes.{suffix}"
    with pytest.raises(OutputError, match=r"missing.*cannot be written"):
        write(path, [make_patches(3)])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ArgumentError, match=r"terradelta\[parquet\]"):
        PolygonWriter(tmp_path / "changes.parquet", UTM)
