from __future__ import annotations

import hashlib
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from terradelta.errors import ModelError
from terradelta.models.published import convert_published, list_published_keys
from terradelta.models.registry import create_model
from terradelta.models.resnet import ResNet
from terradelta.models.weight_files import read_checkpoint
from terradelta.models.weights import load_encoder_weights, spread_bands

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
CASES = (
    "fcn_resnet18",
    "pspnet_resnet34",
    "pspnet_hrnet_w18_light",
    "deeplabv3plus_resnet18",
    "unet_resnet18",
)


def make_weight(key, shape):
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    a = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        a = 0.5 + np.abs(a)
    elif key.endswith("running_mean"):
        a = 0.1 * a
    elif len(shape) == 1:
        a = 1 + 0.1 * a if key.endswith("weight") else 0.1 * a
    else:
        a = a * np.sqrt(0.5 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


@cache
def make_state(case):
    shapes = json.loads((REFERENCE / "state_dict_keys.json").read_text())[case]
    return {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else make_weight(key, shape)
        for key, shape in shapes.items()
    }


def make_image(seed):
    small = np.random.default_rng(seed).standard_normal((3, 8, 8)).astype(np.float32)
    return F.interpolate(
        torch.from_numpy(small)[None], size=(128, 128), mode="bilinear", align_corners=False
    )


@cache
def convert(case, polarity="changed"):
    name, encoder = case.split("_", 1)
    lightweight = encoder.endswith("_light")
    encoder = encoder.removesuffix("_light")
    return convert_published(
        make_state(case), name, encoder, lightweight=lightweight, polarity=polarity
    )


def relative_error(actual, expected):
    return np.abs(actual.numpy() - expected).max() / np.abs(expected).max()


def average_views(network, before, after):
    """Average probabilities over the identity, two flips and three quarter turns."""
    views = [lambda x: x, lambda x: x.flip(-2), lambda x: x.flip(-1)]
    undo = list(views)
    for turns in (1, 2, 3):
        views.append(lambda x, turns=turns: x.rot90(turns, (-2, -1)))
        undo.append(lambda x, turns=turns: x.rot90(-turns, (-2, -1)))
    before_classes, changes = [], []
    for view, back in zip(views, undo, strict=True):
        output = network(view(before), view(after))
        before_classes.append(back(output.before_logits.softmax(dim=1)))
        changes.append(back(output.change_logits.sigmoid()))
    return torch.stack(before_classes).mean(0), torch.stack(changes).mean(0)


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_converted_weights_answer_as_the_reference(case):
    expected = np.load(REFERENCE / "models.npz")
    network = convert(case)
    assert network.config["num_classes"] == 6
    before, after = make_image(1), make_image(2)
    output = network(before, after)
    parts = {
        "sem1": output.before_logits[0, :, ::8, ::8],
        "sem2": output.after_logits[0, :, ::8, ::8],
        "bin": output.change_logits.sigmoid()[0, ::8, ::8],
    }
    if f"{case}/tta_bin" in expected.files:
        classes, change = average_views(network, before, after)
        parts |= {"tta_sem1": classes[0, :, ::8, ::8], "tta_bin": change[0, ::8, ::8]}
    assert {f"{case}/{part}" for part in parts} == {
        key for key in expected.files if key.startswith(f"{case}/") and key != f"{case}/tta_sem2"
    }
    for part, actual in parts.items():
        assert relative_error(actual, expected[f"{case}/{part}"]) < 1e-5, part


@torch.inference_mode()
@pytest.mark.parametrize("case", ["fcn_resnet18", "unet_resnet18"])
def test_polarity_unchanged_turns_change_round(case):
    expected = np.load(REFERENCE / "models.npz")[f"{case}/bin"]
    output = convert(case, "unchanged")(make_image(1), make_image(2))
    assert relative_error(1 - output.change_logits.sigmoid()[0, ::8, ::8], expected) < 1e-5


def test_misfit_lists_the_files_own_keys():
    state = dict(make_state("fcn_resnet18"))
    for number in range(12):
        state[f"extra.{number:02}"] = torch.zeros(1)
    del state["head.head.1.bias"]
    state["backbone.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    with pytest.raises(ModelError) as caught:
        convert_published(state, "fcn", "resnet18")
    message = str(caught.value)
    assert "1 missing (head.head.1.bias)" in message
    assert "12 unexpected (extra.00, " in message
    assert "extra.09, ...)" in message
    assert "extra.10" not in message
    assert "backbone.conv1.weight [64, 4, 7, 7] where [64, 3, 7, 7] is needed" in message


def test_wrong_architecture_and_polarity_are_reported():
    state = make_state("fcn_resnet18")
    with pytest.raises(ModelError, match=r"no classify\.weight"):
        convert_published(state, "unet", "resnet18")
    with pytest.raises(ModelError, match="missing"):
        convert_published(state, "pspnet", "resnet18")
    with pytest.raises(ModelError, match="polarity"):
        convert_published(state, "fcn", "resnet18", polarity="inverted")
    with pytest.raises(ModelError, match="no architecture"):
        convert_published(state, "fnc", "resnet18")


def test_old_checkpoints_without_batch_counters_load():
    state = {k: v for k, v in make_state("fcn_resnet18").items() if "num_batches" not in k}
    converted = convert_published(state, "fcn", "resnet18").state_dict()
    for key, value in convert("fcn_resnet18").state_dict().items():
        assert torch.equal(converted[key], value), key


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("fcn", {"head.head.0.conv.3.weight", "head_bin.head.0.conv.1.running_mean"}),
        ("pspnet", {"head_bin.conv5.1.conv.0.weight", "head_bin.conv5.0.conv4.0.weight"}),
        (
            "deeplabv3plus",
            {"head_bin.b3.0.conv.3.weight", "fuse_bin.3.conv.0.weight", "reduce_bin.0.weight"},
        ),
        ("unet", {"decoder5_bin.conv2.0.conv.3.weight", "decoder1.conv1.0.conv.1.bias"}),
    ],
)
def test_lightweight_heads_have_published_keys(name, keys):
    with torch.device("meta"):
        network = create_model(name, lightweight=True)
    published = list_published_keys(network)
    assert keys <= set(published.values())
    assert len(set(published.values())) == len(published) == len(network.state_dict())


TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def assert_equal_states(actual, expected):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(actual[key], value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
        lambda tensors: {"state_dict": {f"module.{k}": v for k, v in tensors.items()}},
    ],
)
def test_wrappings_are_taken_off(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / "weights.pth")
    assert_equal_states(read_checkpoint(tmp_path / "weights.pth"), TENSORS)


def test_safetensors_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert_equal_states(read_checkpoint(tmp_path / "weights.safetensors"), TENSORS)


class Payload:
    """What a pickle could run while it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    mark = tmp_path / "ran"
    torch.save({"state_dict": TENSORS, "hook": Payload(mark)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="can run any code"):
        read_checkpoint(tmp_path / "weights.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "bare.pth")
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_and_missing_files_are_reported(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(ModelError, match="does not exist"):
        read_checkpoint(path)
    if suffix == ".pth":
        torch.save(TENSORS, path)
    else:
        save_file(TENSORS, path)
    for content in (path.read_bytes()[:100], b"", b"not weights"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"weights\."):
            read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "b": torch.zeros(1)}])
def test_files_without_a_state_dict_are_reported(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="not a state dict"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_spread_bands_answer_alike_to_grey_images(bands):
    torch.manual_seed(0)
    stem = torch.randn(8, 3, 7, 7)
    grey = torch.randn(1, 1, 20, 20)
    spread = spread_bands(stem, bands)
    assert spread.shape == (8, bands, 7, 7)
    torch.testing.assert_close(
        F.conv2d(grey.expand(-1, bands, -1, -1), spread),
        F.conv2d(grey.expand(-1, 3, -1, -1), stem),
        rtol=1e-4,
        atol=1e-4,
    )
    if bands > 3:
        torch.testing.assert_close(spread[:, :3], stem * 3 / bands)


def save_classifier(path, encoder_name):
    """Save what a published classification network of that name holds, with random weights."""
    torch.manual_seed(1)
    network = create_model("fcn", encoder_name)
    state = dict(network.encoder.state_dict())
    if encoder_name.startswith("hrnet"):
        state["incre_modules.0.0.conv1.weight"] = torch.zeros(32, 18, 1, 1)
        state["downsamp_modules.0.0.bias"] = torch.zeros(256)
        state["final_layer.0.bias"] = torch.zeros(2048)
        state["classifier.weight"] = torch.zeros(1000, 2048)
    else:
        state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, path)
    return network.encoder.state_dict()


@pytest.mark.parametrize("encoder", ["resnet18", "hrnet_w18"])
@pytest.mark.parametrize("bands", [3, 4])
def test_published_encoders_load(tmp_path, encoder, bands):
    published = save_classifier(tmp_path / "encoder.pth", encoder)
    network = create_model(
        "unet", encoder, in_channels=bands, encoder_weights=tmp_path / "encoder.pth"
    )
    loaded = network.encoder.state_dict()
    for key, value in published.items():
        if key == "conv1.weight":
            value = spread_bands(value, bands)
        assert torch.equal(loaded[key], value), key


def test_weights_of_another_encoder_are_reported(tmp_path):
    save_classifier(tmp_path / "encoder.pth", "resnet18")
    with pytest.raises(ModelError, match=r"missing \(layer1\.2\.conv1\.weight"):
        create_model("fcn", "resnet34", encoder_weights=tmp_path / "encoder.pth")


def test_imagenet_weights_that_no_package_has_are_reported():
    with pytest.raises(ModelError, match="give the path"):
        load_encoder_weights(ResNet("resnet18"), "resnet18", "imagenet")
