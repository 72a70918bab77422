"""Own losses and encoders: registered, or offered by an installed package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
import torch

import terradelta as td
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.errors import ArgumentError
from terradelta.extensions import CHANGE_LOSSES, CONSISTENCY_LOSSES, ENCODERS
from terradelta.losses import ChangeLoss
from terradelta.models.encoder import Encoder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
REGISTRIES = (ENCODERS, CONSISTENCY_LOSSES, CHANGE_LOSSES)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))


def run_blocks():
    for block in BLOCKS:
        assert len(block.strip().splitlines()) <= 32
        exec(compile(block, str(PAGE), "exec"), {"__name__": "extending"})


def test_the_page_runs_as_printed(capsys):
    assert len(BLOCKS) == 2
    run_blocks()
    assert capsys.readouterr().out == "squared-distance\n8\n"


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
"""
ENTRY_POINTS = """[terradelta.encoders]
theirs = their_package:create_encoder
broken = their_package:gone
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
    assert "the encoder 'broken' of their_package:gone cannot be loaded" in done.stdout


def test_what_is_registered_changes_nothing_of_terradeltas_own():
    own = list(ENCODERS)
    run_blocks()
    assert list(ENCODERS)[: len(own)] == own
    assert list(ENCODERS)[-1] == "tiny"
