"""The feature pyramid and the encoder for aerial images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from terradelta.errors import ModelError
from terradelta.models.card import Scaling
from terradelta.models.published import convert_published
from terradelta.models.registry import create_model
from terradelta.models.weights import load_encoder_weights

ENCODERS = ("aerial_resnet18", "aerial_resnet18_slim")


def publish(encoder) -> dict[str, np.ndarray]:
    """Random weights under geoembed's keys, with what else its file holds."""
    random = np.random.default_rng(0)
    arrays = {"fc.weight": np.zeros((8, 4), np.float32), "pool_size": np.array([4], np.int32)}
    for key, value in encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            name = key.replace("conv1.", "stem.0.") if key.startswith("conv1.") else key
            name = name.replace("bn1.", "stem.1.") if name.startswith("bn1.") else name
            name = name.replace("downsample", "short")
            arrays[f"bb.{name}"] = random.random(value.shape, np.float32)
    return arrays


@pytest.mark.parametrize("name", ENCODERS)
def test_published_weights_load_and_a_slim_stage_keeps_its_own(name, tmp_path):
    whole = create_model("fpn", "aerial_resnet18").encoder
    arrays = publish(whole)
    np.savez(tmp_path / "weights.npz", **arrays)
    encoder = create_model("fpn", name).encoder
    fresh = {key: value.clone() for key, value in encoder.state_dict().items()}
    load_encoder_weights(encoder, name, tmp_path / "weights.npz")
    loaded = encoder.state_dict()
    assert np.array_equal(loaded["conv1.weight"], arrays["bb.stem.0.weight"])
    assert np.array_equal(loaded["bn1.running_var"], arrays["bb.stem.1.running_var"])
    assert np.array_equal(
        loaded["layer3.0.downsample.0.weight"], arrays["bb.layer3.0.short.0.weight"]
    )
    last = loaded["layer4.1.conv2.weight"]
    if name == "aerial_resnet18":
        assert np.array_equal(last, arrays["bb.layer4.1.conv2.weight"])
    else:
        assert torch.equal(last, fresh["layer4.1.conv2.weight"])


def test_what_is_no_file_of_arrays_is_reported(tmp_path):
    encoder = create_model("fpn", "aerial_resnet18").encoder
    (tmp_path / "damaged.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "objects.npz", weight=np.array([object()]))
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    for name, words in (("damaged", "damaged"), ("objects", "more than arrays"), ("other", "fit")):
        with pytest.raises(ModelError, match=words):
            load_encoder_weights(encoder, "aerial_resnet18", tmp_path / f"{name}.npz")
    with pytest.raises(ModelError, match="no aerial weights to install for resnet18"):
        create_model("fcn", "resnet18", encoder_weights="aerial")


def test_the_encoder_is_a_resnet_with_a_small_stem():
    """Against the same operations written out, on random weights and statistics."""
    encoder = create_model("fpn", "aerial_resnet18").encoder.double().eval()
    for part in encoder.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    state = encoder.state_dict()

    def norm(x, key):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{key}.{name}"] for name in names))

    image = torch.rand(1, 3, 64, 48, dtype=torch.float64)
    x = F.relu(norm(F.conv2d(image, state["conv1.weight"], stride=2, padding=1), "bn1"))
    expected = []
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            key = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, state[f"{key}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(F.relu(norm(y, f"{key}.bn1")), state[f"{key}.conv2.weight"], padding=1)
            if stride == 2:
                x = F.conv2d(x, state[f"{key}.downsample.0.weight"], stride=2)
                x = norm(x, f"{key}.downsample.1")
            x = F.relu(norm(y, f"{key}.bn2") + x)
        expected.append(x)
    found = encoder(image)
    assert len(found) == 4
    for one, other, stride in zip(found, expected, encoder.strides, strict=True):
        torch.testing.assert_close(one, other)
        assert one.shape[-2:] == (64 // stride, 48 // stride)


def test_the_pyramid_answers_at_a_quarter_and_every_level_has_a_say():
    torch.manual_seed(0)
    network = create_model("fpn", "aerial_resnet18").eval()
    images = torch.rand(2, 1, 3, 128, 128)
    assert network.score(images[0], images[1]).change_logits.shape == (1, 32, 32)
    features = network.encoder(images[0])
    answer = network.pyramid(features)
    assert answer.shape == (1, 96, 32, 32)
    for level in network.pyramid.levels:
        other = [feature.clone() for feature in features]
        other[level][..., 0, 0] += 1
        moved = (network.pyramid(other) - answer).abs().sum(dim=1)[0]
        far = 6 * network.encoder.strides[level] // 4
        assert moved[0, 0] > 0
        assert moved[far:, far:].max() == 0


def test_heads_and_pyramid_learn_faster_than_the_encoder():
    network = create_model("fpn", "aerial_resnet18_slim")
    parts = [*network.encoder_parameters(), *network.head_parameters()]
    assert {id(p) for p in parts} == {id(p) for p in network.parameters()}
    assert len(parts) == len({id(p) for p in parts})
    heads = {id(p) for p in network.head_parameters()}
    assert {id(p) for p in network.pyramid.parameters()} <= heads


def test_images_are_scaled_as_the_weights_want():
    assert Scaling.for_encoder("aerial_resnet18") == Scaling(255.0, (0.5,) * 3, (0.5,) * 3)


def test_a_unet_needs_five_scales():
    with pytest.raises(ModelError, match="has 4"):
        create_model("unet", "aerial_resnet18")


def test_nobody_published_a_pyramid():
    with pytest.raises(ModelError, match="no weights of fpn are published"):
        convert_published({}, "fpn", "resnet18")
