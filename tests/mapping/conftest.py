import pytest

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.inference import rasters

from .small_blocks import TILE_SIZE_PX


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "scene"
    write_geotiff_pair(folder, 11, (330, 420))
    return folder


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
