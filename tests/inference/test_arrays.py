"""Maps of arrays: the labels of rasters, whatever holds the pixels."""

import numpy as np
import pytest
import rasterio
import torch
from tests.flat_options import sort_options

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.models.card import ModelCard

SIZE = 300, 340


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = td.create_model("fcn", encoder="resnet18_slim").eval()
    folder = tmp_path_factory.mktemp("model") / "model"
    td.save_model((network, ModelCard(network.config, change_threshold=0.49)), folder)
    return folder


@pytest.fixture(scope="module")
def predictor(model):
    margin_px = td.Predictor([td.load_model(model)]).tiling.margin_px
    return td.Predictor(
        [td.load_model(model)],
        td.Runtime(backend="torch", precision="fp32", tile_size=2 * margin_px + 64),
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "scene"
    write_geotiff_pair(folder, 5, SIZE)
    return folder / "before.tif", folder / "after.tif"


@pytest.fixture(scope="module")
def images(scene):
    arrays = []
    for path in scene:
        with rasterio.open(path) as dataset:
            arrays.append(dataset.read())
    return arrays


@pytest.fixture(scope="module")
def maps(images, predictor):
    return td.predict_arrays(*images, predictor=predictor)


def test_labels_are_those_of_predict(scene, maps, model, predictor, tmp_path):
    tile_px = predictor.tiling.tile_size_px
    assert predictor.tiling.count(*SIZE) > 1
    options = {"backend": "torch", "precision": "fp32", "tile_size": tile_px}
    td.predict(*scene, tmp_path / "out", **sort_options(options, model=model))
    classes = td.load_model(model).card.classes
    change_HW = classes.encode_transition(maps.before_class, maps.after_class)
    with rasterio.open(tmp_path / "out/change.tif") as dataset:
        assert np.array_equal(dataset.read(1), change_HW)
    with rasterio.open(tmp_path / "out/confidence.tif") as dataset:
        assert np.array_equal(dataset.read(1), (100 * maps.confidence).round())
    assert 0 < maps.change.mean() < 1


def test_results_have_the_stated_shapes_and_dtypes(maps):
    kinds = {name: (part.dtype.name, part.shape) for name, part in vars(maps).items()}
    assert kinds == {
        "change": ("uint8", SIZE),
        "before_class": ("uint8", SIZE),
        "after_class": ("uint8", SIZE),
        "confidence": ("float32", SIZE),
        "valid": ("bool", SIZE),
    }
    assert maps.valid.all()
    assert ((maps.confidence >= 0) & (maps.confidence <= 1)).all()
    assert np.array_equal(maps.change == 1, maps.after_class > 0)


def test_tensors_and_floats_answer_the_same(images, maps, predictor):
    for kind in (torch.uint8, torch.float32):
        tensors = [torch.from_numpy(image).to(kind) for image in images]
        other = td.predict_arrays(*tensors, predictor=predictor)
        assert np.array_equal(other.before_class, maps.before_class)


def test_what_is_not_valid_is_empty(images, predictor):
    valid_HW = np.ones(SIZE, bool)
    valid_HW[:50] = False
    before, after = (image.astype(np.float32) for image in images)
    after[1, 60, 70] = np.nan
    found = td.predict_arrays(before, after, valid_HW, predictor=predictor)
    assert not found.valid[:50].any()
    assert not found.valid[60, 70]
    assert found.valid.sum() == valid_HW.sum() - 1
    assert not found.change[~found.valid].any()
    assert np.array_equal(np.isnan(found.confidence), ~found.valid)
    assert valid_HW[60, 70], "what was given is left as it was"


def test_data_arrays_keep_their_coordinates(images, maps, predictor):
    xarray = pytest.importorskip("xarray")
    y, x = np.arange(SIZE[0]) * -0.5, np.arange(SIZE[1]) * 0.5
    before, after = (
        xarray.DataArray(image, {"y": y, "x": x, "date": 2020}, ("band", "y", "x"))
        for image in images
    )
    found = td.predict_arrays(before, after, predictor=predictor)
    assert found.change.dims == ("y", "x")
    assert np.array_equal(found.change.y, y)
    assert found.confidence.name == "confidence"
    assert np.array_equal(found.before_class, maps.before_class)
    with pytest.raises(td.TerradeltaError, match="differ in their coordinate 'x'"):
        td.predict_arrays(before, after.assign_coords(x=x + 1), predictor=predictor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b, a: (b, a[:, 1:]), r"before has the shape \(3, 300, 340\) and after"),
        (lambda b, a: (b[:2], a[:2]), "the arrays have 2 bands and the model reads red, green"),
        (lambda b, a: (b.astype(complex), a), "before is complex128"),
        (lambda b, a: ("before.tif", a), "before is str; it must be an array"),
        (lambda b, a: (b, a, np.ones((300, 340))), r"valid is float64 of the shape"),
        (lambda b, a: (b, a.astype(np.uint16) * 40), "after holds uint16 values up to"),
    ],
)
def test_what_does_not_fit_is_refused(images, predictor, change, words):
    with pytest.raises(td.TerradeltaError, match=words):
        td.predict_arrays(*change(*images), predictor=predictor)
    with pytest.raises(td.TerradeltaError, match="a predictor was given, and a model"):
        td.predict_arrays(*images, model="m", predictor=predictor)


class Kept:
    def __init__(self):
        self.blocks = []

    def put(self, block):
        self.blocks.append(block)


def test_a_sink_gets_each_block_once(scene, maps, predictor):
    kept = Kept()
    with td.RasterPair(*scene, predictor.bands) as pair:
        td.predict_blocks(pair, kept, predictor)
        before_HW = np.full(SIZE, 99, np.uint8)
        for block in kept.blocks:
            part = block.window.toslices()
            assert (before_HW[part] == 99).all()
            before_HW[part] = np.where(block.valid_HW, block.maps.before_HW, 0)
        with pytest.raises(td.TerradeltaError, match="list, which has no method put"):
            td.predict_blocks(pair, [], predictor)
    assert np.array_equal(before_HW, maps.before_class)
    with (
        td.RasterPair(*scene, ("red",)) as pair,
        pytest.raises(td.TerradeltaError, match="opened with the bands red and the model reads"),
    ):
        td.predict_blocks(pair, kept, predictor)


def test_an_error_of_a_sink_reaches_the_caller(scene, predictor):
    class Full:
        def put(self, block):
            raise OSError("the database is full")

    with (
        td.RasterPair(*scene, predictor.bands) as pair,
        pytest.raises(OSError, match="the database is full"),
    ):
        td.predict_blocks(pair, Full(), predictor)
