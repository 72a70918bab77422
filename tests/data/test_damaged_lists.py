"""Lists, CSVs and class tables of data sets that are damaged: refused by name, or read."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from tests.mutants import mutate_bytes, mutate_json

from terradelta.classes import BINARY, SENSEEARTH
from terradelta.data.class_file import read_class_file, write_classes
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import DataError


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"names": [[]], "colours": [[]]}, r"names\[0\] is \[\]"),
        ({"names": ["a", 3], "colours": [[0, 0, 0]] * 2}, r"names\[1\] is 3"),
        ({"names": "ab", "colours": [[0, 0, 0]] * 2}, "names is 'ab'"),
        ({"names": ["a", "b"], "colours": [[0, 0, 0], [0, 0, 256]]}, r"colours\[1\]\[2\] is 256"),
        ({"names": ["a", "b"], "colours": [[0, 0, 0], [0, 0]]}, r"colours\[1\] is \[0, 0\]"),
        ({"names": ["a", "b"], "colours": [[0, 0, 0], [0, 0, 1.5]]}, r"colours\[1\]\[2\] is 1.5"),
        ({"names": ["a", "b"], "colours": [[0, 0, 0]]}, "2 names but 1 colours"),
        ({"names": ["a"], "colours": [[0, 0, 0]]}, "has 1 ids"),
        ({"names": ["a", "\ud800"], "colours": [[0, 0, 0]] * 2}, "half a surrogate"),
        ({"colours": []}, "names is missing"),
        ([], "must be an object"),
        (None, "must be an object"),
    ],
)
def test_a_class_table_of_other_things_is_refused(tmp_path, content, words):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"classes\.json holds no class table: .*{words}"):
        read_class_file(path)


def test_any_class_table_is_read_or_refused(tmp_path):
    path = tmp_path / "classes.json"
    write_classes(tmp_path, SENSEEARTH)
    assert read_class_file(path) == SENSEEARTH
    content = path.read_bytes()
    for _, text in mutate_json(json.loads(content)):
        path.write_text(text)
        with suppress(DataError):
            read_class_file(path)
    for _, damaged in mutate_bytes(content, seed=1, count=30):
        path.write_bytes(damaged)
        with suppress(DataError):
            read_class_file(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(BINARY.to_dict()).encode())
    assert read_class_file(path) == BINARY


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write_folders(folder, 3, seed=1, size_px=32)
    return folder


LINE = "im1/00000.png,im2/00000.png,label1/00000.png,label2/00000.png"
HEAD = "before,after,before_label,after_label,name\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + f'{LINE},"' + "x" * 200_000, r"line \d: field larger"),
        (HEAD + f"{LINE},a/b\n", "holds a slash"),
        (HEAD + f"{LINE},..\n", "holds a slash"),
        (HEAD + f"{LINE}," + "x" * 300 + "\n", "has 300 bytes"),
        (HEAD + "x" * 5000 + ",b,c,d,e\n", "does not exist"),
        (HEAD + "a\0b,b,c,d,e\n", "does not exist|line"),
        (HEAD + f"{LINE},a,more\n", "more values than columns"),
        ("\n", "the columns are"),
        ("", "the columns are"),
    ],
)
def test_a_damaged_csv_is_refused_by_its_line(drawn, text, words):
    path = drawn / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"bad\.csv.*({words})"):
        find_pairs(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "é".encode("latin-1")])
def test_lists_of_other_encodings_are_refused(drawn, content):
    for name in ("bad.csv", "train.txt"):
        path = drawn / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be read: it is not UTF-8"):
            find_pairs(path if name.endswith("csv") else drawn)
        path.unlink()


def test_any_csv_is_read_or_refused(drawn):
    path = drawn / "any.csv"
    content = (
        HEAD + "".join(LINE.replace("0.png", f"{n}.png") + f",{n}\n" for n in range(3))
    ).encode()
    path.write_bytes(content)
    assert len(find_pairs(path).pairs) == 3
    for _, damaged in mutate_bytes(content, seed=4, count=80):
        path.write_bytes(damaged)
        with suppress(DataError):
            find_pairs(path)
