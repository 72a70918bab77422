import csv
import json
import shutil

import pytest

import terradelta as td
from terradelta.errors import DataError

WARNING = "counts of pixels, not an area estimate"


def read_number(text):
    return float(text.replace(",", ""))


def test_a_map_without_estimates_warns_and_one_with_them_shows_them(
    prediction, surveyed, read_page
):
    bare = read_page(prediction.folder / "report.html").text
    assert WARNING in bare
    assert "terradelta assess" in bare
    text = read_page(surveyed / "report.html").text
    assert WARNING not in text
    changed = json.loads((surveyed / "area_estimates.json").read_text())["change"]["classes"][-1]
    low, high = changed["area_ha"]["interval_95_percent"]
    assert f"{changed['area_ha']['value']:.3f} hectares changed, {low:.3f} to {high:.3f}" in text


def test_the_table_is_that_of_the_csv(surveyed, read_page):
    page = read_page(surveyed / "report.html")
    head, *rows = next(table for table in page.tables if "estimated" in table[0])
    assert head[1:] == [
        "mapped",
        "estimated",
        "95 % interval",
        "user's accuracy",
        "producer's accuracy",
        "points",
    ]
    with (surveyed / "area_estimates.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    legends = ["change", *["transitions"] * (len(rows) - 2), "change"]
    assert len(rows) > 4
    found = 0
    for legend, (name, mapped, estimated, interval, user, producer, points) in zip(
        legends, rows, strict=True
    ):
        line = next(r for r in lines if r["legend"] == legend and r["class"] == name)
        for cell, column in (
            (mapped, "mapped_ha"),
            (estimated, "area_ha_value"),
            (interval.split(" to ")[0], "area_ha_low"),
            (interval.split(" to ")[1], "area_ha_high"),
        ):
            if not cell.startswith("<"):
                assert read_number(cell) == pytest.approx(float(line[column]), abs=0.00051)
        for cell, column in ((user, "users"), (producer, "producers")):
            told = line[f"{column}_accuracy_value"]
            assert cell == (f"{float(told):.3f}" if told else "–")
        assert int(points) == int(line["points"])
        found += legend == "transitions" and int(points) > 0
    every = [line for line in lines if line["legend"] == "transitions"][1:]
    assert found == sum(int(line["points"]) > 0 for line in every), (
        "none that was found is left out"
    )
    content = json.loads((surveyed / "area_estimates.json").read_text())
    assert content["methods"] in page.text
    assert f"{content['change']['overall_accuracy']['value']:.3f}, 95" in page.text
    strata = next(table for table in page.tables if table[0][1:] == ["hectares", "points"])[1:]
    assert sum(int(row[2]) for row in strata) == content["points_used"] == 200


def test_estimates_from_elsewhere_are_shown_and_those_of_another_map_refused(
    prediction, surveyed, tmp_path, read_page
):
    folder = shutil.copytree(prediction.folder, tmp_path / "out")
    path = shutil.copy(surveyed / "area_estimates.json", tmp_path / "estimates.json")
    page = read_page(td.report(folder, areas=path, overwrite=True))
    assert "Mapped and estimated areas" in page.text
    content = json.loads(path.read_text())
    content["change"]["classes"][-1]["mapped_ha"] *= 1.01
    path.write_text(json.dumps(content))
    before = (folder / "report.html").read_bytes()
    with pytest.raises(DataError, match=r"is of a map with .* ha of change, this one has"):
        td.report(folder, areas=path, overwrite=True)
    path.write_text('{"format": 1}')
    with pytest.raises(DataError, match="cannot be read as area estimates"):
        td.report(folder, areas=path, overwrite=True)
    with pytest.raises(DataError, match="absent"):
        td.report(folder, areas=tmp_path / "absent.json", overwrite=True)
    assert (folder / "report.html").read_bytes() == before
