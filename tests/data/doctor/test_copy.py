"""The report, the copy, and the page that explains both."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.data.doctor.planting import (
    ids_of,
    names_in,
    save,
)

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.class_file import write_classes
from terradelta.data.dataset import ChangeDataset
from terradelta.data.doctor import DoctorReport, examine, repair
from terradelta.data.doctor.findings import shorten_list
from terradelta.data.images import write_mask
from terradelta.data.layouts import find_pairs
from terradelta.errors import ArgumentError, OutputExistsError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"


def test_reports_are_json_ready_and_readable(flat):
    (flat / "im2/00001.png").unlink()
    report = examine(flat)
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["level"] == "FAIL"
    assert [finding["code"] for finding in fields["findings"]][:2] == ["pairs", "layout"]
    text = report.to_text()
    assert re.search(r"^FAIL  layout  .*00001\.png has no counterpart", text, re.M)
    assert "fix: add the missing files" in text
    assert shorten_list(("a", "b", "c", "d", "e")) == "a, b, c and 2 more"


def test_a_healthy_set_is_copied_byte_for_byte_and_trains(split, tmp_path):
    copy = repair(split, tmp_path / "copy")
    for path in split.rglob("*.png"):
        assert (copy / path.relative_to(split)).read_bytes() == path.read_bytes()
    assert len(ChangeDataset(find_pairs(copy, "train"))) == 5
    assert ChangeDataset(find_pairs(copy, "val"))[0].before_CHW.shape == (3, 128, 128)


def test_copies_are_whole_or_not_there_and_never_in_the_data_set(flat, tmp_path):
    output = tmp_path / "copy"
    output.mkdir()
    (output / "mine.txt").touch()
    with pytest.raises(OutputExistsError):
        repair(flat, output)
    with pytest.raises(ArgumentError, match="in the data set"):
        repair(flat, flat / "copy")
    with pytest.raises(ArgumentError, match="the report is of"):
        repair(flat, tmp_path / "other", replace(examine(flat), root=tmp_path))
    report = examine(flat)
    (flat / "im2/00007.png").unlink()
    (flat / "label1/00003.png").write_bytes(b"")
    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        repair(flat, output, overwrite=True)
    (output / "mine.txt").unlink()
    repair(flat, output)
    repair(flat, output, overwrite=True)
    assert names_in(output) == [f"{number:05d}" for number in (0, 1, 2, 4, 5, 6)]
    assert isinstance(report, DoctorReport)


def test_arguments_out_of_range(flat, binary):
    with pytest.raises(ArgumentError, match="val_every"):
        examine(flat, val_every=1)
    with pytest.raises(ArgumentError, match="change masks"):
        examine(binary, classes=SENSEEARTH)


def test_levir_is_found_healthy_and_its_turned_masks_are_not(shared, tmp_path):
    root = tmp_path / "levir"
    for folder in ("A", "B", "label"):
        (root / folder).mkdir(parents=True)
        for number in (1, 2, 3):
            image = Image.open(shared / f"data/levir_eval10/{folder}/test_{number}.png")
            image.crop((0, 0, 512, 512)).save(root / folder / f"{number}.png")
    assert set(examine(root).codes) <= {"shift", "no-change"}
    for path in (root / "label").iterdir():
        save(path, 255 - ids_of(path))
    assert "polarity" in examine(root).codes


def test_the_page_names_every_code():
    source = Path(examine.__code__.co_filename).parent
    text = "".join(
        (source / f"{name}.py").read_text() for name in ("examination", "label_checks", "leaks")
    )
    codes = set(
        re.findall(r'"((?:mask|palette|image|leak|class|date|half|same|no)-[a-z0-9-]+)"', text)
    )
    codes |= {"layout", "unreadable", "unlabelled", "polarity", "shift"}
    cells = re.findall(r"^\| (`[^|]*) \|", DOCS.read_text(), re.M)
    documented = {code for cell in cells for code in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert codes <= documented


def test_a_class_table_of_its_own_is_read_and_copied(flat, tmp_path):
    table = ClassTable(("unchanged", *"abcdef"), tuple((0, 40 * number, 9) for number in range(7)))
    write_classes(flat, table)
    for path in sorted(flat.glob("label?/*.png")):
        ids_HW = ids_of(path).copy()
        path.unlink()
        write_mask(path, ids_HW, table)
    assert examine(flat).codes == ()
    copy = repair(flat, tmp_path / "copy")
    assert find_pairs(copy).classes == table
    (flat / "classes.json").write_text("{}")
    assert "holds no class table" in examine(flat).to_text()
