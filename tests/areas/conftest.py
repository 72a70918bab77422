from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from terradelta.areas.design import SampleDesign
from terradelta.areas.sampling import sample
from tests.areas.maps import UTM, draw_map, draw_truth, label, write_prediction


@pytest.fixture(scope="session")
def truth_HW() -> np.ndarray:
    return draw_truth(UTM)


@pytest.fixture(scope="session")
def drawn(truth_HW, tmp_path_factory) -> Path:
    """A prediction with errors."""
    return write_prediction(tmp_path_factory.mktemp("areas") / "out", draw_map(truth_HW), UTM)


@pytest.fixture(scope="session")
def drawn_points(drawn) -> Path:
    """Unlabelled points of it."""
    path = drawn.with_name("points.gpkg")
    design = SampleDesign(points=240, floor=20, buffer_px=2, seed=3)
    sample(drawn, path, design, chip_size_px=0)
    return path


@pytest.fixture
def prediction(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "out"))


@pytest.fixture
def points(drawn_points, prediction) -> Path:
    return Path(shutil.copy(drawn_points, prediction.parent / "points.gpkg"))


@pytest.fixture
def labelled(points, truth_HW) -> Path:
    """The points, labelled by someone who knows."""
    label(points, truth_HW)
    return points
