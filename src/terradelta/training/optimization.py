"""Optimizer, learning rate, gradient clipping, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from terradelta.protocols import Network
from terradelta.training.config import TrainConfig


def build_optimizer(config: TrainConfig, network: Network) -> torch.optim.Optimizer:
    """Return the optimizer, with a higher learning rate for the heads than for the encoder."""
    head_rate = config.learning_rate * config.head_rate_factor
    groups = [
        {"params": list(network.encoder_parameters()), "lr": config.learning_rate},
        {"params": list(network.head_parameters()), "lr": head_rate},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
    create = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }[config.optimizer]
    return create(groups, weight_decay=config.weight_decay)


def rate_factor(config: TrainConfig, step: int, steps: int) -> float:
    """Return the factor of the learning rates of a step.

    Args:
        config: The recipe; its schedule and warm-up.
        step: Number of the step in the whole run, from 0.
        steps: Number of steps of the run.
    """
    done = step / steps
    factor = {
        "poly": (1 - done) ** config.poly_power,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "constant": 1.0,
    }[config.schedule]
    return factor * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def set_rates(optimizer: torch.optim.Optimizer, factor: float):
    """Set the learning rate of every group to its initial one times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float | None):
    """Clip the gradients to a norm over all parameters; None does nothing."""
    if norm is not None:
        nn.utils.clip_grad_norm_(parameters, norm)


def average_weights(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return an exponential moving average of a network, with its batch statistics, or None.

    The average starts as the weights after the first step, and `update_parameters` follows them.
    """
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
