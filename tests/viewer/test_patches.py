"""Sums, order, outlines and reviews, against the files and against SQL on the GeoPackage."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import geopandas
import numpy as np
import pyogrio
import pytest
from shapely.geometry import shape

from terradelta.errors import ArgumentError, DataError, OutputExistsError
from terradelta.geo.cog import read_classes
from terradelta.geo.vector import LAYER
from terradelta.viewer import endpoints as application
from terradelta.viewer import reviews
from terradelta.viewer.checked import export_checked

from .conftest import connect, review


@pytest.fixture
def layer(folder) -> geopandas.GeoDataFrame:
    frame = pyogrio.read_dataframe(folder / "changes.gpkg", layer=LAYER, fid_as_index=True)
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert len(frame) > 20
    return frame


def query(folder, text, *values):
    with closing(sqlite3.connect(folder / "changes.gpkg")) as connection:
        return connection.execute(text, values).fetchall()


def test_sums_of_everything_are_those_of_the_csv(client, folder):
    classes = read_classes(folder / "before_class.tif")
    sums = client.get("/api/sums").json()
    with (folder / "transitions.csv").open(encoding="utf-8") as file:
        expected = {
            (row["from"], row["to"]): float(row["area_ha"])
            for row in csv.DictReader(file)
            if row["from"] not in (classes.names[0], "all valid", "nodata")
        }
    found = {
        (classes.names[row["from_id"]], classes.names[row["to_id"]]): row["area_m2"] / 10_000
        for row in sums["transitions"]
    }
    assert found == pytest.approx(expected)
    assert sums["area_m2"] / 10_000 == pytest.approx(sum(expected.values()))
    assert [row["area_m2"] for row in sums["transitions"]] == sorted(
        (row["area_m2"] for row in sums["transitions"]), reverse=True
    )


@pytest.mark.parametrize(
    ("parameters", "condition"),
    [
        ({"from_ids": [3]}, "\"from\" = 'low vegetation'"),
        ({"from_ids": [2, 3], "to_ids": [5]}, '"transition" IN (19, 26)'),
        ({"min_area_m2": 20.5}, "area_m2 >= 20.5"),
        ({"min_confidence": 0.4}, "confidence >= 0.4"),
        ({"max_confidence": 0.6, "min_area_m2": 3}, "confidence <= 0.6 AND area_m2 >= 3"),
    ],
)
def test_filtered_sums_are_those_of_sql(client, folder, parameters, condition):
    sums = client.get("/api/sums", params=parameters).json()
    ((count, area_m2),) = query(
        folder, f"SELECT count(*), total(area_m2) FROM changes WHERE {condition}"
    )
    assert sums["count"] == count > 0
    assert sums["area_m2"] == pytest.approx(area_m2)


def test_patches_come_the_largest_first_and_back_again(client, layer):
    parameters = {"min_area_m2": 10}
    expected = layer[layer["area_m2"] >= 10].sort_values("area_m2", ascending=False, kind="stable")
    walked, fid = [], {}
    while patch := client.get("/api/next", params={**parameters, **fid, "step": 1}).json():
        walked.append(patch["fid"])
        fid = {"fid": patch["fid"]}
    assert walked == expected.index.tolist()
    back = client.get("/api/next", params={**parameters, **fid, "step": -1}).json()
    assert back["fid"] == walked[-2]
    first = client.get("/api/next", params={"fid": walked[0], "step": -1}).json()
    assert first is None


def test_a_patch_has_its_facts(client, layer):
    fid = int(layer["area_m2"].idxmax())
    row = layer.loc[fid]
    patch = client.get(f"/api/patches/{fid}").json()
    assert (patch["rank"], patch["status"]) == (1, "unreviewed")
    assert patch["area_m2"] == row["area_m2"]
    assert patch["confidence"] == row["confidence"]
    outline = layer.loc[[fid]].to_crs("EPSG:4326").geometry.iloc[0]
    assert shape(patch["geometry"]).symmetric_difference(outline).area < 1e-3 * outline.area
    assert client.get("/api/patches/999999").status_code == 404


def test_a_view_holds_the_patches_in_it_and_the_largest_of_too_many(client, layer, monkeypatch):
    degrees = layer.to_crs("EPSG:4326")
    west, south, east, north = degrees.total_bounds
    box = {
        "west": west,
        "south": south,
        "east": west + 0.4 * (east - west),
        "north": south + 0.4 * (north - south),
    }
    view = client.get("/api/patches", params=box).json()
    found = {feature["id"]: feature for feature in view["features"]}
    corner = (box["west"], box["south"], box["east"], box["north"])
    touching = degrees.cx[corner[0] : corner[2], corner[1] : corner[3]].index
    assert set(touching) <= set(found)
    assert len(found) < len(layer)
    assert view["omitted"] == 0
    for fid in touching[:20]:
        drawn, outline = shape(found[fid]["geometry"]), degrees.geometry.loc[fid]
        assert drawn.symmetric_difference(outline).area < 0.05 * outline.area
        assert found[fid]["properties"]["transition"] == layer.loc[fid, "transition"]

    world = {"west": -180, "south": -90, "east": 180, "north": 90}
    assert client.get("/api/patches", params=world).json()["omitted"] == 0
    elsewhere = {"west": -60, "south": -30, "east": -50, "north": -20}
    assert client.get("/api/patches", params=elsewhere).json()["features"] == []

    monkeypatch.setattr(application, "MAX_PATCHES_DRAWN", 5)
    everything = {"west": west, "south": south, "east": east, "north": north}
    few = client.get("/api/patches", params=everything).json()
    assert few["omitted"] == len(layer) - 5
    largest = layer["area_m2"].sort_values(ascending=False, kind="stable").index[:5]
    assert {feature["id"] for feature in few["features"]} == set(largest)


def test_reviews_move_the_sums_and_outlive_the_server(client, folder, layer):
    order = layer["area_m2"].sort_values(ascending=False).index.tolist()
    accepted, rejected, relabelled, noted, taken_back = order[:5]
    was = client.get("/api/sums").json()
    assert review(client, accepted, status="accepted").json()["status"] == "accepted"
    review(client, rejected, status="rejected", note="a shadow")
    review(client, relabelled, status="relabelled", from_id=4, to_id=1, note="<b>pond</b>")
    review(client, noted, status="unreviewed", note="not sure")
    review(client, taken_back, status="rejected")
    review(client, taken_back, status="unreviewed")

    with connect(folder) as again:
        for browser in (client, again):
            sums = browser.get("/api/sums").json()
            area_m2 = layer.loc[rejected, "area_m2"]
            assert sums["area_m2"] == pytest.approx(was["area_m2"] - area_m2)
            assert sums["statuses"]["rejected"] == {"count": 1, "area_m2": pytest.approx(area_m2)}
            pond = browser.get("/api/sums", params={"from_ids": 4, "to_ids": 1}).json()
            assert pond["area_m2"] >= layer.loc[relabelled, "area_m2"]
            patch = browser.get(f"/api/patches/{relabelled}").json()
            assert (patch["from_id"], patch["to_id"], patch["note"]) == (4, 1, "<b>pond</b>")
            to_review = {"statuses": "unreviewed", "step": 1}
            assert browser.get("/api/next", params=to_review).json()["fid"] == noted
    rows = query(folder, "SELECT fid, status, reviewed_from, reviewed_to, note FROM reviews")
    label = layer.loc[accepted, ["from", "to"]].tolist()
    assert {fid: rest for fid, *rest in rows} == {
        accepted: ["accepted", *label, ""],
        rejected: ["rejected", None, None, "a shadow"],
        relabelled: ["relabelled", "tree", "water", "<b>pond</b>"],
        noted: ["unreviewed", None, None, "not sure"],
    }


def test_reviews_leave_the_patches_and_their_style_as_they_were(client, folder, predicted, layer):
    review(client, int(layer.index[0]), status="rejected")
    texts = [
        f"SELECT {columns} FROM {table}"
        for table, columns in (("changes", "*"), ("layer_styles", "*"))
    ]
    assert [query(folder, text) for text in texts] == [query(predicted, text) for text in texts]
    layers = dict(pyogrio.list_layers(folder / "changes.gpkg"))
    assert layers["changes"] == "Polygon"
    assert layers["reviews"] is None
    table = pyogrio.read_dataframe(folder / "changes.gpkg", layer="reviews", fid_as_index=True)
    assert table.loc[layer.index[0], "status"] == "rejected"


def test_looking_changes_no_file(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with connect(folder) as client:
        client.get("/api/sums")
        client.get("/api/next", params={"step": 1})
        client.get("/tiles/change/10/0/0")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_review_that_is_no_review_is_refused(client, folder, layer):
    fid = int(layer.index[0])
    refused = [
        {"status": "maybe"},
        {"status": "relabelled"},
        {"status": "relabelled", "from_id": 0, "to_id": 3},
        {"status": "relabelled", "from_id": 1, "to_id": 7},
        {"status": "accepted", "note": "x" * 3000},
        {"status": "accepted", "path": "/etc/passwd"},
    ]
    assert [review(client, fid, **fields).status_code for fields in refused] == [422] * 6
    assert review(client, 999_999, status="accepted").status_code == 404
    assert "reviews" not in dict(pyogrio.list_layers(folder / "changes.gpkg"))


def test_a_geopackage_that_another_program_holds_is_reported(client, folder, layer, monkeypatch):
    monkeypatch.setattr(reviews, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(folder / "changes.gpkg")) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = review(client, int(layer.index[0]), status="accepted")
    assert answer.status_code == 409
    assert "locked" in answer.json()["detail"]
    assert review(client, int(layer.index[0]), status="accepted").status_code == 200


def test_patches_are_drawn_while_reviews_are_written(client, folder, layer):
    west, south, east, north = layer.to_crs("EPSG:4326").total_bounds
    view = {"west": west, "south": south, "east": east, "north": north}
    fids = [int(fid) for fid in layer.index[:40]]
    with ThreadPoolExecutor(3) as pool:
        written = [pool.submit(review, client, fid, status="accepted") for fid in fids]
        drawn = [pool.submit(client.get, "/api/patches", params=view) for _ in fids]
        assert {answer.result().status_code for answer in [*written, *drawn]} == {200}
    assert client.get("/api/sums").json()["statuses"]["accepted"]["count"] == len(fids)


def test_a_review_that_somebody_spoilt_in_another_program_is_named(client, folder, layer):
    review(client, int(layer.index[0]), status="relabelled", from_id=4, to_id=1)
    with closing(sqlite3.connect(folder / "changes.gpkg")) as connection, connection:
        connection.execute("UPDATE reviews SET reviewed_to = 'lava'")
    with pytest.raises(DataError, match="'tree' → 'lava'"):
        connect(folder)


def test_the_checked_map_leaves_out_and_changes_what_was_reviewed(client, folder, layer, tmp_path):
    order = layer["area_m2"].sort_values(ascending=False).index.tolist()
    review(client, order[0], status="rejected")
    review(client, order[1], status="relabelled", from_id=4, to_id=1, note="pond")
    review(client, order[2], status="accepted")
    target = tmp_path / "checked.gpkg"
    assert export_checked(folder, target) == len(layer) - 1
    checked = geopandas.read_file(target, layer="changes")
    assert checked.crs == layer.crs
    assert [name for name in checked.columns if name not in ("status", "note")] == list(
        layer.columns
    )
    expected = layer.drop(order[0])
    assert (checked["area_m2"].to_numpy() == expected["area_m2"].to_numpy()).all()
    assert checked.geometry.to_wkb().tolist() == expected.geometry.to_wkb().tolist()
    (pond,) = checked[checked["status"] == "relabelled"].to_dict("records")
    assert (pond["from"], pond["to"], pond["transition"], pond["note"]) == (
        "tree",
        "water",
        4 * 7 + 1,
        "pond",
    )
    assert checked["status"].value_counts()["unreviewed"] == len(layer) - 3
    with closing(sqlite3.connect(target)) as connection:
        ((style,),) = connection.execute("SELECT styleQML FROM layer_styles").fetchall()
    assert "tree → water" in style
    with pytest.raises(OutputExistsError):
        export_checked(folder, target)
    assert export_checked(folder, target, overwrite=True) == len(layer) - 1
    with pytest.raises(ArgumentError, match=r"\.gpkg"):
        export_checked(folder, tmp_path / "checked.shp")
    with pytest.raises(ArgumentError, match="reviews themselves"):
        export_checked(folder, folder / "changes.gpkg", overwrite=True)


def test_parquet_polygons_get_a_geopackage_beside_them(folder, layer):
    pytest.importorskip("pyarrow")
    (folder / "changes.gpkg").unlink()
    layer.to_parquet(folder / "changes.parquet", index=False)
    with connect(folder) as client:
        assert client.get("/api/sums").json()["area_m2"] == pytest.approx(layer["area_m2"].sum())
        review(client, 1, status="rejected")
    copied = pyogrio.read_dataframe(folder / "changes.gpkg", layer=LAYER)
    assert copied.crs == layer.crs
    assert np.array_equal(copied["transition"], layer["transition"])
    assert "layer_styles" in dict(pyogrio.list_layers(folder / "changes.gpkg"))


def test_a_killed_server_has_lost_no_review(folder, layer):
    """The command itself, ended with SIGKILL right after it confirmed a review."""
    line = [sys.executable, "-m", "terradelta.cli", "view", str(folder), "--no-browser"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address, _, token = process.stdout.readline().split()[-1].partition("#token=")
        assert address.startswith("http://127.0.0.1:")
        assert token not in _ask(f"{address}api/session").read().decode()
        fid = int(layer.index[3])
        request = urllib.request.Request(
            f"{address}api/patches/{fid}/review",
            data=json.dumps({"status": "accepted"}).encode(),
            method="PUT",
            headers={
                "Content-Type": "application/json",
                "X-Terradelta-Token": token,
            },
        )
        assert json.load(urllib.request.urlopen(request))["status"] == "accepted"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert query(folder, "SELECT fid, status FROM reviews") == [(fid, "accepted")]
    with connect(folder) as client:
        assert client.get(f"/api/patches/{fid}").json()["status"] == "accepted"


def _ask(address):
    """Return the answer of a server that may be starting."""
    for _ in range(200):
        try:
            return urllib.request.urlopen(address, timeout=30)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def test_while_a_review_is_being_written_no_other_begins(folder, layer, monkeypatch):
    """Two that look for the table and make it at once would break each other's transaction."""
    path, looks, refused = folder / "changes.gpkg", reviews._exists, []

    def look_while_another_one_comes(connection):
        with closing(sqlite3.connect(path, timeout=0)) as other:
            with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
                other.execute("BEGIN IMMEDIATE")
            refused.append(caught)
        return looks(connection)

    monkeypatch.setattr(reviews, "_exists", look_while_another_one_comes)
    said = reviews.Review("accepted", None, None, "", "2025-01-01T00:00:00Z")
    reviews.ReviewStore(path).write(int(layer.index[0]), said)
    assert refused
    monkeypatch.setattr(reviews, "_exists", looks)
    assert reviews.ReviewStore(path).read() == {int(layer.index[0]): said}
