"""A do-nothing implementation of each protocol, which the package takes."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

import terradelta as td
from terradelta.data.dataset import PairSample
from terradelta.data.synthetic import draw_pair, write_geotiff_pair
from terradelta.errors import ArgumentError, RasterError
from terradelta.extensions import ARCHITECTURES, READERS
from terradelta.geo.mosaic import open_images
from terradelta.inference.executors import LocalEngine
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.protocols import Backend, Executor, Network, PairDataset, Sink, Source


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for registry in (ARCHITECTURES, READERS):
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "scene"
    write_geotiff_pair(folder, 3, (150, 170))
    return folder / "before.tif", folder / "after.tif"


class NoSource:
    """Black ground."""

    grid = td.Grid(CRS.from_epsg(32632), Affine(0.5, 0, 691_000, 0, -0.5, 5_335_000), 96, 80)
    count, dtype, nodata, version = 3, "uint8", None, "1"
    band_names = ("red", "green", "blue")

    def read(self, bands, window):
        return np.zeros((len(bands), int(window.height), int(window.width)), self.dtype)

    def close(self):
        pass


class NoNetwork(ChangeNetwork):
    """Nothing ever changes."""

    output_stride = 1

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def find_margin_px(self, pool_window_px):
        return 0

    def score(self, before_BCHW, after_BCHW):
        change_BHW = before_BCHW[:, 0] * 0 + self.weight - 9
        return ChangeOutput(change_BHW[:, None], change_BHW[:, None], change_BHW)


class NoBackend:
    """The same answer to everything."""

    def __call__(self, request, crop=None):
        batch, height, width = request.valid_BHW.shape
        if crop is not None:
            height, width = crop.size
        before = torch.zeros(batch, 6, height // 8, width // 8)
        before[:, 2] = 9
        return ChangeOutput(before, before.flip(1), before[:, 0] + 5)


class NoSink:
    """Keeps nothing."""

    def put(self, block):
        pass


class NoExecutor:
    """Leaves every block as ground without data."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    choose_device = staticmethod(LocalEngine.choose_device)
    choose_backend = staticmethod(LocalEngine.choose_backend)

    def answer(self, work):
        for index in work.missing:
            work.job.store.write_empty(index, work.job.plan[index].write)


class NoPairs:
    """One pair of black images."""

    classes, bands = td.BINARY, ("red", "green", "blue")

    def __len__(self):
        return 1

    def __getitem__(self, index):
        image, labels = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(32, 32).long()
        return PairSample(image, image, labels, labels, labels, index)


def test_they_have_what_the_protocols_name():
    implementations: tuple[Source, Network, Backend, Sink, Executor, PairDataset] = (
        NoSource(),
        NoNetwork(),
        NoBackend(),
        NoSink(),
        NoExecutor(),
        NoPairs(),
    )
    protocols = Source, Network, Backend, Sink, Executor, PairDataset
    for protocol, implementation in zip(protocols, implementations, strict=True):
        named = {name for name in vars(protocol) if not name.startswith("_")}
        assert named <= set(dir(implementation))


def test_protocols_import_neither_torch_nor_numpy():
    line = (
        "import sys, terradelta.protocols; "
        "assert not {'torch', 'numpy', 'rasterio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", line], check=True)


def test_a_source_of_nothing_is_checked_and_mapped(tmp_path):
    td.register_reader("no", lambda path: NoSource())
    report = td.check("no://before", "no://after")
    assert "96 x 80 px, 3 bands" in str(report.findings)
    td.predict("no://before", "no://after", tmp_path / "out")
    with rasterio.open(tmp_path / "out/change.tif") as dataset:
        assert dataset.shape == (80, 96)
        assert (dataset.read(1) != dataset.nodata).all()


def test_a_network_and_a_sink_of_nothing_answer(scene):
    td.register_model("no", lambda asked: NoNetwork())
    network = td.create_model("no", num_classes=1)
    card = ModelCard(network.config, classes=td.BINARY, scaling=Scaling.imagenet())
    predictor = td.Predictor(
        [td.Model(network.eval(), card)], td.Runtime(backend="torch", precision="fp32")
    )
    with td.RasterPair(*scene, predictor.bands) as pair:
        td.predict_blocks(pair, NoSink(), predictor)
    maps = td.predict_arrays(*draw_pair(1, 64)[:2], predictor=predictor)
    assert not maps.change.any()


def test_an_own_backend_is_what_answers():
    model = td.load_model(DEFAULT_MODEL)
    seen = []

    def create(choice, given, device, pool_window_px):
        seen.append((choice.backend, given, device.type))
        return NoBackend()

    predictor = td.Predictor([model], td.Runtime(backend="torch"), create_backend=create)
    maps = td.predict_arrays(*draw_pair(1, 64)[:2], predictor=predictor)
    assert (maps.before_class == 3).all()
    assert (maps.after_class == 4).all()
    assert maps.change.all()
    assert seen == [("torch", model, "cpu")]
    assert [type(backend) for backend in predictor.backends] == [NoBackend]


def test_an_executor_of_nothing_leaves_blocks_without_data(scene, tmp_path):
    with pytest.raises(RasterError, match=r"no pixel of .* is valid"):
        td.predict(*scene, tmp_path / "out", cluster=NoExecutor())
    folders = [tmp_path / name for name in ("im1", "im2")]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(ArgumentError, match="--engine was given"):
        td.predict(*folders, tmp_path / "maps", cluster=NoExecutor())


def test_pairs_of_nothing_are_trained_on(tmp_path):
    config = td.TrainConfig(encoder="resnet18_slim", epochs=1, batch_size=1, picture_pairs=0)
    td.train(config, tmp_path / "run", dataset=NoPairs(), validation=NoPairs())
    assert td.load_model(tmp_path / "run/last").card.classes == td.BINARY


class FromFile:
    """A file's pixels through an own reader."""

    version = "1"

    def __init__(self, path):
        self.dataset = rasterio.open(path.removeprefix("own://"))
        self.grid = td.Grid.of(self.dataset)
        self.count, self.dtype = self.dataset.count, self.dataset.dtypes[0]
        self.nodata, self.band_names = self.dataset.nodata, self.dataset.descriptions

    def read(self, bands, window):
        return self.dataset.read(bands, window=window)

    def close(self):
        self.dataset.close()


def read_maps(folder):
    with rasterio.open(folder / "change.tif") as dataset:
        return dataset.read(1), dataset.transform, dataset.crs


def test_what_an_own_reader_reads_maps_as_the_file_does(scene, tmp_path):
    td.register_reader("own", FromFile)
    own = [f"own://{path}" for path in scene]
    td.predict(*scene, tmp_path / "file")
    td.predict(*own, tmp_path / "own")
    td.predict(scene[0], own[1], tmp_path / "mixed")
    for folder in ("own", "mixed"):
        for mine, theirs in zip(
            read_maps(tmp_path / folder), read_maps(tmp_path / "file"), strict=True
        ):
            assert np.array_equal(mine, theirs)
    extent = td.plan_pair(*own).extent
    assert (extent.tiles, extent.blocks) == (1, 1)


def test_an_own_reader_keeps_nodata_and_pictures(scene):
    td.register_reader("own", FromFile)
    with (
        td.RasterPair(*(f"own://{path}" for path in scene), ("red", "green", "blue")) as own,
        td.RasterPair(*scene, ("red", "green", "blue")) as pair,
    ):
        for mine, theirs in zip(own.read(own.area), pair.read(pair.area), strict=True):
            assert np.array_equal(mine, theirs)
        picture = own.read_overview((20, 30))
        assert picture.before_CHW.shape == (3, 20, 30)
        assert picture.valid_HW.all()


def test_an_own_reader_reads_masks(scene, tmp_path):
    td.register_reader("own", FromFile)
    with rasterio.open(scene[0]) as dataset:
        profile = {**dataset.profile, "count": 1, "photometric": "minisblack"}
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as dataset:
        dataset.write(np.eye(*dataset.shape, dtype=np.uint8), 1)
    masked = []
    for mask in (tmp_path / "mask.tif", f"own://{tmp_path / 'mask.tif'}"):
        options = td.RasterOptions(mask=str(mask)).reading
        with td.RasterPair(*scene, ("red", "green", "blue"), options) as pair:
            masked.append(pair.read(pair.area).valid_HW)
    assert np.array_equal(*masked)
    assert (~masked[0]).sum() == 150


def test_another_version_of_a_source_is_another_image():
    hashes = []
    for name in ("first", "second"):
        version = {"version": name}
        td.register_reader(name, lambda path, version=version: type("Own", (NoSource,), version)())
    for path in ("first://a", "second://a", "first://a"):
        with open_images(path) as images:
            hashes.append(images.describe(path).header_sha256)
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"grid": None}, "has the grid None, expected a terradelta.Grid with a CRS"),
        ({"count": 0}, "has the count 0"),
        ({"dtype": "complex64"}, "has the dtype 'complex64'"),
        ({"band_names": ("red",)}, "has 1 band_names and the count 3"),
        ({"nodata": -1.0}, "has the nodata -1.0 and the dtype 'uint8'"),
    ],
)
def test_a_source_that_states_what_cannot_be_is_refused(wrong, words):
    td.register_reader("own", lambda path: type("Own", (NoSource,), wrong)())
    with pytest.raises(RasterError, match=f"own://a: the source of the reader 'own' {words}"):
        td.RasterPair("own://a", "own://b", ("red", "green", "blue"))


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda self, bands, window: 1 / 0, "its reader cannot read rows 0 to 80: ZeroDivision"),
        (
            lambda self, bands, window: np.zeros((1, 2, 2), "uint8"),
            r"its reader returned ndarray \(\(1, 2, 2\), 'uint8'\) .* ndarray \(\(3, 80, 96\)",
        ),
    ],
)
def test_a_source_that_reads_something_else_is_refused(read, words):
    td.register_reader("own", lambda path: type("Own", (NoSource,), {"read": read})())
    with (
        td.RasterPair("own://a", "own://b", ("red", "green", "blue")) as pair,
        pytest.raises(RasterError, match=words),
    ):
        pair.read(pair.area)


def test_names_of_readers_are_schemes_or_endings():
    for name in ("https", ".json", "Own", "own://"):
        with pytest.raises(ArgumentError, match="cannot be the name of a reader"):
            td.register_reader(name, NoSource)
    td.register_reader("own", NoSource)
    with pytest.raises(ArgumentError, match="'own' is taken by another reader"):
        td.register_reader("own", NoSource)
    with pytest.raises(RasterError, match="its bands cannot be joined to others"):
        td.RasterPair("own://a + own://b", "own://c", ("red",))
