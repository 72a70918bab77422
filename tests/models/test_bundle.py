from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from terradelta.classes import BINARY, ClassTable
from terradelta.errors import DataError, ModelError, OutputExistsError
from terradelta.models.bundle import Model, hash_model, load_model, save_model
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.registry import create_model, list_models

CLASSES = ClassTable(("unchanged", "water", "tree"), ((255,) * 3, (0, 0, 255), (0, 255, 0)))


def make_model(name="fcn", encoder="efficientnet_lite0", bands=4, **fields):
    torch.manual_seed(0)
    network = create_model(name, encoder, num_classes=2, lightweight=True, in_channels=bands)
    card = ModelCard(
        architecture=network.config,
        bands=tuple(f"band {i}" for i in range(bands)),
        scaling=Scaling.imagenet(bands),
        classes=CLASSES,
        **fields,
    )
    return Model(network.eval(), card)


@pytest.fixture(scope="module")
def model():
    return make_model(
        change_threshold=0.4,
        tile_size_px=512,
        training={"data": "drawn scenes", "epochs": 3, "loss": {"ual": 0.5}},
        licence="CC0-1.0",
        scores={"validation, protocol second": {"miou": 0.71234567}},
        strengths=("It finds ponds.",),
        limits=("It takes shadows for ponds.",),
    )


@torch.inference_mode()
def answer(network, bands=4):
    images = torch.randn(2, 1, bands, 40, 56, generator=torch.Generator().manual_seed(0))
    return network(*images)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("encoder", ["resnet18", "hrnet_w18", "efficientnet_lite0"])
def test_loaded_model_answers_as_the_saved_one(tmp_path, name, encoder):
    model = make_model(name, encoder)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.card == model.card
    assert not loaded.network.training
    for actual, expected in zip(answer(loaded.network), answer(model.network), strict=True):
        assert torch.equal(actual, expected)


def test_every_field_of_the_card_survives(tmp_path, model):
    save_model((model.network, model.card), tmp_path / "model")
    assert load_model(tmp_path / "model").card == model.card
    assert json.loads((tmp_path / "model" / "model.json").read_text())["format"] == 1
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]


def test_saving_leaves_the_network_as_it_was(tmp_path):
    model = make_model()
    model.network.train().to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "model")
    assert model.network.training
    loaded = load_model(tmp_path / "model").network.state_dict()
    for key, value in model.network.state_dict().items():
        assert torch.equal(loaded[key], value)


def test_half_precision_storage(tmp_path, model):
    save_model(model, tmp_path / "half", dtype=torch.float16)
    save_model(model, tmp_path / "full")
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.55 * sizes[1]
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}
    network = load_model(tmp_path / "half").network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    loaded = network.state_dict()
    for key, weight in model.network.state_dict().items():
        rounded = weight.half().float() if weight.is_floating_point() else weight
        assert torch.equal(loaded[key], rounded)


def test_a_model_can_be_read_by_others(tmp_path, model):
    save_model(model, tmp_path / "model")
    modes = {path.name: path.stat().st_mode & 0o044 for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o044}


def test_existing_folders_are_kept_without_overwrite(tmp_path, model):
    folder = tmp_path / "model"
    save_model(model, folder)
    first = hash_model(folder)
    other = make_model()
    with torch.no_grad():
        other.network.change_head.classifier.bias.add_(1)
    with pytest.raises(OutputExistsError):
        save_model(other, folder)
    assert hash_model(folder) == first
    save_model(other, folder, overwrite=True)
    assert hash_model(folder) != first
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_nothing(tmp_path, model):
    card = replace(model.card, training={"data": object()})
    with pytest.raises(ModelError, match="JSON"):
        save_model((model.network, card), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_no_numbers_become_null(tmp_path, model):
    card = replace(model.card, scores={"val": {"iou": float("nan"), "oa": 0.5}})
    save_model((model.network, card), tmp_path / "model")
    assert load_model(tmp_path / "model").card.scores == {"val": {"iou": None, "oa": 0.5}}


def test_hash_is_that_of_the_weights(tmp_path, model):
    save_model(model, tmp_path / "a")
    save_model(model, tmp_path / "b")
    content = (tmp_path / "a" / "model.safetensors").read_bytes()
    assert hash_model(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert hash_model(tmp_path / "a") == hash_model(tmp_path / "b")


def test_readme_says_what_the_card_says(tmp_path, model):
    save_model(model, tmp_path / "lakes")
    text = (tmp_path / "lakes" / "README.md").read_text()
    for words in (
        "# lakes",
        "fcn on efficientnet_lite0, lightweight heads",
        "band 0, band 1, band 2, band 3",
        "| 1 | water | 0, 0, 255 |",
        "probability of 0.4 or more",
        "512 px",
        "CC0-1.0",
        "miou 0.7123",
        "| data | drawn scenes |",
        "## What it is good at\n\n- It finds ponds.\n",
        "## Where it fails\n\n- It takes shadows for ponds.\n",
    ):
        assert words in text


def edit(folder, **fields):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no model.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "model.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), "not an object"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
        (lambda folder: edit(folder, format=2), "reads up to 1"),
        (lambda folder: edit(folder, format=None), "reads up to 1"),
        (lambda folder: edit(folder, scaling={"divisor": 1}), "wrong or missing field"),
        (lambda folder: edit(folder, colour="red"), "wrong or missing field"),
        (lambda folder: edit(folder, bands=["red"]), "names 1"),
        (lambda folder: edit(folder, classes=BINARY.to_dict()), "has 1"),
        (lambda folder: edit(folder, change_threshold=1.5), "threshold (balanced) is 1.5"),
        (
            lambda folder: edit(
                folder,
                architecture={
                    "name": "pspnet",
                    "encoder": "efficientnet_lite0",
                    "num_classes": 2,
                    "in_channels": 4,
                },
            ),
            "does not fit the network",
        ),
        (
            lambda folder: edit(
                folder, architecture={"name": "segformer", "num_classes": 2, "in_channels": 4}
            ),
            "no architecture is named 'segformer'",
        ),
        (
            lambda folder: edit(folder, architecture={"num_classes": 2, "in_channels": 4}),
            "architecture.name is missing",
        ),
        (lambda folder: edit(folder, tile_size_px=-5), "tile size is -5 px"),
        (lambda folder: edit(folder, tile_size_px=0), "tile size is 0 px"),
        (lambda folder: edit(folder, tile_size_px=512.5), "tile_size_px is 512.5"),
        (lambda folder: edit(folder, resolution_m=[0.5, 0.1]), "resolution is (0.5, 0.1) m"),
        (lambda folder: edit(folder, resolution_m=[float("nan"), 1]), "resolution_m[0] is nan"),
        (lambda folder: edit(folder, change_threshold=None), "change_threshold is None"),
        (lambda folder: edit(folder, temperatures={"change": float("inf")}), "change is inf"),
        (lambda folder: edit(folder, temperatures={"change": 0}), "temperature of change is 0"),
        (lambda folder: edit(folder, bands=[3, 4, 5, 6]), "bands[0] is 3"),
        (lambda folder: edit(folder, classes={"names": [[]], "colours": [[]]}), "names[0] is []"),
        (
            lambda folder: edit(folder, classes={"names": ["a", 1], "colours": [[0, 0, 0]] * 2}),
            "classes.names[1] is 1",
        ),
        (
            lambda folder: edit(
                folder, scaling={"divisor": float("nan"), "mean": [0] * 4, "std": [1] * 4}
            ),
            "scaling.divisor is nan",
        ),
        (
            lambda folder: edit(
                folder, scaling={"divisor": 1, "mean": [0, 0, 0, 1e400], "std": [1] * 4}
            ),
            "scaling.mean[3] is inf",
        ),
        (
            lambda folder: edit(folder, architecture={"name": "fcn", "encoder_weights": "/etc"}),
            "architecture.'encoder_weights' is '/etc', and it must be left out",
        ),
        (
            lambda folder: edit(folder, architecture={"name": "fcn", "num_classes": 10**9}),
            "architecture.num_classes is 1000000000",
        ),
    ],
)
def test_damaged_folders_are_reported(tmp_path, model, damage, words):
    folder = tmp_path / "model"
    save_model(model, folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("change_head.classifier.weight", lambda part: part * float("nan"), "are NaN or infinite"),
        ("semantic_head.classifier.bias", lambda part: part + float("inf"), "are NaN or infinite"),
        ("encoder.bn1.running_var", lambda part: part - 1e9, "a variance below 0"),
        ("encoder.conv_stem.weight", lambda part: part.double() * 1e300, "are NaN or infinite"),
        ("encoder.conv_stem.weight", lambda part: (100 * part).to(torch.int8), "torch.int8 where"),
    ],
)
def test_weights_that_no_network_can_use_are_refused(tmp_path, model, key, change, words):
    folder = tmp_path / "model"
    save_model(model, folder)
    state = load_file(folder / "model.safetensors")
    save_file({**state, key: change(state[key])}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert key in caught.value.problem


def test_a_model_that_would_answer_nothing_is_not_saved(tmp_path, model):
    large = copy.deepcopy(model.network)
    with torch.no_grad():
        large.change_head.classifier.bias.fill_(1e5)
    save_model((large, model.card), tmp_path / "single")
    with pytest.raises(ModelError, match=r"change_head\.classifier\.bias.*float16"):
        save_model((large, model.card), tmp_path / "half", dtype=torch.float16)
    with torch.no_grad():
        large.change_head.classifier.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        save_model((large, model.card), tmp_path / "broken")


def test_a_card_of_another_network_is_not_saved(tmp_path, model):
    other = create_model("fcn", num_classes=2, in_channels=4)
    with pytest.raises(ModelError, match="the card describes"):
        save_model((other, model.card), tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_scaling_is_the_formula(dtype):
    scaling = Scaling(200.0, (0.1, 0.2), (0.5, 0.25))
    image = (torch.rand(3, 2, 5, 4) * 200).to(dtype)
    kept = image.clone()
    expected = torch.stack(
        [
            (image[:, band].double() / 200 - mean) / std
            for band, mean, std in ((0, 0.1, 0.5), (1, 0.2, 0.25))
        ],
        dim=1,
    )
    scaled = scaling.apply(image)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, expected.float())
    assert torch.equal(image, kept)


def test_scaling_defaults():
    assert Scaling.imagenet().mean == (0.485, 0.456, 0.406)
    assert Scaling.imagenet(4) == Scaling(255.0, (0.5,) * 4, (0.25,) * 4)
    assert Scaling.for_encoder("efficientnet_lite1") == Scaling(255.0, (0.5,) * 3, (0.5,) * 3)
    assert Scaling.for_encoder("resnet18") == Scaling.imagenet()


def test_scaling_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="4 bands and the model's scaling 3"):
        Scaling.imagenet().apply(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ModelError, match="positive"):
        Scaling(0.0, (0.5,), (0.5,))
    with pytest.raises(ModelError, match="2 means"):
        Scaling(1.0, (0.5, 0.5), (0.5,))
