"""The network that a run starts with: a new one, or a trained one."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from terradelta.errors import ArgumentError
from terradelta.models.bundle import Model, load_model
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.change_network import ChangeNetwork
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.models.registry import create_model
from terradelta.training.batches import TrainingData
from terradelta.training.config import TrainConfig

_EMBEDDED = "default"
_OF_THE_MODEL = ("encoder", "lightweight")
"""Options that a trained network sets, besides `model`, which is `name` in its card."""
_CLASSIFIER = "semantic_head.classifier."


def list_start_files(config: TrainConfig) -> list[str]:
    """Return the model folder and the file of weights that a recipe names to start from."""
    named = (config.start_from, config.encoder_weights)
    return [name for name in named if name is not None and name != _EMBEDDED]


def load_start(config: TrainConfig) -> Model | None:
    """Return the model that a recipe starts from, if it names one.

    Raises:
        ModelError: If it cannot be read.
    """
    if config.start_from is None:
        return None
    return load_model(DEFAULT_MODEL if config.start_from == _EMBEDDED else config.start_from)


def adopt_architecture(config: TrainConfig, start: Model | None) -> TrainConfig:
    """Return the recipe with the architecture of the model that it starts from.

    Raises:
        ArgumentError: If the recipe names another one, or also an encoder's weights.
    """
    if start is None:
        return config
    known = start.card.architecture
    own = {"model": known["name"], **{name: known[name] for name in _OF_THE_MODEL}}
    unsaid = {field.name: field.default for field in fields(config)}
    for name, value in {**own, "encoder_weights": None}.items():
        asked = getattr(config, name)
        if asked not in (value, unsaid[name]):
            raise ArgumentError(
                f"{name} {asked} is requested, and {config.start_from} has {value}",
                fix=f"leave out {name}, or do without --from",
            )
    return replace(config, **own)


def build_network(
    config: TrainConfig, data: TrainingData, start: Model | None
) -> tuple[ChangeNetwork, ModelCard]:
    """Return the network to train and its card.

    Raises:
        ArgumentError: If the images have other bands than the model to start from.
        ModelError: If the network cannot be built.
    """
    sample = data.training[0]
    num_bands = len(sample.before_CHW)
    classes = data.training.classes
    network = create_model(
        config.model,
        encoder=config.encoder,
        num_classes=classes.num_classes,
        lightweight=config.lightweight,
        in_channels=num_bands,
        encoder_weights=config.encoder_weights,
    )
    if start is not None:
        _take_weights(network, start, num_bands, keep_classes=classes == start.card.classes)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    # A pooled answer depends on the size of the image, so predict with the training size.
    trained_size_px = max(sample.before_CHW.shape[-2:])
    tile_size_px = config.tile_size_px or trained_size_px if network.has_global_pooling else None
    card = ModelCard(
        architecture=network.config,
        bands=tuple(data.training.bands) if start is None else start.card.bands,
        scaling=Scaling.for_encoder(config.encoder, num_bands)
        if start is None
        else start.card.scaling,
        classes=classes,
        tile_size_px=tile_size_px,
    )
    return network, card


def _take_weights(network: ChangeNetwork, start: Model, num_bands: int, *, keep_classes: bool):
    """Fill a network with a trained one's weights; for other classes the classifier is new.

    In a registered architecture, the tensors with another shape are the classifier.
    """
    if num_bands != len(start.card.bands):
        raise ArgumentError(
            f"the images have {num_bands} bands, and the model to start from reads "
            f"{', '.join(start.card.bands)}",
            fix="train on images of these bands, or do without --from",
        )
    own = network.state_dict()
    trained = start.network.state_dict()
    network.load_state_dict(
        {
            key: own[key]
            if not keep_classes
            and (key.startswith(_CLASSIFIER) or own[key].shape != trained[key].shape)
            else trained[key]
            for key in own
        }
    )
