"""What is exported answers, in its own runtime, like the network it was made of."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch

import terradelta as td
from terradelta.cli import main
from terradelta.errors import ArgumentError, ModelError, OutputExistsError
from terradelta.inference.export import TARGETS, InputSize, describe, export
from terradelta.models.bundle import Model, hash_model, save_model
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.registry import create_model

from ..conftest import make_model

TILE_PX = 96
POOL_WINDOW_PX = 64
QUICK = {
    ("fcn", "resnet18"): ("onnx", "openvino", "pt2"),
    ("pspnet", "resnet18_slim"): ("onnx",),
    ("deeplabv3plus", "resnet18_slim"): ("openvino",),
    ("unet", "resnet18_slim"): ("openvino",),
    ("fcn", "efficientnet_lite0"): ("openvino",),
    ("fcn", "hrnet_w18"): (),
}
"""What is not left to the slow tests."""
TOLERANCE = {"hrnet_w18": 5e-4}
"""Else 1e-4. An untrained HRNet's own float32 is 1.7e-4 off its float64, folded 1.5e-4."""


def settle(network, scaling):
    """Give a network the statistics of drawn values, and logits of mean 0 and deviation 1."""
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    before, after = (
        scaling.apply(torch.from_numpy(part)) for part in draw_values(2, 2, 3, TILE_PX, TILE_PX)
    )
    with torch.no_grad():
        network.train()(before, after)
        network.pool_window_px = POOL_WINDOW_PX
        output = network.eval()(before, after)
        for head, logits in (
            (network.semantic_head, output.before_logits),
            (network.change_head, output.change_logits),
        ):
            head.classifier.weight /= logits.std()
            head.classifier.bias -= logits.mean()
            head.classifier.bias /= logits.std()
    return network


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders by architecture and encoder, made when asked for."""
    made = {}

    def find(name, encoder):
        if (name, encoder) not in made:
            torch.manual_seed(0)
            scaling = Scaling.for_encoder(encoder)
            network = settle(create_model(name, encoder), scaling)
            card = ModelCard(
                architecture=network.config,
                scaling=scaling,
                tile_size_px=POOL_WINDOW_PX if network.has_global_pooling else None,
                licence="MIT",
            )
            folder = tmp_path_factory.mktemp("models") / f"{name}-{encoder}"
            save_model(Model(network, card), folder)
            made[name, encoder] = folder
        return made[name, encoder]

    return find


def draw_values(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def answer_eagerly(model, pair_BCHW):
    """Probabilities of the network as it was trained, scaled by hand."""
    scaling = model.card.scaling
    mean, std = (np.array(part)[:, None, None] for part in (scaling.mean, scaling.std))
    before, after = (
        torch.from_numpy(((image / 255 - mean) / std).astype(np.float32))
        for image in np.split(pair_BCHW, 2, axis=1)
    )
    if model.network.has_global_pooling:
        model.network.pool_window_px = POOL_WINDOW_PX
    with torch.no_grad():
        output = model.network(before, after)
    return (
        output.before_logits.softmax(1),
        output.after_logits.softmax(1),
        output.change_logits.sigmoid(),
    )


class OnnxFile:
    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        texts = self.session.get_modelmeta().custom_metadata_map
        self.metadata = {key: json.loads(text) for key, text in texts.items()}

    def __call__(self, pair_BCHW):
        return self.session.run(self.metadata["outputs"], {"pair": pair_BCHW})


class OpenVINOFile:
    def __init__(self, path):
        core = openvino.Core()
        model = core.read_model(path)
        self.metadata = {
            key: json.loads(value.astype(str))
            for key, value in model.get_rt_info(["terradelta"]).astype(dict).items()
        }
        self.compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, pair_BCHW):
        answers = self.compiled({"pair": pair_BCHW})
        return [answers[name] for name in self.metadata["outputs"]]


class Pt2File:
    def __init__(self, path):
        extra = {"terradelta.json": ""}
        self.module = torch.export.load(path, extra_files=extra).module()
        self.metadata = json.loads(extra["terradelta.json"])

    def __call__(self, pair_BCHW):
        with torch.no_grad():
            return [part.numpy() for part in self.module(torch.from_numpy(pair_BCHW))]


RUNTIMES = {"onnx": OnnxFile, "openvino": OpenVINOFile, "pt2": Pt2File}


CASES = [
    pytest.param(name, encoder, to, marks=() if to in quick else pytest.mark.slow)
    for (name, encoder), quick in QUICK.items()
    for to in RUNTIMES
]


@pytest.mark.parametrize(("name", "encoder", "to"), CASES)
def test_each_runtime_answers_like_the_network(folders, tmp_path, name, encoder, to):
    folder = folders(name, encoder)
    model = td.load_model(folder)
    stride_px = model.network.output_stride
    tile_px = TILE_PX if model.network.has_global_pooling else None
    path = td.export(folder, tmp_path / f"a{TARGETS[to].suffixes[0]}", to=to, tile_size=tile_px)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == sorted(TARGETS[to].suffixes)
    exported = RUNTIMES[to](path)

    steps = ((5, 7), (10, 4)) if tile_px is None else [(tile_px // stride_px,) * 2] * 2
    for batch, (rows, columns) in enumerate(steps, start=1):
        pair_BCHW = draw_values(batch, 6, rows * stride_px, columns * stride_px)
        expected = answer_eagerly(model, pair_BCHW)
        for part, truth in zip(exported(pair_BCHW), expected, strict=True):
            assert part.dtype == np.float32
            assert truth.std() > 0.01
            assert part.shape == truth.shape
            assert np.abs(part - truth.numpy()).max() < TOLERANCE.get(encoder, 1e-4)

    assert exported.metadata["outputs"] == ["before", "after", "change"]
    assert exported.metadata["weights_sha256"] == hash_model(folder)
    assert exported.metadata["tile_size_px"] == tile_px
    assert exported.metadata["size_multiple_px"] == stride_px
    assert exported.metadata["input_bands"][2:4] == ["before blue", "after red"]
    assert exported.metadata["classes"][0] == "unchanged"
    assert exported.metadata["licence"] == "MIT"


def test_a_fixed_size_takes_no_other(folders, tmp_path):
    path = td.export(folders("fcn", "resnet18"), tmp_path / "a.xml", to="openvino", tile_size=64)
    exported = OpenVINOFile(path)
    assert list(exported.compiled.inputs[0].partial_shape)[1:] == [6, 64, 64]
    assert exported.compiled.inputs[0].partial_shape[0].is_dynamic
    with pytest.raises(RuntimeError, match="shape"):
        exported(draw_values(1, 6, 64, 72))


def test_deepness_gets_the_class_maps_of_predict(tmp_path):
    """Follows what the plug-in does with a tile (its version 0.6), without its code."""
    model = make_model()
    save_model(model, tmp_path / "model")
    path = td.export(tmp_path / "model", tmp_path / "a.onnx", to="deepness", tile_size=320)
    exported = OnnxFile(path)
    metadata = exported.metadata
    side_px = metadata["tile_size"]
    (taken,) = exported.session.get_inputs()
    # It reads the tile's size from the last axis, as a number, and lets the batch be.
    assert taken.shape[1:] == [6, side_px, side_px]
    assert isinstance(taken.shape[0], str)
    overlap_px = int(side_px * metadata["tiles_overlap"] / 100 * 2) // 2
    assert overlap_px >= 2 * model.network.margin_px
    assert (side_px - overlap_px) % model.network.output_stride == 0
    assert metadata["model_type"].capitalize() == "Segmentor"

    tile_HWC = draw_values(side_px, side_px, 6).astype(np.uint8)
    tile_HWC[:, :160, 3:] = tile_HWC[:, :160, :3]
    scaled = np.float32(tile_HWC[None] * 1.0 / 255.0)
    mean, std = (
        np.array(metadata[f"standardization_{part}"], np.float32) for part in ("mean", "std")
    )
    standardised = ((scaled - mean) / std).transpose(0, 3, 1, 2)
    scores = exported.session.run(None, {taken.name: standardised})
    for part, names in zip(scores, metadata["class_names"], strict=True):
        part[part < metadata["seg_thresh"]] = 0
        assert [int(number) for number in names] == list(range(part.shape[1]))
    drawn = [part.argmax(axis=1) for part in scores]

    values = tile_HWC.transpose(2, 0, 1)[None].astype(np.float32)
    before, after, change = answer_eagerly(model, values)
    changed = change >= model.card.change_threshold
    before, after = (
        torch.where(changed, part.argmax(dim=1) + 1, 0).numpy() for part in (before, after)
    )
    assert 0.05 < (before > 0).mean() < 0.95
    assert (drawn[0] == before).mean() > 0.9999
    assert (drawn[1] == after).mean() > 0.9999
    assert metadata["class_names"][1]["5"] == "after: building"


@pytest.mark.parametrize("name", ["fcn", "pspnet"])
@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "hrnet_w18", "efficientnet_lite0"])
def test_deepness_lays_out_tiles_that_throw_margins_away(name, encoder):
    network = create_model(name, encoder)
    network.pool_window_px = 256 if network.has_global_pooling else None
    from terradelta.inference.export import DeepnessGraph, choose_tile_size

    tile_px = choose_tile_size(network, "deepness", None)
    model = Model(network, ModelCard(architecture=network.config))
    size = InputSize(6, network.output_stride, tile_px)
    metadata = describe(model, DeepnessGraph(model), size)
    overlap_px = int(tile_px * metadata["tiles_overlap"] / 100 * 2) // 2
    assert overlap_px == 2 * network.margin_px
    assert tile_px >= 1024
    assert tile_px % network.output_stride == 0


def test_networks_that_pool_take_the_tiles_of_predict(folders):
    from terradelta.inference.export import choose_tile_size

    network = td.load_model(folders("pspnet", "resnet18_slim")).network
    network.pool_window_px = 512
    assert choose_tile_size(network, "onnx", None) == 5 * network.margin_px
    assert choose_tile_size(network, "onnx", 64) == 64
    assert choose_tile_size(create_model("fcn"), "onnx", None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "'tflite' is not a valid target"),
        ({"to": "onnx", "tile_size": 100}, "output stride 8\n.*--tile-size 96"),
        ({"to": "onnx", "tile_size": -8}, "tile_size is -8"),
        ({"to": "deepness", "tile_size": 256}, "cannot lay out tiles of 256 px"),
        ({"to": "openvino", "output": "model.onnx"}, "openvino files end in .xml"),
        ({"to": "onnx", "output": Path()}, r"\. ends in ''.*\n  fix: name it model\.onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused(folders, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=message):
        export(folders("fcn", "resnet18"), **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ArgumentError, match=r"onnxscript.*\n.*terradelta\[onnx\]"):
        export(folders("fcn", "resnet18"), tmp_path / "a.onnx", to="onnx")


def test_what_is_there_is_kept_without_overwrite(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = folders("fcn", "resnet18")
    (tmp_path / "fcn-resnet18.bin").write_text("somebody's")
    with pytest.raises(OutputExistsError, match=r"fcn-resnet18\.bin exists already"):
        export(folder, to="openvino")
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(folder), "--to", "openvino"])
    assert "fix: choose another output" in capsys.readouterr().err
    assert (tmp_path / "fcn-resnet18.bin").read_text() == "somebody's"
    with pytest.raises(SystemExit, match="0"):
        main(["export", str(folder), "--to", "openvino", "--overwrite"])
    assert capsys.readouterr().out == "written to fcn-resnet18.xml\n"
    assert OpenVINOFile("fcn-resnet18.xml").metadata["tile_size_px"] is None
    with pytest.raises(ModelError, match="is not a model"):
        export(tmp_path / "nowhere", to="pt2")


def test_deepness_marks_a_probability_that_is_just_the_threshold_as_changed():
    from terradelta.inference.export import DeepnessGraph, PairGraph

    model = make_model()
    values = torch.from_numpy(draw_values(1, 6, 64, 64))
    with torch.no_grad():
        *_, change_BHW = PairGraph(model)(values)
        some = change_BHW[0, 20, 30].item()
        model = replace(model, card=replace(model.card, change_threshold=some))
        for part in DeepnessGraph(model)(values):
            changed_BHW = part.argmax(dim=1) > 0
            assert changed_BHW[0, 20, 30]
            assert torch.equal(changed_BHW, change_BHW >= some)
