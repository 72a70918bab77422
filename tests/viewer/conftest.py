import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from starlette.testclient import TestClient

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.viewer.endpoints import create_application
from terradelta.viewer.result import Result
from tests.weights import DRAWN_MODEL

TOKEN = "a token of this run"
ADDRESS = "http://127.0.0.1:8765"


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    """A drawn pair of 300 px, its lower right corner without data before."""
    folder = tmp_path_factory.mktemp("viewer") / "scene"
    write_geotiff_pair(folder, 5, 300, crs="EPSG:32633")
    with rasterio.open(folder / "before.tif") as source:
        image_CHW, profile = source.read(), source.profile
    image_CHW[:, 260:, 260:] = 0
    image_CHW = np.where((image_CHW == 0).all(axis=0), 0, np.maximum(image_CHW, 1))
    profile.update(nodata=0)
    with rasterio.open(folder / "before.tif", "w", **profile) as target:
        target.write(image_CHW)
    return folder


@pytest.fixture(scope="session")
def predicted(scene) -> Path:
    output = scene.parent / "out"
    td.predict(scene / "before.tif", scene / "after.tif", output, model=DRAWN_MODEL)
    return output


@pytest.fixture
def folder(predicted, tmp_path) -> Path:
    """A copy of the prediction that a test may write to."""
    return Path(shutil.copytree(predicted, tmp_path / "out"))


def connect(folder: Path, **options) -> TestClient:
    """Return a browser's view of a server for this prediction."""
    app = create_application(Result.load(folder), TOKEN, **options)
    return TestClient(app, base_url=ADDRESS, raise_server_exceptions=True)


@pytest.fixture
def client(folder):
    with connect(folder) as client:
        yield client


def review(client: TestClient, fid: int, headers: dict | None = None, **fields):
    return client.put(
        f"/api/patches/{fid}/review",
        json=fields,
        headers={"X-Terradelta-Token": TOKEN} if headers is None else headers,
    )


def add_cautions(folder: Path, number: int):
    path = folder / "summary.json"
    cautions = [
        {"name": f"scale{index}", "message": f"pixels of {index} m", "fix": "--grid <0.5>"}
        for index in range(number)
    ]
    path.write_text(json.dumps({**json.loads(path.read_text()), "cautions": cautions}))


def edit_run(folder: Path, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
