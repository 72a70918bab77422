import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from terradelta.classes import SENSEEARTH
from terradelta.errors import OutputError
from terradelta.geo.cog import MapFormat, write_cog
from terradelta.geo.grid import Grid, cut_window

GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 500_000, 0, -2, 5_000_000), 1100, 700)
FORMAT = MapFormat(
    dtype="uint8",
    nodata=255,
    description="change",
    palette={i: SENSEEARTH.colour_transition(i) for i in range(49)},
    names={i: SENSEEARTH.name_transition(i) for i in range(49)},
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A map in four files of two bands, and its array."""
    folder = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(3)
    change_HW = np.kron(random.integers(0, 49, (70, 110)), np.ones((10, 10), int)).astype(np.uint8)
    change_HW[:30, :40] = 255
    files = []
    for top, height in ((0, 512), (512, 188)):
        for left, width in ((0, 300), (300, 800)):
            window = cut_window(left, top, width, height)
            path = folder / f"{top}_{left} & more.tif"
            profile = {"driver": "GTiff", "count": 2, "dtype": "uint8", "crs": GRID.crs}
            profile["transform"] = GRID.crop(window).transform
            with rasterio.open(path, "w", width=width, height=height, **profile) as dataset:
                dataset.write(np.zeros((height, width), np.uint8), 1)
                dataset.write(change_HW[window.toslices()], 2)
            files.append((path, window))
    return files, change_HW


def test_a_map_of_parts_is_a_valid_cog_with_palette_names_and_class_overviews(parts, tmp_path):
    files, change_HW = parts
    path = tmp_path / "change.tif"
    write_cog(path, GRID, files, 2, FORMAT, {"MADE_OF": "a < b & c"})
    assert [path.name for path in tmp_path.iterdir()] == ["change.tif"]
    is_valid, errors, warnings = cog_validate(path)
    assert is_valid
    assert not errors
    assert not warnings
    with rasterio.open(path) as dataset:
        assert (dataset.read(1) == change_HW).all()
        assert dataset.nodata == 255
        assert dataset.colormap(1)[31][:3] == SENSEEARTH.colour_transition(31)
        assert dataset.tags(1)["class_33"] == "tree → building"
        assert dataset.tags()["MADE_OF"] == "a < b & c"
        assert dataset.descriptions == ("change",)
        assert Grid.of(dataset).same_as(GRID)
        overview = dataset.read(1, out_shape=(350, 550))
    assert set(np.unique(overview)) <= set(np.unique(change_HW))


def test_a_map_without_place_has_none(parts, tmp_path):
    files, change_HW = parts
    path = tmp_path / "change.tif"
    write_cog(path, Grid(None, Affine.identity(), 1100, 700), files, 2, FORMAT, {})
    with pytest.warns(NotGeoreferencedWarning):
        dataset = rasterio.open(path)
    with dataset:
        assert dataset.crs is None
        assert (dataset.read(1) == change_HW).all()


def test_a_part_that_is_lost_is_an_error_that_names_the_map(parts, tmp_path):
    files, _ = parts
    lost = [(path.with_name("lost.tif"), window) for path, window in files]
    with pytest.raises(OutputError, match=r"change.tif cannot be written"):
        write_cog(tmp_path / "change.tif", GRID, lost, 2, FORMAT, {})
