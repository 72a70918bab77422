"""The contract of every network in the registry."""

from __future__ import annotations

import pytest
import torch

from terradelta.errors import ModelError
from terradelta.models.registry import create_model, list_encoders, list_models

SMALL_ENCODERS = ("resnet18_slim", "hrnet_w18", "efficientnet_lite0")
PAIRS = [
    *((name, encoder) for name in list_models() for encoder in SMALL_ENCODERS),
    ("fcn", "resnet18"),
    ("fcn", "resnext50_32x4d"),
    ("fpn", "aerial_resnet18_slim"),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_pair(batch=1, bands=3, height=64, width=64):
    return torch.randn(2, batch, bands, height, width).unbind()


def settle(network):
    """Give a fresh network the batch statistics of its own features, as training would."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(*random_pair(batch=2))
    return network.eval()


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_training_step_reaches_every_parameter(name, encoder):
    network = create_model(name, encoder, num_classes=5).train()
    output = network(*random_pair(batch=2))
    assert output.before_logits.shape == output.after_logits.shape == (2, 5, 64, 64)
    assert output.change_logits.shape == (2, 64, 64)
    sum((logits * torch.randn_like(logits)).sum() for logits in output).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_odd_sizes_swapped_dates_and_memory_layout(name, encoder):
    # In double precision, so that the tolerance can be tight.
    network = settle(create_model(name, encoder)).double()
    before, after = (image.double() for image in random_pair(height=65, width=47))
    with torch.inference_mode():
        output = network(before, after)
        swapped = network(after, before)
        network.to(memory_format=torch.channels_last)
        strided = network(
            *(image.contiguous(memory_format=torch.channels_last) for image in (before, after))
        )
    assert output.before_logits.shape == (1, 6, 65, 47)
    assert output.change_logits.shape == (1, 65, 47)
    assert all(logits.isfinite().all() for logits in output)
    assert not torch.allclose(output.before_logits, output.after_logits)
    assert_close(swapped.before_logits, output.after_logits)
    assert_close(swapped.after_logits, output.before_logits)
    assert_close(swapped.change_logits, output.change_logits)
    for actual, expected in zip(strided, output, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
@pytest.mark.parametrize("encoder", SMALL_ENCODERS)
def test_any_number_of_bands(encoder, bands):
    network = create_model("fcn", encoder, in_channels=bands).eval()
    with torch.inference_mode():
        output = network(*random_pair(bands=bands, height=32, width=32))
    assert output.change_logits.shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        *(("fcn", encoder) for encoder in list_encoders()),
        *(("unet", encoder) for encoder in list_encoders() if "aerial" not in encoder),
        *(("fpn", encoder) for encoder in list_encoders()),
        *((name, "resnet50") for name in ("pspnet", "deeplabv3plus")),
    ],
)
def test_every_encoder_keeps_its_promises(name, encoder):
    # Shapes alone, so that the largest take no memory.
    with torch.device("meta"):
        network = create_model(name, encoder, lightweight=True).eval()
        features = []
        network.encoder.register_forward_hook(lambda _, __, output: features.extend(output))
        output = network(*random_pair(height=70, width=90))
    assert output.before_logits.shape == output.after_logits.shape == (1, 6, 70, 90)
    assert output.change_logits.shape == (1, 70, 90)
    # Of one date; the encoder sees the dates one after the other.
    features = features[: len(network.encoder.channels)]
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (
            channels,
            -(-70 // network.output_stride) * network.output_stride // stride,
            -(-90 // network.output_stride) * network.output_stride // stride,
        )
        for channels, stride in zip(network.encoder.channels, network.encoder.strides, strict=True)
    ]
    assert max(network.encoder.strides) <= network.output_stride


def test_parameters_are_the_encoders_or_the_heads():
    network = create_model("deeplabv3plus")
    encoder, head = (
        {id(parameter) for parameter in part}
        for part in (network.encoder_parameters(), network.head_parameters())
    )
    assert encoder | head == {id(parameter) for parameter in network.parameters()}
    assert not encoder & head


@pytest.mark.parametrize("encoder", ["resnet152", "resnext101_32x8d", "hrnet_w64"])
def test_large_encoders_answer(encoder):
    network = create_model("fcn", encoder).eval()
    with torch.inference_mode():
        output = network(*random_pair(height=33, width=64))
    assert all(logits.isfinite().all() for logits in output)


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_fresh_network_is_undecided_but_not_indifferent(name, encoder):
    """No class rules at the start, and the classifier has weights of both signs and unit gain.

    Near-zero weights are all pushed to one sign by the many unchanged pixels; the change head then
    answers nothing but unchanged.
    """
    network = create_model(name, encoder).train()
    for head in (network.semantic_head, network.change_head):
        weight = head.classifier.weight
        gain = weight.std() * weight[0].numel() ** 0.5
        assert 0.6 < gain < 1.4
        assert 0.25 < (weight > 0).float().mean() < 0.75
    with torch.no_grad():
        output = network(*random_pair(batch=2))
    entropy = torch.distributions.Categorical(logits=output.before_logits.movedim(1, -1)).entropy()
    assert entropy.mean() > 0.6 * torch.tensor(6.0).log()
    assert (output.change_logits.sigmoid() - 0.5).abs().mean() < 0.35


@pytest.mark.parametrize(
    ("name", "encoder", "stride", "pools"),
    [
        ("fcn", "resnet18", 8, False),
        ("pspnet", "resnet18", 8, True),
        ("deeplabv3plus", "efficientnet_lite0", 8, True),
        ("unet", "resnet18", 8, True),
        ("unet", "efficientnet_lite0", 32, True),
        ("fcn", "hrnet_w18", 32, False),
        ("fpn", "resnet18", 8, False),
        ("fpn", "aerial_resnet18", 16, False),
    ],
)
def test_stride_and_pooling(name, encoder, stride, pools):
    with torch.device("meta"):
        network = create_model(name, encoder)
    assert network.output_stride == stride
    assert network.has_global_pooling is pools


def test_lightweight_heads_are_smaller():
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in create_model("fcn", lightweight=light).head_parameters())
            for light in (False, True)
        ]
    assert sizes[1] < sizes[0] / 5


@pytest.mark.parametrize("name", list_models())
def test_config_builds_the_same_network(name):
    with torch.device("meta"):
        network = create_model(name, "hrnet_w18", 4, lightweight=True, in_channels=5)
        again = create_model(**network.config)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in again.state_dict().items()
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "pspnt"}, ["pspnt", "did you mean pspnet", "unet"]),
        ({"name": "fcn", "encoder": "resnet81"}, ["resnet81", "resnet18", "hrnet_w48"]),
        ({"name": "fcn", "num_classes": 0}, ["num_classes is 0"]),
        ({"name": "fcn", "in_channels": -1}, ["in_channels is -1"]),
    ],
)
def test_wrong_arguments_are_reported(arguments, words):
    with pytest.raises(ModelError) as caught:
        create_model(**arguments)
    for word in words:
        assert word in str(caught.value)
