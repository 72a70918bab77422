"""Own parts: registered, or offered by an installed package; the page that shows them runs."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
from safetensors.torch import load_file

import terradelta as td
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.errors import ArgumentError
from terradelta.extensions import (
    ARCHITECTURES,
    CHANGE_LOSSES,
    CONSISTENCY_LOSSES,
    ENCODERS,
    READERS,
)
from terradelta.losses import ChangeLoss
from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.encoder import Encoder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
REGISTRIES = (ARCHITECTURES, ENCODERS, READERS, CONSISTENCY_LOSSES, CHANGE_LOSSES)
REGISTERS = [block for block in BLOCKS if "td.register_" in block]


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))


def run_blocks(blocks=REGISTERS):
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {"__name__": "extending"})


def test_the_page_runs_as_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(len(block.strip().splitlines()) <= 25 for block in BLOCKS)
    titles = re.findall(r"^## Your own (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert titles == ["architecture", "encoder", "loss", "data set", "reader", "output"]
    run_blocks(BLOCKS)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["2", "8", "squared-distance", "1", "16384", "(128, 128) float32"]


def test_a_registered_architecture_trains_saves_loads_predicts_evaluates_and_exports(tmp_path):
    run_blocks()
    write_folders(tmp_path / "data", 4, seed=1, size_px=64)
    config = td.TrainConfig(
        data=str(tmp_path / "data"), model="plain", epochs=1, batch_size=2, picture_pairs=0
    )
    model = td.train(config, tmp_path / "run").folder / "last"
    loaded = td.load_model(model)
    assert type(loaded.network).__name__ == "Plain"
    assert loaded.card.architecture["name"] == "plain"
    assert td.evaluate(model, config.data, split="all").pairs == 4
    write_geotiff_pair(tmp_path / "scene", 1, (96, 90))
    pair = [tmp_path / "scene" / f"{date}.tif" for date in ("before", "after")]
    labels = []
    for backend in ("torch", "openvino"):
        out = tmp_path / backend
        td.predict(
            *pair,
            out,
            runtime=td.Runtime(backend=backend, precision="fp32", tile_size=40),
            model=model,
        )
        with rasterio.open(out / "change.tif") as dataset:
            labels.append(dataset.read(1))
    assert (labels[0] == labels[1]).mean() > 0.99
    td.export(model, tmp_path / "plain.onnx", to="onnx")
    # Of other classes what has another shape starts anew, the rest goes on.
    binary = td.ClassTable.numbered(3)
    further = td.TrainConfig(start_from=str(model), epochs=1, batch_size=2, picture_pairs=0)
    pairs = Few(classes=binary)
    result = td.train(further, tmp_path / "further", dataset=pairs, validation=pairs)
    assert td.load_model(result.folder / "last").card.classes == binary


def test_a_registered_loss_and_encoder_train_save_load_predict_and_evaluate(tmp_path):
    run_blocks()
    td.register_loss("own-bce", ChangeLoss, part="change")
    write_folders(tmp_path / "data", 4, seed=1, size_px=64)
    recipe = {"encoder": "tiny", "epochs": 1, "batch_size": 2, "val_every": 2, "picture_pairs": 0}
    config = td.TrainConfig(
        data=str(tmp_path / "data"), loss="squared-distance", change_loss="own-bce", **recipe
    )
    model = td.train(config, tmp_path / "run").folder / "last"
    assert td.TrainConfig.read_yaml(tmp_path / "run" / "config.yaml") == config
    assert td.load_model(model).card.architecture["encoder"] == "tiny"
    assert td.evaluate(model, config.data, split="all").pairs == 4
    write_geotiff_pair(tmp_path / "scene", 1, (96, 96))
    pair = [tmp_path / "scene" / f"{date}.tif" for date in ("before", "after")]
    maps = [
        td.predict(
            *pair,
            tmp_path / backend,
            runtime=td.Runtime(backend=backend, precision="fp32"),
            model=model,
        )
        for backend in ("torch", "openvino")
    ]
    labels = []
    for each in maps:
        with rasterio.open(each.folder / "change.tif") as dataset:
            labels.append(dataset.read(1))
    assert (labels[0] == labels[1]).mean() > 0.99
    td.export(model, tmp_path / "tiny.onnx", to="onnx")


def test_a_registered_loss_is_the_one_that_trains():
    run_blocks()
    objective = td.losses.ChangeObjective("squared-distance", consistency_weight=1.0)
    assert type(objective.consistency_loss).__name__ == "SquaredDistance"


def test_names_are_taken_once_and_unknown_ones_are_refused_with_what_there_is():
    with pytest.raises(ArgumentError, match="'resnet18' is taken by another encoder"):
        td.register_encoder("resnet18", lambda bands, is_fine: None)
    with pytest.raises(ArgumentError, match="'ual' is taken by another consistency loss"):
        td.register_loss("ual", ChangeLoss, part="consistency")
    with pytest.raises(ArgumentError, match="no part 'colour'"):
        td.register_loss("own", ChangeLoss, part="colour")
    with pytest.raises(ArgumentError, match="loss is 'squared-distance', and it must be one of u"):
        td.TrainConfig(loss="squared-distance")
    run_blocks()
    with pytest.raises(ArgumentError, match=r"change_loss is 'x'.* one of bce, focal"):
        td.TrainConfig(loss="squared-distance", change_loss="x")


def sample(index=0, **parts):
    labels = torch.zeros(64, 64, dtype=torch.int64)
    image = torch.full((3, 64, 64), 9 * index + 7, dtype=torch.uint8)
    return PairSample(image, 255 - image, labels, labels, labels, 0)._replace(**parts)


class Few:
    """A few own pairs."""

    def __init__(
        self, answer=sample, classes=td.SENSEEARTH, bands=("red", "green", "blue"), count=2
    ):
        self.answer, self.classes, self.bands, self.count = answer, classes, bands, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.answer(index)


SMALL = {"encoder": "resnet18_slim", "epochs": 1, "batch_size": 2, "picture_pairs": 1}


def test_an_own_data_set_trains_like_the_same_pairs_in_files(tmp_path):
    write_folders(tmp_path / "data", 6, seed=1, size_px=64)
    in_files = td.TrainConfig(
        data=str(tmp_path / "data"), class_weight_rule="inverse", val_every=3, **SMALL
    )
    sets = []
    for split in ("train", "val"):
        files = ChangeDataset(find_pairs(in_files.data, split, val_every=3))
        sets.append(Few(files.__getitem__, count=len(files)))
    own = replace(in_files, data=None)
    td.train(in_files, tmp_path / "files")
    td.train(own, tmp_path / "own", dataset=sets[0], validation=sets[1])
    weights = [load_file(tmp_path / run / "last/model.safetensors") for run in ("files", "own")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dataset": Few()}, "a data set object was given without validation"),
        ({"dataset": [1], "validation": Few()}, "the data set list has no classes, bands"),
        (
            {"dataset": Few(classes=["a"]), "validation": Few()},
            "has classes of the type list",
        ),
        (
            {"dataset": Few(), "validation": Few(bands=("nir", "red", "green"))},
            "the data sets differ in their bands",
        ),
        (
            {"dataset": Few(lambda index: 3), "validation": Few()},
            "pair . of Few is a int, expected a PairSample",
        ),
        (
            {"dataset": Few(lambda index: [][1]), "validation": Few()},
            "pair . of Few cannot be read: IndexError",
        ),
        (
            {
                "dataset": Few(lambda index: sample(before_CHW=torch.zeros(2, 8, 8))),
                "validation": Few(),
            },
            r"the images have the shapes \(2, 8, 8\) and \(3, 64, 64\), expected 3 bands",
        ),
        (
            {
                "dataset": Few(lambda index: sample(before_CHW=torch.zeros(3, 64, 64))),
                "validation": Few(),
            },
            "the images are torch.float32 and torch.uint8",
        ),
        (
            {
                "dataset": Few(lambda i: sample(after_labels_HW=sample().change_HW + 7)),
                "validation": Few(),
            },
            "after_labels_HW holds 7 to 7, expected 0 to 6",
        ),
        (
            {
                "dataset": Few(lambda index: sample(change_HW=torch.zeros(64, 64))),
                "validation": Few(),
            },
            "change_HW is torch.float32 of the shape",
        ),
    ],
)
def test_an_own_data_set_that_is_none_is_refused(tmp_path, given, words):
    with pytest.raises(td.TerradeltaError, match=words):
        td.train(td.TrainConfig(**SMALL), tmp_path / "run", **given)


class Network(ChangeNetwork):
    """One that can be wrong in every way."""

    output_stride = 4

    def __init__(self, **wrong):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.wrong = wrong
        self.output_stride = wrong.get("stride", 4)

    def find_margin_px(self, pool_window_px):
        return self.wrong.get("margin", 8)

    def score(self, before_BCHW, after_BCHW):
        if "error" in self.wrong:
            raise RuntimeError(self.wrong["error"])
        batch, _, height, width = before_BCHW.shape
        classes = torch.zeros(batch, self.wrong.get("classes", 6), height // 4, width // 4)
        return ChangeOutput(classes, classes, self.wrong.get("change", classes[:, 0]))


@pytest.mark.parametrize(
    ("create", "words"),
    [
        (lambda asked: torch.nn.Identity(), "the architecture 'own' is made as Identity"),
        (lambda asked: Network(stride=0), "'own' has the output_stride 0"),
        (lambda asked: Network(margin=6), "'own' has a margin of 6 px and an output_stride of 4"),
        (lambda asked: Network(error="no"), r"'own' fails on images \(2, 3, .*RuntimeError: no"),
        (lambda asked: Network(classes=5), r"'own' answers \(2, 5, .* floats of .*\(2, 6, "),
        (lambda asked: Network(change=torch.zeros(2, 1, 8, 8)), r"\(2, 1, 8, 8\) torch.float32"),
    ],
)
def test_an_architecture_that_is_not_what_it_states_is_refused(create, words):
    td.register_model("own", lambda asked: Network())
    assert td.create_model("own").config["name"] == "own"
    td.register_model("wrong", create)
    with pytest.raises(td.TerradeltaError, match=words.replace("'own'", "'wrong'")):
        td.create_model("wrong")
    with pytest.raises(td.TerradeltaError, match="'own' has no encoder"):
        td.create_model("own", encoder_weights="imagenet")
    with pytest.raises(ArgumentError, match="'fcn' is taken by another architecture"):
        td.register_model("fcn", create)


class Wrong(Encoder):
    """States a stride of 8 and has one of 4."""

    channels, strides, alignment_px, context_px = (16,), (8,), 8, 16
    stem_key = "stem.weight"

    def __init__(self, bands):
        super().__init__()
        self.stem = torch.nn.Conv2d(bands, 16, 3, stride=4, padding=1)

    def forward(self, image_BCHW):
        return [self.stem(image_BCHW)]


class Empty(Wrong):
    def forward(self, image_BCHW):
        return []


@pytest.mark.parametrize(
    ("create", "words"),
    [
        (
            lambda bands, is_fine: Wrong(bands),
            r"'own' makes .*16, 16, 16.* state .*16, 8, 8",
        ),
        (lambda bands, is_fine: Empty(bands), r"'own' makes feature maps \[\]"),
        (lambda bands, is_fine: None, "'own' is made as NoneType"),
    ],
)
def test_an_encoder_that_is_not_what_it_states_is_refused(create, words):
    td.register_encoder("own", create)
    with pytest.raises(td.TerradeltaError, match=words):
        td.create_model("fcn", encoder="own")


@pytest.mark.parametrize("part", ["consistency", "change"])
def test_a_loss_of_every_pixel_is_refused(part):
    class PerPixel(torch.nn.Module):
        def forward(self, logits, *rest):
            return logits.abs().flatten(1).mean(1)

    td.register_loss("per-pixel", lambda *weight: PerPixel(), part=part)
    objective = td.losses.ChangeObjective(**{part: "per-pixel"})
    network = td.create_model("fcn", encoder="resnet18_slim")
    labels_BHW = torch.ones(2, 64, 64, dtype=torch.long)
    output = network(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64))
    with pytest.raises(ArgumentError, match=f"the {part} loss returns .2,., and it must return"):
        objective(output, labels_BHW, labels_BHW)


PACKAGE = """
from terradelta.losses import ChangeLoss, CosineChangeLoss
from terradelta.models.resnet import ResNet

def create_encoder(bands, is_fine):
    return ResNet("resnet18_slim", bands)

def create_network(asked):
    from terradelta.models.registry import create_model
    return create_model("fcn", "resnet18_slim", asked.num_classes, in_channels=asked.in_channels)

def open_theirs(path):
    raise OSError("nothing there")
"""
ENTRY_POINTS = """[terradelta.encoders]
theirs = their_package:create_encoder
broken = their_package:gone
[terradelta.models]
theirs = their_package:create_network
[terradelta.readers]
theirs = their_package:open_theirs
[terradelta.consistency_losses]
theirs = their_package:CosineChangeLoss
[terradelta.change_losses]
theirs = their_package:ChangeLoss
"""
LINE = """
import sys
from terradelta.training.config import TrainConfig
assert "torch" not in sys.modules
TrainConfig(loss="theirs", change_loss="theirs")
import terradelta as td
assert "theirs" in td.list_encoders()
network = td.create_model("fcn", encoder="theirs")
same = td.create_model("fcn", encoder="resnet18_slim")
assert network.state_dict().keys() == same.state_dict().keys()
assert type(td.losses.ChangeObjective("theirs").consistency_loss).__name__ == "CosineChangeLoss"
assert "theirs" in td.list_models()
assert td.create_model("theirs").config["name"] == "theirs"
try:
    td.RasterPair("theirs://a", "theirs://b", ["red"])
except td.TerradeltaError as error:
    print(error)
try:
    td.create_model("fcn", encoder="broken")
except td.TerradeltaError as error:
    print(error)
"""


def test_an_installed_package_offers_parts_without_a_call(tmp_path):
    (tmp_path / "their_package.py").write_text(PACKAGE)
    facts = tmp_path / "their_package-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    done = subprocess.run(
        [sys.executable, "-c", LINE], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "theirs://a cannot be opened by the reader 'theirs': OSError: nothing" in done.stdout
    assert "the encoder 'broken' of their_package:gone cannot be loaded" in done.stdout


@pytest.mark.parametrize("register", [td.register_model, td.register_encoder, td.register_reader])
def test_a_part_that_cannot_be_called_is_refused(register):
    with pytest.raises(ArgumentError, match="'three' is of the type int, which cannot be called"):
        register("three", 3)


def test_what_is_registered_changes_nothing_of_terradeltas_own():
    own = list(ENCODERS)
    run_blocks()
    assert list(ENCODERS)[: len(own)] == own
    assert list(ENCODERS)[-1] == "tiny"
