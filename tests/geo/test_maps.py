import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio import features
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.classes import SENSEEARTH
from terradelta.geo.area import measure_pixels
from terradelta.geo.cog import MapWriter
from terradelta.geo.grid import Grid
from terradelta.geo.vector import trace_changes, write_changes

GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 500_000, 0, -2, 5_000_000), 1100, 700)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """A from-to map with patches of all shapes, written in two windows, and its arrays."""
    folder = tmp_path_factory.mktemp("maps")
    random = np.random.default_rng(3)
    change_HW = np.kron(random.integers(0, 49, (70, 110)), np.ones((10, 10), int)).astype(np.uint8)
    change_HW[random.random((700, 1100)) < 0.6] = 0
    change_HW[:30, :40] = 255
    confidence_HW = random.integers(0, 101, (700, 1100)).astype(np.uint8)
    names = {i: SENSEEARTH.name_transition(i) for i in range(49)}
    palette = {i: SENSEEARTH.colour_transition(i) for i in range(49)}
    for name, values_HW in (("change", change_HW), ("confidence", confidence_HW)):
        with MapWriter(
            folder / f"{name}.tif",
            GRID,
            dtype="uint8",
            nodata=255,
            description=name,
            palette=palette if name == "change" else None,
            names=names if name == "change" else None,
        ) as writer:
            for top in (0, 512):
                window = Window(0, top, 1100, min(512, 700 - top))
                writer.write(values_HW[window.toslices()], window)
    return folder, change_HW, confidence_HW


def test_the_map_is_a_cog_with_palette_names_and_class_overviews(maps):
    folder, change_HW, _ = maps
    assert not list(folder.glob("*scratch*"))
    with rasterio.open(folder / "change.tif") as dataset:
        assert (dataset.read(1) == change_HW).all()
        assert dataset.nodata == 255
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.colormap(1)[31][:3] == SENSEEARTH.colour_transition(31)
        assert dataset.tags(1)["class_33"] == "tree → building"
        assert dataset.crs == GRID.crs
        assert dataset.overviews(1)
        overview = dataset.read(1, out_shape=(350, 550))
    assert set(np.unique(overview)) <= set(np.unique(change_HW))


def test_an_interrupted_map_leaves_nothing(tmp_path):
    with (
        pytest.raises(RuntimeError),
        MapWriter(tmp_path / "a.tif", GRID, dtype="uint8", nodata=255, description="a") as writer,
    ):
        writer.write(np.zeros((10, 10), np.uint8), Window(0, 0, 10, 10))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_polygons_give_back_the_map_with_its_areas_and_confidence(maps, tmp_path):
    folder, change_HW, confidence_HW = maps
    traced = trace_changes(folder / "change.tif", folder / "confidence.tif", SENSEEARTH)
    write_changes(traced, tmp_path / "changes.gpkg")
    frame = geopandas.read_file(tmp_path / "changes.gpkg", layer="changes")
    assert frame.geometry.is_valid.all()
    assert frame.crs == GRID.crs

    burnt = features.rasterize(
        zip(frame.geometry, frame.transition, strict=True),
        out_shape=change_HW.shape,
        transform=GRID.transform,
        dtype="uint8",
    )
    changed = (change_HW != 0) & (change_HW != 255)
    assert (burnt == np.where(changed, change_HW, 0)).all()

    areas = measure_pixels(GRID, Window(0, 0, 1100, 700))
    for transition in (9, 33):
        rows = frame[frame.transition == transition]
        here = change_HW == transition
        assert rows.pixels.sum() == here.sum()
        assert rows.area_m2.sum() == pytest.approx(areas[here].sum(), rel=1e-9)
        mean = np.average(rows.confidence, weights=rows.pixels)
        assert mean == pytest.approx(confidence_HW[here].mean() / 100)
    row = frame[frame.transition == 33].iloc[0]
    assert (row["from"], row["to"]) == ("tree", "building")


def test_a_map_without_change_has_no_polygons(tmp_path):
    grid = Grid(GRID.crs, GRID.transform, 20, 10)
    for name in ("change", "confidence"):
        with MapWriter(
            tmp_path / f"{name}.tif", grid, dtype="uint8", nodata=255, description=name
        ) as writer:
            writer.write(np.zeros((10, 20), np.uint8), Window(0, 0, 20, 10))
    frame = trace_changes(tmp_path / "change.tif", tmp_path / "confidence.tif", SENSEEARTH)
    write_changes(frame, tmp_path / "changes.gpkg")
    read = geopandas.read_file(tmp_path / "changes.gpkg")
    assert len(read) == 0
    assert {"from", "to", "area_m2", "confidence"} <= set(read.columns)
