"""What tests of the doctor write, look for and compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.doctor import DatasetFinding, examine, repair
from terradelta.data.layouts import find_pairs

FOLDERS = ("im1", "im2", "label1", "label2")


def ids_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def save(path: Path, array: np.ndarray, **options):
    Image.fromarray(array.astype(np.uint8)).save(path, **options)


def colours_of(path: Path, table: ClassTable = SENSEEARTH) -> np.ndarray:
    return np.array(table.colours, np.uint8)[ids_of(path)]


def save_indexed(path: Path, ids_HW: np.ndarray, colours):
    image = Image.fromarray(ids_HW.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)


def assert_found(root: Path, code: str, files: list[str] | None, **options) -> DatasetFinding:
    """The planted thing is found, where it was planted, and nothing else is."""
    report = examine(root, **options)
    assert report.codes == (code,), report.to_text()
    finding = next(finding for finding in report.findings if finding.code == code)
    if files is not None:
        assert sorted(finding.files) == sorted(files)
    return finding


def assert_fixed(root: Path, tmp_path: Path, code: str, **options) -> Path:
    before = {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    copy = repair(root, tmp_path / "copy", examine(root, **options))
    report = examine(copy, **options)
    assert report.codes == (), report.to_text()
    assert code in (copy / "CHANGES.txt").read_text()
    assert {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()} == before
    return copy


def names_in(copy: Path) -> list[str]:
    return [pair.name for pair in find_pairs(copy).pairs]


# No false alarms
