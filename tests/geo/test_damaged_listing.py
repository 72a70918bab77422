"""Lists of rasters and STAC files that are damaged: refused by name, or read."""

from __future__ import annotations

import json
import random
import warnings
from contextlib import suppress

import pytest

from terradelta.errors import RasterError
from terradelta.geo.listing import list_dates, list_rasters
from tests.mutants import mutate_bytes, mutate_json


def write_items(path, **changes):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "tile",
        "properties": {"datetime": "2019-05-01T10:00:00Z"},
        "geometry": {"type": "Point", "coordinates": [9, 48]},
        "bbox": [9, 48, 9, 48],
        "links": [],
        "assets": {"visual": {"href": "tile.tif", "roles": ["data"]}},
        **changes,
    }
    item = {key: value for key, value in item.items() if value is not ...}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))


@pytest.fixture
def items(tmp_path):
    pytest.importorskip("pystac")
    path = tmp_path / "items.json"
    write_items(path)
    assert list_rasters(path) == [str(tmp_path / "tile.tif")]
    assert list_dates(path) == ("2019-05-01T10:00:00+00:00",) * 2
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stac_version": 1.0}, r"features\[0\]\.stac_version is 1\.0, and it must be a text"),
        ({"assets": []}, r"features\[0\]\.assets is \[\], and it must be an object"),
        ({"assets": {"visual": "tile.tif"}}, r"assets\.visual is 'tile\.tif'"),
        ({"assets": {"visual": {"href": 3}}}, r"assets\.visual\.href is 3"),
        ({"assets": {"visual": {}}}, r"assets\.visual\.href is missing"),
        ({"assets": {"visual": {"href": "a\0b"}}}, r"assets\.visual\.href is"),
        ({"assets": ...}, r"features\[0\]\.assets is missing"),
        ({"geometry": "here"}, r"features\[0\]\.geometry is 'here'"),
        ({"bbox": ["a"]}, r"features\[0\]\.bbox\[0\] is 'a'"),
        ({"id": 3}, r"features\[0\]\.id is 3"),
        ({"type": "Thing"}, r"features\[0\]\.type is 'Thing'"),
        ({"links": 3}, r"features\[0\]\.links is 3"),
        ({"properties": None}, r"features\[0\]\.properties is None"),
        ({"properties": {"datetime": 2019}}, "STAC items"),
        ({"properties": {"datetime": "yesterday"}}, "STAC items"),
    ],
)
def test_an_item_of_other_things_is_refused(items, changes, words):
    write_items(items, **changes)
    with pytest.raises(RasterError, match=rf"items\.json cannot be opened.*{words}"):
        list_rasters(items)
    with pytest.raises(RasterError, match=r"items\.json"):
        list_dates(items)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "[" * 100_000,
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": 3}',
        '{"type": ["Feature"]}',
    ],
)
def test_what_is_no_stac_is_refused(items, text):
    items.write_text(text)
    with pytest.raises(RasterError, match=r"items\.json"):
        list_rasters(items)


def test_any_stac_is_read_or_refused(items):
    content = items.read_bytes()
    every = list(mutate_json(json.loads(content)))
    texts = [text.encode() for _, text in random.Random(1).sample(every, 200)]
    for damaged in texts + [part for _, part in mutate_bytes(content, seed=1, count=60)]:
        items.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for read in (list_rasters, list_dates):
                with suppress(RasterError):
                    read(items)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", r"list\.txt, a list of rasters, cannot be read: it is not UTF-8"),
        (b"", "names no raster"),
        (b"# only this\n\n", "names no raster"),
        (b"a\0b.tif\n", "which is not a path"),
    ],
)
def test_a_list_of_other_things_is_refused(tmp_path, content, words):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(RasterError, match=words):
        list_rasters(path)
