"""The training recipe: one dataclass is the API, the command line and the YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter

from terradelta.errors import ArgumentError
from terradelta.extensions import CHANGE_LOSSES, CONSISTENCY_LOSSES, Named
from terradelta.fields import (
    COUNT,
    POSITIVE_COUNT,
    SHARE,
    FieldError,
    Within,
    check_fields,
    read_fields,
)
from terradelta.inference.prediction_options import Views
from terradelta.option_files import read_option_file
from terradelta.outputs import stage_file

ABOVE_ZERO = Within(above=0)
NOT_NEGATIVE = Within(least=0)
Loss = Annotated[
    str,
    Named(CONSISTENCY_LOSSES, ("ual", "ual-probability", "cosine", "mse", "agreement", "none")),
]
ChangeLossName = Annotated[str, Named(CHANGE_LOSSES, ("bce", "focal", "bce-dice", "bce-lovasz"))]
ClassWeightRule = Literal["reference", "equal", "inverse", "inverse-root", "median"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["poly", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained; the defaults are the reference recipe of the UAL paper.

    Raises:
        ArgumentError: If an option is of another type or out of its range.
    """

    data: str | None = None
    """Data set: a folder in a known layout, or a CSV of paths."""
    model: str = "fcn"
    """Architecture: fcn, pspnet, deeplabv3plus, unet, fpn, or a registered one."""
    encoder: str = "resnet18"
    """Encoder; `terradelta models` lists them."""
    start_from: Annotated[str | None, Parameter(name=["--from", "--start-from"])] = None
    """Model folder whose network is trained further, or "default" for the embedded one. It sets
    the architecture, bands and scaling; data of other classes get a new classifier, and change
    masks train the change head only."""
    encoder_weights: str | None = None
    """Initial weights of the encoder: a file, or "imagenet" or "aerial" if pip installed them."""
    lightweight: bool = False
    """Replace the heads' 3 x 3 convolutions by depthwise separable ones."""
    loss: Loss = "ual"
    """Loss that makes the classes of both dates agree where nothing changed: ual, ual-probability,
    cosine, mse, agreement, none, or a registered loss."""
    consistency_weight: Annotated[float, NOT_NEGATIVE] = 0.5
    """Weight of that loss inside the change term."""
    changed_pixel_weight: Annotated[float, NOT_NEGATIVE] = 2.0
    """Weight of a changed pixel in the change term; unchanged ones count 1."""
    change_loss: ChangeLossName = "bce"
    """Loss of the change head: bce, focal, bce-dice, bce-lovasz, or a registered
    loss."""
    class_weights: tuple[Annotated[float, NOT_NEGATIVE], ...] | None = None
    """Weight of each land-cover class; given by the rule when left out."""
    class_weight_rule: ClassWeightRule = "reference"
    """Weights of the classes: the reference's for its six classes and otherwise 1, all 1, or by the
    number of labelled pixels n of a class: 1 / n, 1 / sqrt(n), median(n) / n."""
    epochs: Annotated[int, POSITIVE_COUNT] = 30
    """Passes over the training pairs."""
    batch_size: Annotated[int, POSITIVE_COUNT] = 8
    """Pairs per batch."""
    accumulate_batches: Annotated[int, POSITIVE_COUNT] = 1
    """Batches per step, with averaged gradients: allows more pairs per step than fit into
    memory."""
    optimizer: Optimizer = "adam"
    """adam, whose weight decay is an L2 penalty; adamw, which shrinks the weights themselves; or
    sgd with momentum 0.9, which needs learning rates about a hundred times higher."""
    learning_rate: Annotated[float, ABOVE_ZERO] = 1.5e-4
    """Learning rate of the encoder at the first step after the warm-up."""
    head_rate_factor: Annotated[float, ABOVE_ZERO] = 10.0
    """Learning rate of the heads, as a multiple of the encoder's."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Weight decay of the optimizer."""
    schedule: Schedule = "poly"
    """How the learning rate falls to 0: (1 - step / steps) ** poly_power, half a cosine, or not at
    all."""
    poly_power: Annotated[float, NOT_NEGATIVE] = 0.9
    """Power of the poly schedule."""
    warmup_steps: Annotated[int, COUNT] = 0
    """First steps, over which the learning rate rises linearly to that of the schedule."""
    gradient_clip_norm: Annotated[float, ABOVE_ZERO] | None = None
    """Largest norm of a step's gradient over all weights; longer gradients are clipped."""
    ema_decay: Annotated[float, Within(above=0, below=1)] | None = None
    """Save and validate a moving average of the weights, of which a step replaces 1 - ema_decay."""
    patience: Annotated[int, POSITIVE_COUNT] | None = None
    """Stop after this many epochs without a better validation score."""
    views: Views = "seed6"
    """Flips and rotations to augment with, each with the same probability."""
    crop_size_px: Annotated[int, POSITIVE_COUNT] | None = None
    """Side of a random crop; whole images if left out."""
    zoom: Annotated[float, SHARE] = 0.0
    """Largest relative change of the pixels' size: a crop is enlarged or reduced by a factor of up
    to 1 + zoom."""
    tile_size_px: Annotated[int, POSITIVE_COUNT] | None = None
    """Tile size in prediction of a network with global pooling; by default its training size."""
    brightness: Annotated[float, SHARE] = 0.0
    """Largest relative change of brightness, drawn for each date separately."""
    contrast: Annotated[float, SHARE] = 0.0
    """Largest relative change of contrast, drawn for each date separately."""
    colour: Annotated[float, SHARE] = 0.0
    """Largest relative change of each band, drawn for each date separately."""
    swap_dates: bool = False
    """Swap the two dates of a pair at random."""
    val_every: Annotated[int, POSITIVE_COUNT] = 10
    """If the data have no validation split, every n-th file is held out for it."""
    seed: Annotated[int, COUNT] = 0
    """Seed of weights, order and augmentation."""
    workers: Annotated[int, COUNT] = 1
    """Processes that load pairs."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16."""
    deterministic: bool = False
    """Use only operations with reproducible results; torch names those that it refuses."""
    picture_pairs: Annotated[int, COUNT] = 4
    """Number of validation pairs drawn into RUN/pictures after each epoch."""
    tensorboard: bool = False
    """Also write RUN/tensorboard."""

    def __post_init__(self):
        check_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        plain = asdict(self)
        if self.class_weights is not None:
            plain["class_weights"] = list(self.class_weights)
        return plain

    def write_yaml(self, path: Path):
        """Write the recipe so that `terradelta train FILE` repeats it."""
        with stage_file(path) as staged:
            staged.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    @classmethod
    def read_yaml(cls, path: str | Path) -> TrainConfig:
        """Read a recipe.

        Raises:
            ArgumentError: If the file is not YAML, has a key that is not an option, or a value
                that is not valid.
        """
        content = read_option_file(path, [field.name for field in fields(cls)])
        try:
            return read_fields(cls, content)
        except FieldError as error:
            raise ArgumentError(
                f"{path}: {error}",
                fix="correct that line; YAML reads 1e-4 as a text and 1.0e-4 as a number",
            ) from error
