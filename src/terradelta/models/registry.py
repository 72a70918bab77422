"""Every network by name: an architecture and an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch

from terradelta.errors import ModelError
from terradelta.extensions import ENCODERS
from terradelta.models import aerial_resnet, efficientnet_lite, hrnet, resnet
from terradelta.models.aerial_resnet import AerialResNet
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

_ARCHITECTURES = ("fcn", "pspnet", "deeplabv3plus", "unet", "fpn")
_COARSE = ("unet", "fpn")
"""Architectures that read an encoder's maps as they are, not made fine by dilation."""
_PYRAMID_CHANNELS = 96
_TIMM_PREFIX = "timm:"


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

    A model folder with it loads where it is registered before. A package offers one as an entry
    point of the group "terradelta.encoders"; that needs no call.

    Args:
        name: Its name.
        create: Makes the encoder, from the number of bands and from whether the last feature map
            is to be fine (for fcn, pspnet and deeplabv3plus) or the coarsest of a pyramid.

    Raises:
        ArgumentError: If the name is taken.
    """
    ENCODERS.register(name, create)


def list_models() -> list[str]:
    """Return the names of the architectures."""
    return list(_ARCHITECTURES)


def list_encoders() -> list[str]:
    """Return the names of the encoders; `timm:NAME` takes any of timm's besides."""
    return list(ENCODERS)


def create_model(
    name: str,
    encoder: str = "resnet18",
    num_classes: int = 6,
    lightweight: bool = False,
    in_channels: int = 3,
    encoder_weights: str | Path | None = None,
) -> SiameseNetwork:
    """Build a network.

    Args:
        name: One of `list_models()`.
        encoder: One of `list_encoders()`, or `timm:NAME` where timm is installed.
        num_classes: Land-cover classes, unchanged not among them.
        lightweight: Make the heads' 3x3 convolutions depthwise separable.
        in_channels: Bands of an image.
        encoder_weights: None starts from random weights, "imagenet" from those of an installed
            package, and a path from a published .pth or .safetensors file.

    Raises:
        ModelError: If a name is unknown, the parts do not fit each other, or weights do not load.
    """
    if name not in _ARCHITECTURES:
        raise _unknown("architecture", name, _ARCHITECTURES)
    for argument, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise ModelError(f"{argument} is {count}", fix="give at least 1")
    built = _build_encoder(encoder, in_channels, dense=name not in _COARSE)
    pyramid = FeaturePyramid(built, _PYRAMID_CHANNELS) if name == "fpn" else None
    semantic_head, change_head = (
        _build_head(part, built, channels, lightweight)
        if pyramid is None
        else PyramidHead(_PYRAMID_CHANNELS, channels, reach=pyramid.reach, lightweight=lightweight)
        for part, channels in ((_semantic_part(name), num_classes), (name, 1))
    )
    if encoder_weights is not None:
        load_encoder_weights(built, encoder, encoder_weights)
    config = {
        "name": name,
        "encoder": encoder,
        "num_classes": num_classes,
        "lightweight": lightweight,
        "in_channels": in_channels,
    }
    return SiameseNetwork(built, semantic_head, change_head, config, pyramid)


def _semantic_part(name: str) -> str:
    """Return whose head tells the classes: of these only the U-Net has one of its own."""
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
    """Build an encoder whose last feature map is fine (dense heads) or plainly the coarsest.

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
    """Raise if feature maps are not what an encoder of others states: tiles rely on that.

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
    return ModelError(
        f"there is no {kind} named {name!r}", fix=f"{hint}there are: {', '.join(known)}"
    )
