"""Loads published weights: keys are renamed, and weights that do not fit are refused.

Legend of the tensor names: O output channels, C bands, HW kernel rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from terradelta.classes import MAX_CLASSES
from terradelta.errors import ModelError
from terradelta.models.registry import create_model, list_models
from terradelta.models.siamese import SiameseNetwork
from terradelta.models.weights import load_strictly

_FCN_HEAD = {"reduce.conv.": "head.0.", "reduce.norm.": "head.1.", "classifier.": "head.4."}
_PYRAMID_POOLING_HEAD = {
    **{f"pools.{i}.conv.": f"conv5.0.conv{i + 1}.0." for i in range(4)},
    **{f"pools.{i}.norm.": f"conv5.0.conv{i + 1}.1." for i in range(4)},
    "reduce.conv.": "conv5.1.",
    "reduce.norm.": "conv5.2.",
    "classifier.": "conv5.5.",
}
_DEEPLAB_HEAD = {
    "skip.conv.": "reduce_bin.0.",
    "skip.norm.": "reduce_bin.1.",
    "fuse.0.conv.": "fuse_bin.0.",
    "fuse.0.norm.": "fuse_bin.1.",
    "fuse.1.conv.": "fuse_bin.3.",
    "fuse.1.norm.": "fuse_bin.4.",
    **{f"pyramid.branches.{i}.conv.": f"head_bin.b{i}.0." for i in range(4)},
    **{f"pyramid.branches.{i}.norm.": f"head_bin.b{i}.1." for i in range(4)},
    "pyramid.pool.conv.": "head_bin.b4.gap.1.",
    "pyramid.pool.norm.": "head_bin.b4.gap.2.",
    "pyramid.project.conv.": "head_bin.project.0.",
    "pyramid.project.norm.": "head_bin.project.1.",
    "classifier.": "classifier_bin.",
}
_DECODER_STEP = {
    "conv1.conv.": "conv1.0.",
    "conv1.norm.": "conv1.1.",
    "conv2.conv.": "conv2.0.",
    "conv2.norm.": "conv2.1.",
    **{f"attention{i}.squeeze.": f"attention{i}.cSE.1." for i in (1, 2)},
    **{f"attention{i}.excite.": f"attention{i}.cSE.3." for i in (1, 2)},
    **{f"attention{i}.spatial.": f"attention{i}.sSE.0." for i in (1, 2)},
}
_SEPARABLE = {"depthwise.": "conv.0.", "norm.": "conv.1.", "pointwise.": "conv.3."}


def _add_prefixes(table: Mapping[str, str], own: str, published: str) -> dict[str, str]:
    return {own + key: published + value for key, value in table.items()}


def _name_unet_head(own: str, suffix: str, classifier: str) -> dict[str, str]:
    names = {f"{own}classifier.": classifier}
    for step in range(5):
        names |= _add_prefixes(_DECODER_STEP, f"{own}steps.{step}.", f"decoder{step + 1}{suffix}.")
    return names


_DENSE = {"encoder.": "backbone.", **_add_prefixes(_FCN_HEAD, "semantic_head.", "head.")}
_PUBLISHED_NAMES: dict[str, dict[str, str]] = {
    "fcn": _DENSE | _add_prefixes(_FCN_HEAD, "change_head.", "head_bin."),
    "pspnet": _DENSE | _add_prefixes(_PYRAMID_POOLING_HEAD, "change_head.", "head_bin."),
    "deeplabv3plus": _DENSE | _add_prefixes(_DEEPLAB_HEAD, "change_head.", ""),
    "unet": {
        "encoder.": "backbone.",
        **_name_unet_head("semantic_head.", "", "classify."),
        **_name_unet_head("change_head.", "_bin", "head_bin."),
    },
}
"""Prefixes of our keys and of the published ones, for each architecture."""

_UNUSED_KEYS = ("decoder5.attention1.", "decoder5_bin.attention1.")
"""Weights that published U-Nets hold but never use, as their last step has no skip."""


def convert_published(
    state: Mapping[str, Tensor],
    name: str,
    encoder: str,
    num_classes: int | None = None,
    lightweight: bool = False,
    polarity: Literal["changed", "unchanged"] = "changed",
    in_channels: int = 3,
) -> SiameseNetwork:
    """Build a network from weights in the layout that the UAL paper's implementation publishes.

    Args:
        state: The checkpoint (`read_checkpoint`).
        name: The architecture.
        encoder: The encoder.
        num_classes: Land-cover classes; None means those of the checkpoint.
        lightweight: Whether its heads are depthwise separable.
        polarity: Meaning of 1 in its change head. The published code contradicts itself; with
            "unchanged" the last change convolution is negated, so that ours means changed.
        in_channels: Bands of an image.

    Raises:
        ModelError: If the polarity is unknown or the checkpoint does not fit the network.
    """
    if polarity not in ("changed", "unchanged"):
        raise ModelError(
            f"polarity {polarity!r} is not known", fix="say whether 1 means changed or unchanged"
        )
    if name in list_models() and name not in _PUBLISHED_NAMES:
        raise ModelError(
            f"no weights of {name} are published in that layout",
            fix=f"use {', '.join(_PUBLISHED_NAMES)}",
        )
    if num_classes is None and name in _PUBLISHED_NAMES:
        num_classes = _count_classes(state, name)
    network = create_model(name, encoder, num_classes or 1, lightweight, in_channels)
    assert isinstance(network, SiameseNetwork)
    state = {key: value for key, value in state.items() if not key.startswith(_UNUSED_KEYS)}
    load_strictly(network, state, "the checkpoint", list_published_keys(network))
    if polarity == "unchanged":
        with torch.no_grad():
            for parameter in network.change_head.classifier.parameters():
                parameter.neg_()
    return network.eval()


def list_published_keys(network: SiameseNetwork) -> dict[str, str]:
    """Return the published key of each of a network's weights."""
    table = _PUBLISHED_NAMES[network.config["name"]]
    return {key: _publish(key, table) for key in network.state_dict()}


def _count_classes(state: Mapping[str, Tensor], name: str) -> int:
    key = _publish("semantic_head.classifier.weight", _PUBLISHED_NAMES[name])
    if key not in state:
        raise ModelError(
            f"the checkpoint has no {key}, so it is not a {name} of the published layout "
            f"(it begins with {', '.join(list(state)[:3])})",
            fix="name the architecture it was made for",
        )
    shape = list(state[key].shape)
    if len(shape) != 4 or not 1 <= shape[0] <= MAX_CLASSES:
        raise ModelError(
            f"the checkpoint's {key} has the shape {shape}, and that of a classifier is "
            f"[classes, channels, 1, 1] with 1 to {MAX_CLASSES} classes",
            fix="name the architecture it was made for",
        )
    return shape[0]


def _publish(key: str, table: Mapping[str, str]) -> str:
    """Return the published key of one of our keys."""
    own = next(prefix for prefix in table if key.startswith(prefix))
    rest = key.removeprefix(own)
    if own.endswith("conv."):
        for part, published in _SEPARABLE.items():
            if rest.startswith(part):
                rest = published + rest.removeprefix(part)
                break
    return table[own] + rest
