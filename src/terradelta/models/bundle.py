"""A model as a folder: `model.safetensors`, `model.json` and `README.md`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.destination import claim_folder
from terradelta.errors import ModelError, TerradeltaError
from terradelta.inputs import read_object
from terradelta.models.card import CARD_FILE, ModelCard
from terradelta.models.change_network import ChangeNetwork
from terradelta.models.published import convert_published
from terradelta.models.registry import create_model
from terradelta.models.weight_files import read_checkpoint
from terradelta.models.weights import load_strictly
from terradelta.outputs import null_undefined, stage_file, stage_folder

WEIGHTS_FILE = "model.safetensors"
README_FILE = "README.md"
INT8_FILE = "int8.xml"
"""Its weights are beside it in a .bin."""


@dataclass(frozen=True)
class Model:
    """A network and its card."""

    network: ChangeNetwork
    """The network, in eval mode if `load_model` returned it."""
    card: ModelCard
    """Everything else."""
    int8_graph: Path | None = None
    """The quantized network, an OpenVINO file of the folder, or None."""
    folder: Path | None = None
    """Its folder; None for a model that is only in memory."""

    @property
    def name(self) -> str:
        """Its name: its folder, or its architecture."""
        if self.folder is not None:
            return str(self.folder)
        return f"{self.card.architecture.get('name')} on {self.card.architecture.get('encoder')}"


def save_model(
    model: Model | tuple[ChangeNetwork, ModelCard],
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
):
    """Write a model folder, completely or not at all.

    Args:
        model: The model; its network is not changed.
        folder: The folder to make.
        dtype: Data type of stored floating-point weights, float32 or float16.
        overwrite: Replace a folder that exists.

    Raises:
        OutputExistsError: If the folder holds something and `overwrite` is False.
        ModelError: If the card does not describe the network or cannot be written as JSON, or a
            weight is NaN or infinite as it would be stored.
    """
    network, card = (model.network, model.card) if isinstance(model, Model) else model
    _require_finite(network, dtype)
    if card.architecture != network.config:
        raise ModelError(
            f"the card describes {card.architecture} and the network is {network.config}",
            fix="make the card with architecture=network.config",
        )
    text = _write_card(card)
    tensors = {
        key: value.detach()
        .to(device="cpu", dtype=dtype if value.is_floating_point() else value.dtype)
        .contiguous()
        for key, value in network.state_dict().items()
    }
    with stage_folder(folder, overwrite=overwrite, listed=False) as staged:
        save_file(tensors, staged / WEIGHTS_FILE)
        # safetensors makes files readable by the owner only; a model has the permissions of its
        # folder.
        (staged / WEIGHTS_FILE).chmod(0o644)
        (staged / CARD_FILE).write_text(text, encoding="utf-8")
        (staged / README_FILE).write_text(card.to_markdown(Path(folder).name), encoding="utf-8")


def _require_finite(network: ChangeNetwork, dtype: torch.dtype):
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value.to(dtype)).all():
            raise ModelError(
                f"the weight {key} holds NaN or infinity as {dtype}, and such a model would give "
                "the same answer everywhere",
                fix="save an earlier state of that training, or store it as float32",
            )


def replace_card(folder: str | Path, card: ModelCard):
    """Replace the card in a model folder for the same weights.

    Raises:
        ModelError: If the card cannot be written as JSON.
    """
    folder = Path(folder)
    for name, text in (
        (CARD_FILE, _write_card(card)),
        (README_FILE, card.to_markdown(folder.resolve().name)),
    ):
        with stage_file(folder / name) as staged:
            staged.write_text(text, encoding="utf-8")


def _write_card(card: ModelCard) -> str:
    try:
        return json.dumps(null_undefined(card.to_dict()), indent=2, allow_nan=False) + "\n"
    except TypeError as error:
        raise ModelError(
            f"the model card cannot be written as JSON: {error}",
            fix="keep to strings, numbers, lists and dicts in training and scores",
        ) from error


def load_card(folder: str | Path) -> ModelCard:
    """Read the card of a model folder, without its weights.

    Raises:
        ModelError: If a file is missing or damaged or the format is newer than this version of
            terradelta reads.
    """
    card_path, _ = _find_files(Path(folder))
    fields = read_object(card_path, ModelError, "fetch the model again")
    try:
        return ModelCard.from_dict(fields)
    except TerradeltaError as error:
        raise ModelError(f"{card_path}: {error.problem}", fix=error.fix) from error


def load_model(folder: str | Path) -> Model:
    """Read a model folder; the network is float32, on the CPU and in eval mode.

    Raises:
        ModelError: If a file is missing or damaged, the format is newer than this terradelta reads,
            or the weights do not fit the architecture.
    """
    card_path, weights_path = _find_files(Path(folder))
    card = load_card(folder)
    try:
        network = create_model(**card.architecture)
    except TerradeltaError as error:
        raise ModelError(f"{card_path}: {error.problem}", fix=error.fix) from error
    except TypeError as error:
        raise ModelError(
            f"{card_path} has an architecture that cannot be built: {error}",
            fix="update terradelta, or write the folder again",
        ) from error
    load_strictly(network, read_checkpoint(weights_path), str(weights_path))
    int8_graph = Path(folder) / INT8_FILE
    graph = int8_graph if int8_graph.is_file() else None
    return Model(network.eval(), card, graph, Path(folder))


def convert(
    checkpoint: str | Path,
    output: str | Path,
    *,
    model: str,
    encoder: str,
    polarity: Literal["changed", "unchanged"],
    lightweight: bool = False,
    overwrite: bool = False,
) -> Model:
    """Turn weights published in the layout of the UAL paper's implementation into a model folder.

    Args:
        checkpoint: The .pth file; only tensors are read from it.
        output: The model folder to make.
        model: The architecture it was trained with.
        encoder: Its encoder.
        polarity: Meaning of 1 in its change output; the published code contradicts itself.
        lightweight: Whether its heads are depthwise separable.
        overwrite: Replace an existing output.

    Raises:
        ModelError: If the file holds more than tensors or does not fit the network.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    checkpoint = Path(checkpoint)
    output = claim_folder(output, [checkpoint], overwrite=overwrite)
    state = read_checkpoint(checkpoint)
    network = convert_published(state, model, encoder, lightweight=lightweight, polarity=polarity)
    num_classes = network.config["num_classes"]
    is_senseearth = num_classes == SENSEEARTH.num_classes
    card = ModelCard(
        architecture=network.config,
        classes=SENSEEARTH if is_senseearth else ClassTable.numbered(num_classes),
        training={
            "converted_from": checkpoint.name,
            "sha256": _hash_file(checkpoint),
            "polarity": polarity,
        },
        licence="that of the checkpoint",
    )
    converted = Model(network, card)
    save_model(converted, output, overwrite=overwrite)
    return converted


def hash_model(folder: str | Path) -> str:
    """Return the SHA-256 of a model folder's weights, in hexadecimal.

    Raises:
        ModelError: If a file of the model is missing.
    """
    _, weights_path = _find_files(Path(folder))
    return _hash_file(weights_path)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_files(folder: Path) -> tuple[Path, Path]:
    paths = (folder / CARD_FILE, folder / WEIGHTS_FILE)
    for path in paths:
        if not path.is_file():
            raise ModelError(
                f"{folder} is not a model: it has no {path.name}",
                fix=f"name a folder with {CARD_FILE} and {WEIGHTS_FILE}; "
                "`terradelta convert` makes one of a .pth",
            )
    return paths
