"""Every network by name: an architecture and an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch

from terradelta.errors import ModelError
from terradelta.extensions import ARCHITECTURES, ENCODERS
from terradelta.models import aerial_resnet, efficientnet_lite, hrnet, resnet
from terradelta.models.aerial_resnet import AerialResNet
from terradelta.models.card import Architecture
from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.efficientnet_lite import EfficientNetLite
from terradelta.models.encoder import Encoder
from terradelta.models.heads import DeepLabHead, FCNHead, Head, PyramidPoolingHead
from terradelta.models.hrnet import HRNet
from terradelta.models.pyramid import FeaturePyramid, PyramidHead
from terradelta.models.resnet import ResNet
from terradelta.models.siamese import SiameseNetwork
from terradelta.models.timm_encoder import TimmEncoder
from terradelta.models.unet import UNetHead
from terradelta.models.weights import load_encoder_weights

_OWN_ARCHITECTURES = ("fcn", "pspnet", "deeplabv3plus", "unet", "fpn")
_COARSE = ("unet", "fpn")
"""Architectures that read an encoder's maps without dilation."""
_PYRAMID_CHANNELS = 96
_TIMM_PREFIX = "timm:"
_PROBE_PX = 64
"""Approximate side of the images that test a registered architecture."""


_OWN_ENCODERS: list[tuple[Iterable[str], Callable[[str, int, bool], Encoder]]] = [
    (resnet.VARIANTS, lambda name, bands, is_dense: ResNet(name, bands)),
    (aerial_resnet.VARIANTS, lambda name, bands, is_dense: AerialResNet(name, bands)),
    (hrnet.WIDTHS, lambda name, bands, is_dense: HRNet(name, bands, joined=is_dense)),
    (
        efficientnet_lite.VARIANTS,
        lambda name, bands, is_dense: EfficientNetLite(name, bands, dilated=is_dense),
    ),
]
_OWN_NAMES = frozenset(name for names, _ in _OWN_ENCODERS for name in names)
for _names, _create in _OWN_ENCODERS:
    for _name in _names:
        ENCODERS.register(_name, partial(_create, _name))


def register_encoder(name: str, create: Callable[[int, bool], Encoder]):
    """Add an encoder that `create_model`, recipes and model folders can name.

    A model folder with it loads only after it is registered. A package offers one as an entry
    point of the group "terradelta.encoders"; this needs no call.

    Args:
        name: Its name.
        create: Makes the encoder, from the number of bands and from whether the last feature map
            is fine (for fcn, pspnet and deeplabv3plus) or the coarsest of a pyramid.

    Raises:
        ArgumentError: If the name is taken.
    """
    ENCODERS.register(name, create)


def register_model(name: str, create: Callable[[Architecture], ChangeNetwork]):
    """Add an architecture that `create_model`, recipes and model folders can name.

    A model folder with it loads only after it is registered. A package offers one as an entry
    point of the group "terradelta.models"; this needs no call.

    Args:
        name: Its name.
        create: Makes the network with new weights, from the arguments of `create_model`: the number
            of bands and of classes, and a recipe's options of encoder and heads, which it may
            ignore. `create_model` runs it once, on zeros, and refuses what is not a `ChangeNetwork`
            or does not answer like one.

    Raises:
        ArgumentError: If the name is taken.
    """
    ARCHITECTURES.register(name, create)


def list_models() -> list[str]:
    """Return the names of the architectures."""
    return list(ARCHITECTURES)


def list_encoders() -> list[str]:
    """Return the names of the encoders; `timm:NAME` also gives any of timm's."""
    return list(ENCODERS)


def create_model(
    name: str,
    encoder: str = "resnet18",
    num_classes: int = 6,
    lightweight: bool = False,
    in_channels: int = 3,
    encoder_weights: str | Path | None = None,
) -> ChangeNetwork:
    """Build a network.

    Args:
        name: One of `list_models()`.
        encoder: One of `list_encoders()`, or `timm:NAME` if timm is installed.
        num_classes: Land-cover classes, without unchanged.
        lightweight: Make the heads' 3x3 convolutions depthwise separable.
        in_channels: Bands of an image.
        encoder_weights: None starts from random weights, "imagenet" from those of an installed
            package, and a path from a published .pth or .safetensors file.

    Raises:
        ModelError: If a name is unknown, the parts do not fit each other, weights do not load, or a
            registered part differs from its attributes.
    """
    if name not in ARCHITECTURES:
        raise _unknown("architecture", name, list_models())
    for argument, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise ModelError(f"{argument} is {count}", fix="give at least 1")
    architecture = Architecture(name, encoder, num_classes, lightweight, in_channels)
    network = ARCHITECTURES[name](architecture)
    if name not in _OWN_ARCHITECTURES:
        _require_network(network, architecture)
        network.config = asdict(architecture)
    if encoder_weights is not None:
        built = getattr(network, "encoder", None)
        if not isinstance(built, Encoder):
            raise ModelError(
                f"the architecture {name!r} has no encoder, and {encoder_weights} was given for it",
                fix="leave encoder_weights out, or keep an Encoder in the network's `encoder`",
            )
        load_encoder_weights(built, encoder, encoder_weights)
    return network


def _create_siamese(architecture: Architecture) -> SiameseNetwork:
    """Build a network of one of terradelta's own architectures, with random weights.

    Raises:
        ModelError: Same as `create_model`.
    """
    name, bands = architecture.name, architecture.in_channels
    built = _build_encoder(architecture.encoder, bands, dense=name not in _COARSE)
    pyramid = FeaturePyramid(built, _PYRAMID_CHANNELS) if name == "fpn" else None
    lightweight = architecture.lightweight
    semantic_head, change_head = (
        _build_head(part, built, channels, lightweight)
        if pyramid is None
        else PyramidHead(_PYRAMID_CHANNELS, channels, reach=pyramid.reach, lightweight=lightweight)
        for part, channels in ((_semantic_part(name), architecture.num_classes), (name, 1))
    )
    return SiameseNetwork(built, semantic_head, change_head, asdict(architecture), pyramid)


for _name in _OWN_ARCHITECTURES:
    ARCHITECTURES.register(_name, _create_siamese)


def _require_network(network: object, architecture: Architecture):
    """Raise if a registered architecture makes a network that cannot be trained and tiled.

    It is run once on two pairs of zeros, in eval mode.

    Raises:
        ModelError: Naming the architecture, the result and the expected one.
    """
    part = f"the architecture {architecture.name!r}"
    if not isinstance(network, ChangeNetwork):
        raise ModelError(
            f"{part} is made as {type(network).__name__}",
            fix="derive it from terradelta.models.change_network.ChangeNetwork",
        )
    stride_px, margin_px = getattr(network, "output_stride", None), network.find_margin_px(None)
    if not isinstance(stride_px, int) or stride_px < 1:
        raise ModelError(
            f"{part} has the output_stride {stride_px!r}", fix="give a whole number of 1 or more"
        )
    if not isinstance(margin_px, int) or margin_px < 0 or margin_px % stride_px:
        raise ModelError(
            f"{part} has a margin of {margin_px!r} px and an output_stride of {stride_px} px",
            fix="return a multiple of the stride from find_margin_px, 0 or more",
        )
    _require_scores(part, network, architecture, max(_PROBE_PX // stride_px, 2) * stride_px)


def _require_scores(part: str, network: ChangeNetwork, architecture: Architecture, side_px: int):
    image_BCHW = torch.zeros(2, architecture.in_channels, side_px, side_px)
    was_training = network.training
    try:
        with torch.no_grad():
            scores = ChangeOutput(*network.eval().score(image_BCHW, image_BCHW))
        network.train(was_training)
        made = [tuple(logits.shape) for logits in scores]
    except Exception as error:
        raise ModelError(
            f"{part} fails on images {tuple(image_BCHW.shape)}: {type(error).__name__}: {error}",
            fix="return a ChangeOutput from `score` for images of any number of strides a side",
        ) from error
    size, batch = made[0][-2:], (2, architecture.num_classes)
    stated = [(*batch, *size), (*batch, *size), (2, *made[2][-2:])]
    if made != stated or not all(logits.is_floating_point() for logits in scores):
        raise ModelError(
            f"{part} answers {', '.join(f'{tuple(x.shape)} {x.dtype}' for x in scores)} to images "
            f"{tuple(image_BCHW.shape)}, and it must answer floats of {stated}",
            fix="return before_logits and after_logits (B, K, H, W) and change_logits (B, H, W)",
        )


def _semantic_part(name: str) -> str:
    """Return the architecture of the semantic head: only the U-Net has its own."""
    return "unet" if name == "unet" else "fcn"


def _build_head(name: str, encoder: Encoder, num_classes: int, lightweight: bool) -> Head:
    deep = encoder.channels[-1]
    if name == "fcn":
        return FCNHead(deep, num_classes, lightweight=lightweight)
    if name == "pspnet":
        return PyramidPoolingHead(deep, num_classes, lightweight=lightweight)
    if name == "deeplabv3plus":
        skip_level = _find_stride(encoder, 4)
        return DeepLabHead(
            (encoder.channels[skip_level], deep),
            num_classes,
            skip_level=skip_level,
            lightweight=lightweight,
        )
    if len(encoder.channels) != 5:
        raise ModelError(
            f"unet needs feature maps of five scales, this encoder has {len(encoder.channels)} "
            f"(strides {encoder.strides})",
            fix="use another encoder, or fcn",
        )
    return UNetHead(encoder.channels, num_classes, lightweight=lightweight)


def _build_encoder(name: str, in_channels: int, *, dense: bool) -> Encoder:
    """Build an encoder whose last feature map is fine (dense heads) or the coarsest of a pyramid.

    ResNets are dilated for every architecture: the published U-Net's are too.
    """
    if name in ENCODERS:
        encoder = ENCODERS[name](in_channels, dense)
        if name not in _OWN_NAMES:
            _require_as_stated(name, encoder, in_channels)
        return encoder
    if name.startswith(_TIMM_PREFIX):
        return TimmEncoder(name.removeprefix(_TIMM_PREFIX), in_channels, dilated=dense)
    raise _unknown("encoder", name, [*list_encoders(), f"{_TIMM_PREFIX}NAME"])


def _require_as_stated(name: str, encoder: Encoder, in_channels: int):
    """Raise if feature maps differ from the attributes of a foreign encoder: tiles rely on them.

    Raises:
        ModelError: Naming the maps.
    """
    if not isinstance(encoder, Encoder):
        raise ModelError(
            f"the encoder {name!r} is made as {type(encoder).__name__}",
            fix="derive it from terradelta.models.encoder.Encoder",
        )
    side_px = encoder.alignment_px * max(encoder.strides)
    was_training = encoder.training
    with torch.no_grad():
        maps = encoder.eval()(torch.zeros(1, in_channels, side_px, side_px))
    encoder.train(was_training)
    made = [tuple(each.shape[1:]) for each in maps]
    stated = [
        (channels, side_px // stride, side_px // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    if made != stated:
        raise ModelError(
            f"the encoder {name!r} makes feature maps {made} of {side_px} x {side_px} px, and its "
            f"channels {encoder.channels} and strides {encoder.strides} state {stated}",
            fix="correct its channels and strides, or its maps",
        )


def _find_stride(encoder: Encoder, stride: int) -> int:
    if stride not in encoder.strides:
        raise ModelError(
            f"deeplabv3plus needs a feature map of stride {stride}, this encoder has strides "
            f"{encoder.strides}",
            fix="use another encoder, or fcn",
        )
    return encoder.strides.index(stride)


def _unknown(kind: str, name: str, known: Sequence[str]) -> ModelError:
    close = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return ModelError(f"no {kind} is named {name!r}", fix=f"{hint}known are: {', '.join(known)}")
