"""From labelled points to files: what they hold and whether they agree."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from terradelta.areas.assessment import FILES, assess
from terradelta.areas.design import SampleDesign
from terradelta.areas.estimators import Strata, StratifiedSample, report_accuracy
from terradelta.areas.sampling import sample
from terradelta.areas.survey import read_survey
from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.errors import DataError, OutputExistsError
from terradelta.prediction.estimates import read_estimates
from tests.areas.maps import (
    DEGREES,
    FREQUENT,
    UTM,
    draw_map,
    label,
    write_prediction,
)


@pytest.fixture
def assessed(labelled):
    return assess(labelled)


@pytest.fixture
def content(assessed):
    """What area_estimates.json holds."""
    return json.loads((assessed.folder / "area_estimates.json").read_text())


def find_class(report, name):
    return next(row for row in report["classes"] if row["class"] == name)


def test_the_prediction_gets_every_file(assessed, prediction):
    assert assessed.folder.resolve() == prediction.resolve()
    assert {name for name in FILES if (prediction / name).exists()} == set(FILES)
    written = (prediction / "area_estimates.json").read_text()
    assert json.loads(written) == assessed.estimates.to_json()
    assert read_estimates(prediction / "area_estimates.json") == assessed.estimates
    assert (prediction / "area_methods.txt").read_text() == assessed.estimates.methods + "\n"
    with Image.open(prediction / "area_estimates.png") as picture:
        assert picture.width > 600


def test_estimates_are_those_of_the_points(content, labelled, truth_HW):
    """The file's numbers, made again from the tables of the points."""
    survey = read_survey(labelled)
    pixels = survey.pixels
    changed_N = (truth_HW[pixels.row_N, pixels.column_N] > 0).astype(int)
    sample_again = StratifiedSample(survey.strata, pixels.stratum_N, pixels.area_m2_N)
    expected = report_accuracy(
        sample_again, (pixels.code_N > 0).astype(int), changed_N, ("a", "b"), np.zeros(2)
    )
    found = find_class(content["change"], "changed")
    area = expected.area_m2[1]
    assert found["area_ha"]["value"] == pytest.approx(area.value / 1e4)
    assert found["area_ha"]["standard_error"] == pytest.approx(area.standard_error / 1e4)
    ends = [area.low / 1e4, area.high / 1e4]
    assert found["area_ha"]["interval_95_percent"] == pytest.approx(ends)
    assert found["users_accuracy"]["value"] == pytest.approx(expected.user[1].value)


def test_the_papers_intervals_are_there_for_the_asking(assessed, content, labelled):
    wald = assess(labelled, interval="wald", overwrite=True).estimates.to_json()
    for legend in ("change", "transitions"):
        for row, other in zip(wald[legend]["classes"], content[legend]["classes"], strict=True):
            assert row["area_ha"]["standard_error"] == other["area_ha"]["standard_error"]
            low, high = row["area_ha"]["interval_95_percent"]
            value, error = row["area_ha"]["value"], row["area_ha"]["standard_error"]
            assert low == pytest.approx(max(0, value - 1.96 * error))
            assert high == pytest.approx(value + 1.96 * error)
    assert "1.96 standard errors on either side" in wald["methods"]
    assert "log odds" in assessed.estimates.methods


def test_the_truth_lies_within_the_intervals(content, truth_HW):
    """Of this sample, where it has points enough; how often it does is test_intervals'."""
    truth_ha = np.bincount(truth_HW.ravel(), minlength=49) * 100 / 0.9996**2 / 1e4
    report = content["transitions"]
    points = dict(
        zip(
            report["error_matrix"]["classes"],
            np.sum(report["error_matrix"]["points"], axis=0),
            strict=True,
        )
    )
    assert sum(count >= 15 for count in points.values()) >= 3
    for row in report["classes"]:
        name = row["class"]
        if points[name] < 15:
            continue
        transition = next(t for t in range(49) if SENSEEARTH.name_transition(t) == name)
        low, high = row["area_ha"]["interval_95_percent"]
        assert low <= truth_ha[transition] <= high, name
    mapped = find_class(content["transitions"], "tree → building")
    low, high = mapped["area_ha"]["interval_95_percent"]
    assert not low <= mapped["mapped_ha"] <= high, "counting pixels is biased on this map"


def test_legends_agree_with_each_other(content):
    area_ha = content["area_ha"]
    for legend in ("change", "transitions", "from", "to"):
        rows = content[legend]["classes"]
        assert sum(row["area_ha"]["value"] for row in rows) == pytest.approx(area_ha)
        assert sum(row["mapped_ha"] for row in rows) == pytest.approx(area_ha)
        matrix = content[legend]["error_matrix"]
        assert np.sum(matrix["points"]) == content["points_used"] == 240
        assert np.sum(matrix["area_shares"]) == pytest.approx(1)
        overall = content[legend]["overall_accuracy"]["value"]
        assert np.trace(matrix["area_shares"]) == pytest.approx(overall)
    transitions = {
        row["class"]: row["area_ha"]["value"] for row in content["transitions"]["classes"]
    }
    changed = find_class(content["change"], "changed")["area_ha"]["value"]
    assert area_ha - transitions["unchanged"] == pytest.approx(changed)
    lost = find_class(content["from"], "tree")["area_ha"]["value"]
    gained = find_class(content["to"], "building")["area_ha"]["value"]
    assert lost == gained == pytest.approx(transitions["tree → building"])
    net = {row["class"]: row["area_ha"] for row in content["net"]}
    assert net["tree"]["value"] == pytest.approx(-lost)
    assert net["tree"]["interval_95_percent"][0] < net["tree"]["interval_95_percent"][1] < 0
    assert sum(part["value"] for part in net.values()) == pytest.approx(0, abs=1e-9)


def test_tables_hold_what_the_json_holds(content, prediction):
    with (prediction / "area_estimates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = [row for row in rows if row["legend"] == "transitions"]
    assert [row["class"] for row in listed] == [
        row["class"] for row in content["transitions"]["classes"]
    ]
    for row, told in zip(listed, content["transitions"]["classes"], strict=True):
        assert float(row["mapped_ha"]) == told["mapped_ha"]
        assert float(row["area_ha_value"]) == told["area_ha"]["value"]
        assert float(row["area_ha_high"]) == told["area_ha"]["interval_95_percent"][1]
    for name, key in (("points", "points"), ("areas", "area_shares")):
        with (prediction / f"error_matrix_{name}.csv").open(newline="") as file:
            head, *lines = list(csv.reader(file))
        cells = [[float(cell) for cell in line[1:-1]] for line in lines[:-1]]
        matrix = content["transitions"]["error_matrix"]
        assert head[1:-1] == [line[0] for line in lines[:-1]] == matrix["classes"]
        assert cells == matrix[key]


def test_the_methods_name_the_numbers_of_this_sample(assessed, content):
    methods = assessed.estimates.methods
    changed = find_class(content["change"], "changed")
    assert "stratified random sample of 240 pixels out of 480.4 ha" in methods
    assert "within 2 pixels of mapped change" in methods
    assert f"{changed['area_ha']['value']:.2f} ± " in methods
    assert "seed 3" in methods
    assert "The sample size was given beforehand" in methods


def test_a_stratum_with_one_answer_is_pointed_out(assessed, labelled, truth_HW):
    assert not any("got one answer" in note for note in assessed.estimates.notes[:-1])
    everywhere = {n: {"changed": "no", "from": None, "to": None} for n in range(1, 241)}
    label(labelled, truth_HW, everywhere)
    notes = assess(labelled, overwrite=True).estimates.notes
    assert "rule of three" in notes[0]
    assert "'unchanged' (" in notes[0]


def test_results_are_kept_without_overwrite(assessed, labelled, prediction, tmp_path):
    kept = (prediction / "area_estimates.json").read_bytes()
    with pytest.raises(OutputExistsError, match=r"area_estimates\.json"):
        assess(labelled)
    assess(labelled, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "area_estimates.json").read_bytes() == kept
    assess(labelled, overwrite=True)


def test_points_that_lost_their_prediction_ask_for_a_folder(labelled, prediction, truth_HW):
    prediction.rename(prediction.with_name("moved"))
    with pytest.raises(DataError, match="which is gone or has changed"):
        assess(labelled)
    write_prediction(prediction, np.zeros_like(truth_HW), UTM)
    with pytest.raises(DataError, match="which is gone or has changed"):
        assess(labelled)
    assert not (prediction / "area_estimates.json").exists()


def test_another_map_is_assessed_with_the_same_points(labelled, truth_HW, tmp_path):
    """A perfect map: its strata are the other one's, and every accuracy is 1."""
    perfect = write_prediction(tmp_path / "perfect", truth_HW, UTM)
    content = assess(labelled, other_map=perfect).estimates.to_json()
    assert content["transitions"]["overall_accuracy"]["value"] == pytest.approx(1)
    assert (perfect / "area_estimates.json").exists()
    own = assess(labelled).estimates.to_json()
    for row, mine in zip(
        sorted(content["from"]["classes"], key=lambda row: row["class"]),
        sorted(own["from"]["classes"], key=lambda row: row["class"]),
        strict=True,
    ):
        # The area estimate is the labels', whatever map is held against them.
        assert row["area_ha"] == mine["area_ha"]
    pixels_ha = (truth_HW == FREQUENT).sum() * 100 / 0.9996**2 / 1e4
    mapped = find_class(content["transitions"], "tree → building")["mapped_ha"]
    assert mapped == pytest.approx(pixels_ha, rel=1e-4)
    assert "strata are those of another map" in content["methods"]


def test_another_map_of_other_ground_or_classes_is_refused(labelled, truth_HW, tmp_path):
    part_HW = truth_HW.copy()
    part_HW[:30] = 255
    part = write_prediction(tmp_path / "part", part_HW, UTM)
    with pytest.raises(DataError, match="of the points lie outside"):
        assess(labelled, other_map=part)
    binary = write_prediction(tmp_path / "binary", np.where(truth_HW > 0, 3, 0), UTM, BINARY)
    with pytest.raises(DataError, match="has the classes unchanged, changed"):
        assess(labelled, other_map=binary)


def test_a_map_of_changed_or_not(truth_HW, tmp_path):
    truth_HW = np.where(truth_HW > 0, 3, 0).astype(np.uint8)
    map_HW = np.where(draw_map(truth_HW) > 0, 3, 0).astype(np.uint8)
    folder = write_prediction(tmp_path / "out", map_HW, UTM, BINARY)
    path = tmp_path / "p.gpkg"
    sample(folder, path, SampleDesign(points=200), chip_size_px=0)
    label(path, truth_HW)
    content = assess(path).estimates.to_json()
    low, high = find_class(content["change"], "changed")["area_ha"]["interval_95_percent"]
    assert low < (truth_HW > 0).sum() * 100 / 0.9996**2 / 1e4 < high
    assert "from" not in content
    assert content["net"] == []


def test_many_classes_and_pixels_of_different_size(truth_HW, tmp_path):
    """A map in degrees, of 20 classes: uint16 values, areas by latitude."""
    classes = ClassTable.numbered(12)
    truth_HW = np.where(truth_HW == 0, 0, np.where(truth_HW == FREQUENT, 14, 27)).astype(np.uint8)
    folder = write_prediction(tmp_path / "out", truth_HW, DEGREES, classes)
    path = tmp_path / "p.gpkg"
    survey = sample(folder, path, SampleDesign(points=150), chip_size_px=0)
    label(path, truth_HW)
    content = assess(path).estimates.to_json()
    # A perfect map: strata have one answer each, and the areas are the map's to the last digit.
    for row in content["transitions"]["classes"]:
        assert row["area_ha"]["value"] == pytest.approx(row["mapped_ha"], rel=1e-12)
        assert row["area_ha"]["standard_error"] == pytest.approx(0, abs=1e-6)
    assert content["area_ha"] == pytest.approx(survey.mapped_area_m2_T.sum() / 1e4)


def test_too_few_answers_in_a_stratum_are_refused(labelled, truth_HW):
    survey = read_survey(labelled)
    rare = np.flatnonzero(survey.pixels.stratum_N == len(survey.strata) - 1) + 1
    label(labelled, truth_HW, {int(n): {"changed": "unsure"} for n in rare[1:]})
    with pytest.raises(DataError, match="stratum 'rare transitions' has 1 labelled points"):
        assess(labelled, unresolved="exclude")


def test_strata_hold_names_sizes_and_points(assessed, labelled):
    survey = read_survey(labelled)
    strata = assessed.estimates.strata
    again = Strata(
        tuple(s.stratum for s in strata),
        np.array([s.pixels for s in strata]),
        np.array([s.area_ha for s in strata]) * 1e4,
    )
    assert again.names == survey.strata.names
    assert again.area_m2_H == pytest.approx(survey.strata.area_m2_H)
    assert [s.points_drawn for s in strata] == np.bincount(survey.pixels.stratum_N).tolist()
