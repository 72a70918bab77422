"""Sound data sets to plant faults in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.doctor.planting import FOLDERS

from terradelta.classes import BINARY, SENSEEARTH
from terradelta.data.images import read_mask, write_mask
from terradelta.data.synthetic import write_folders

SEED = 186  # all six classes among the first five pairs and among the last three


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "drawn"
    write_folders(root, 8, SEED, size_px=128)
    return root


@pytest.fixture
def flat(drawn, tmp_path) -> Path:
    return shutil.copytree(drawn, tmp_path / "flat")


@pytest.fixture
def split(drawn, tmp_path) -> Path:
    """Five pairs of training, three of validation."""
    root = tmp_path / "split"
    for number in range(8):
        for folder in FOLDERS:
            target = root / ("train" if number < 5 else "val") / folder
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / folder / f"{number:05d}.png", target)
    return root


@pytest.fixture
def binary(drawn, tmp_path) -> Path:
    root = tmp_path / "binary"
    for old, new in (("im1", "A"), ("im2", "B")):
        shutil.copytree(drawn / old, root / new)
    (root / "label").mkdir()
    for path in (drawn / "label1").iterdir():
        changed_HW = read_mask(path, SENSEEARTH) > 0
        write_mask(root / "label" / path.name, changed_HW.astype(np.uint8), BINARY)
    return root
