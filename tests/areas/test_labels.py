"""One answer for each point: rules for what labellers leave open or disagree on."""

import shutil

import geopandas
import numpy as np
import pyogrio
import pytest
from sklearn.metrics import cohen_kappa_score

from terradelta.areas.answers import (
    NO_ANSWER,
    find_kappa,
    read_labels,
    require_answers,
)
from terradelta.areas.assessment import assess
from terradelta.areas.survey import POINTS, read_survey
from terradelta.classes import SENSEEARTH
from terradelta.errors import ArgumentError, DataError
from tests.areas.maps import FREQUENT, SECOND, label

UNCHANGED = {"changed": "no", "from": None, "to": None}


def change(transition):
    before, after = SENSEEARTH.decode_transition(transition)
    return {"changed": "yes", "from": SENSEEARTH.names[before], "to": SENSEEARTH.names[after]}


@pytest.fixture
def copies(points, truth_HW):
    """A function that makes one copy for each interpreter, who say otherwise of some points."""

    def make(*changes):
        paths = [points.with_name(f"interpreter-{i}.gpkg") for i in range(len(changes))]
        for path, fields in zip(paths, changes, strict=True):
            shutil.copy(points, path)
            label(path, truth_HW, fields)
        return paths

    return make


def test_an_answer_is_the_transition_that_was_labelled(labelled, truth_HW):
    survey, labels = read_labels([labelled])
    truth_N = truth_HW[survey.pixels.row_N, survey.pixels.column_N]
    assert labels.reference_N.tolist() == truth_N.tolist()
    assert labels.unresolved == {}
    require_answers(labels, "refuse")


def test_land_cover_of_unchanged_ground_may_be_labelled(points, truth_HW):
    label(points, truth_HW, {5: {"changed": "no", "from": "tree", "to": "tree"}})
    assert read_labels([points])[1].reference_N[4] == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"changed": None}, "unlabelled"),
        ({"changed": ""}, "unlabelled"),
        ({"changed": "unsure"}, "unsure"),
        ({"changed": "yes", "from": "tree", "to": None}, "without both land covers"),
        ({"changed": "yes", "from": "", "to": "tree"}, "without both land covers"),
    ],
)
def test_what_is_left_open_is_refused_unless_a_rule_says_otherwise(
    points, truth_HW, fields, reason
):
    label(points, truth_HW, {7: fields, 9: fields})
    _, labels = read_labels([points])
    assert labels.unresolved == {reason: 2}
    assert np.flatnonzero(labels.reference_N == NO_ANSWER).tolist() == [6, 8]
    with pytest.raises(DataError, match=rf"2 of 240 points have no answer \(2 {reason}\): point 7"):
        require_answers(labels, "refuse")
    require_answers(labels, "exclude")


def test_points_that_are_left_out_are_reported(points, truth_HW):
    label(points, truth_HW, {7: {"changed": "unsure"}, 9: {"changed": None}})
    content = assess(points, unresolved="exclude").estimates.to_json()
    reasons = {"unsure": 1, "unlabelled": 1}
    assert content["unresolved"] == {"rule": "exclude", "points": reasons}
    assert content["points_used"] == 238
    told = "2 points without an answer (1 unsure, 1 unlabelled) were left out"
    assert told in content["methods"]


def test_the_most_frequent_answer_counts_and_ties_are_refused(copies):
    paths = copies(
        {1: change(FREQUENT), 2: change(FREQUENT), 3: change(FREQUENT), 4: {"changed": "unsure"}},
        {1: change(FREQUENT), 2: change(SECOND), 3: UNCHANGED, 4: {"changed": "unsure"}},
        {1: UNCHANGED, 2: change(SECOND), 3: change(SECOND), 4: change(SECOND)},
    )
    _, labels = read_labels(paths)
    assert labels.reference_N[:4].tolist() == [FREQUENT, SECOND, NO_ANSWER, SECOND]
    assert labels.unresolved == {"tied": 1}
    assert labels.interpreters == ("interpreter-0", "interpreter-1", "interpreter-2")
    with pytest.raises(DataError, match=r"1 of 240 points have no answer \(1 tied\): point 3"):
        assess(paths)


def test_agreement_is_computed_for_each_two_interpreters(copies, truth_HW):
    numbers = range(1, 61)
    paths = copies(
        {number: change(SECOND) for number in numbers},
        {number: change(FREQUENT) if number % 2 else UNCHANGED for number in numbers},
        {number: {"changed": "unsure"} for number in numbers},
    )
    survey, labels = read_labels(paths)
    truth_N = truth_HW[survey.pixels.row_N, survey.pixels.column_N].astype(int)
    first_N, second_N = truth_N.copy(), truth_N.copy()
    first_N[:60], second_N[:60] = SECOND, np.where(np.arange(1, 61) % 2, FREQUENT, 0)
    both, *with_third = labels.agreement
    assert both.interpreters == ("interpreter-0", "interpreter-1")
    assert both.points == 240
    assert both.transition.percent == pytest.approx(75)
    assert both.transition.kappa == pytest.approx(cohen_kappa_score(first_N, second_N))
    assert both.changed.percent == pytest.approx(87.5)
    assert both.changed.kappa == pytest.approx(cohen_kappa_score(first_N > 0, second_N > 0))
    for other in with_third:
        assert (other.points, other.transition.percent) == (180, 100)


def test_kappa_is_not_defined_where_there_is_but_one_answer():
    assert np.isnan(find_kappa(np.zeros(5), np.zeros(5)))
    assert find_kappa(np.array([0, 1, 2]), np.array([0, 1, 2])) == 1


def test_unchanged_ground_with_two_land_covers_is_refused(points, truth_HW):
    label(points, truth_HW, {3: {"changed": "no", "from": "tree", "to": "building"}})
    with pytest.raises(DataError, match="says that point 3 has not changed"):
        read_labels([points])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"changed": "perhaps"}, "says 'perhaps' of point 3"),
        ({"changed": "yes", "from": "swamp", "to": "tree"}, "says 'swamp' of point 3"),
        ({"changed": "yes", "from": "tree", "to": "unchanged"}, "says 'unchanged' of point 3"),
    ],
)
def test_words_of_no_value_list_are_refused(points, truth_HW, fields, message):
    label(points, truth_HW, {3: fields})
    with pytest.raises(DataError, match=message):
        read_labels([points])


def test_files_that_are_no_copies_of_one_sample_are_refused(labelled, drawn, tmp_path):
    from terradelta.areas.design import SampleDesign
    from terradelta.areas.sampling import sample

    other = tmp_path / "other.gpkg"
    sample(drawn, other, SampleDesign(points=240, floor=20, buffer_px=2, seed=9), chip_size_px=0)
    with pytest.raises(DataError, match="are not copies of one sample"):
        read_labels([labelled, other])
    with pytest.raises(ArgumentError, match="named twice"):
        read_labels([labelled, labelled])
    with pytest.raises(DataError, match="is not a file of points to label"):
        read_labels([drawn / "change.tif"])


def test_a_point_that_was_deleted_is_missed(labelled):
    table = geopandas.read_file(labelled, layer=POINTS)
    pyogrio.write_dataframe(table[table["point"] != 17], labelled, layer=POINTS, driver="GPKG")
    with pytest.raises(DataError, match="has 239 points where 1 to 240 were drawn"):
        read_labels([labelled])


def test_points_that_were_moved_or_sorted_keep_their_answer(labelled, truth_HW):
    table = geopandas.read_file(labelled, layer=POINTS).sample(frac=1, random_state=1)
    table["geometry"] = table.translate(500)
    pyogrio.write_dataframe(table, labelled, layer=POINTS, driver="GPKG")
    pixels = read_survey(labelled).pixels
    truth_N = truth_HW[pixels.row_N, pixels.column_N]
    assert read_labels([labelled])[1].reference_N.tolist() == truth_N.tolist()
