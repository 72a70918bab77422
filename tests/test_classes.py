import numpy as np
import pytest

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.errors import ArgumentError


@pytest.mark.parametrize("classes", [SENSEEARTH, BINARY])
def test_every_transition_is_encoded_once_and_comes_back(classes):
    ids = range(classes.num_classes + 1)
    values = [classes.encode_transition(a, b) for a in ids for b in ids]
    assert sorted(values) == list(range(classes.num_transitions))
    assert [classes.decode_transition(v) for v in values] == [(a, b) for a in ids for b in ids]


def test_arrays_encode_like_numbers():
    before, after = np.meshgrid(np.arange(7), np.arange(7))
    encoded = SENSEEARTH.encode_transition(before, after)
    assert encoded[3, 5] == SENSEEARTH.encode_transition(5, 3)


def test_transitions_have_distinct_colours_and_readable_names():
    changed = [
        SENSEEARTH.encode_transition(a, b) for a in range(1, 7) for b in range(1, 7) if a != b
    ]
    assert len({SENSEEARTH.colour_transition(t) for t in changed}) == len(changed)
    assert SENSEEARTH.name_transition(SENSEEARTH.encode_transition(4, 5)) == "tree → building"
    assert SENSEEARTH.name_transition(0) == "unchanged"


def test_dictionary_round_trip():
    assert ClassTable.from_dict(SENSEEARTH.to_dict()) == SENSEEARTH


def test_bad_tables_are_refused_with_both_numbers():
    with pytest.raises(ArgumentError, match="2 names but 1 colours"):
        ClassTable(names=("unchanged", "water"), colours=((0, 0, 0),))
    with pytest.raises(ArgumentError, match="1 ids"):
        ClassTable(names=("unchanged",), colours=((0, 0, 0),))
