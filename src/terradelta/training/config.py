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
    """Model folder whose network is trained further, or "default" for the embedded one. It brings
    its architecture, bands and scaling; data of other classes get a new classifier, and change
    masks teach what changed and leave the classes as they are."""
    encoder_weights: str | None = None
    """Weights the encoder starts from: a file, or where pip installs them "imagenet", "aerial"."""
    lightweight: bool = False
    """Replace the heads' 3 x 3 convolutions by depthwise separable ones."""
    loss: Loss = "ual"
    """What makes the two dates' classes agree where nothing changed: ual, ual-probability, cosine,
    mse, agreement, none, or a registered loss."""
    consistency_weight: Annotated[float, NOT_NEGATIVE] = 0.5
    """Weight of that loss inside the change term."""
    changed_pixel_weight: Annotated[float, NOT_NEGATIVE] = 2.0
    """Weight of a changed pixel in the change term; unchanged ones count 1."""
    change_loss: ChangeLossName = "bce"
    """What the change head is trained with: bce, focal, bce-dice, bce-lovasz, or a registered
    loss."""
    class_weights: tuple[Annotated[float, NOT_NEGATIVE], ...] | None = None
    """Weight of each land-cover class; given by the rule when left out."""
    class_weight_rule: ClassWeightRule = "reference"
    """Weights of the classes: the reference's for its six and else 1, all 1, or by the number of
    labelled pixels n of a class: 1 / n, 1 / sqrt(n), median(n) / n."""
    epochs: Annotated[int, POSITIVE_COUNT] = 30
    """Passes over the training pairs."""
    batch_size: Annotated[int, POSITIVE_COUNT] = 8
    """Pairs a batch."""
    accumulate_batches: Annotated[int, POSITIVE_COUNT] = 1
    """Batches a step, whose gradients are averaged: more pairs a step than memory holds at once."""
    optimizer: Optimizer = "adam"
    """adam, whose weight decay is an L2 penalty; adamw, which shrinks the weights themselves; or
    sgd with momentum 0.9, which wants rates some hundred times as high."""
    learning_rate: Annotated[float, ABOVE_ZERO] = 1.5e-4
    """Rate for the encoder at the first step after the warm-up."""
    head_rate_factor: Annotated[float, ABOVE_ZERO] = 10.0
    """How many times faster the heads learn."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Weight decay of the optimizer."""
    schedule: Schedule = "poly"
    """How the rate falls to 0: (1 - step / steps) ** poly_power, half a cosine, or not at all."""
    poly_power: Annotated[float, NOT_NEGATIVE] = 0.9
    """Power of the poly schedule."""
    warmup_steps: Annotated[int, COUNT] = 0
    """First steps, over which the rate rises in a line to what the schedule says."""
    gradient_clip_norm: Annotated[float, ABOVE_ZERO] | None = None
    """Longest gradient of a step, as the norm over all weights; longer ones are shortened."""
    ema_decay: Annotated[float, Within(above=0, below=1)] | None = None
    """Keep and judge an average of the weights, of which a step replaces 1 - ema_decay."""
    patience: Annotated[int, POSITIVE_COUNT] | None = None
    """Stop after so many epochs without a better validation score."""
    views: Views = "seed6"
    """Flips and turns a pair is drawn from, each with the same probability."""
    crop_size_px: Annotated[int, POSITIVE_COUNT] | None = None
    """Side of a random crop; whole images when not given."""
    tile_size_px: Annotated[int, POSITIVE_COUNT] | None = None
    """Tile that a network with global pooling predicts with; by default its training size."""
    brightness: Annotated[float, SHARE] = 0.0
    """Largest relative change of brightness, drawn for each date by itself."""
    contrast: Annotated[float, SHARE] = 0.0
    """Largest relative change of contrast, drawn for each date by itself."""
    colour: Annotated[float, SHARE] = 0.0
    """Largest relative change of each band, drawn for each date by itself."""
    swap_dates: bool = False
    """Show each pair in either order of time."""
    val_every: Annotated[int, POSITIVE_COUNT] = 10
    """Where the data names no validation split, every so many files are held out."""
    seed: Annotated[int, COUNT] = 0
    """Seed of weights, order and augmentation."""
    workers: Annotated[int, COUNT] = 1
    """Processes that load pairs."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16."""
    deterministic: bool = False
    """Use no operation whose result differs from run to run; torch names those it has to refuse."""
    picture_pairs: Annotated[int, COUNT] = 4
    """Validation pairs that are drawn after each epoch, into RUN/pictures."""
    tensorboard: bool = False
    """Write RUN/tensorboard too."""

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
                that an option cannot have.
        """
        content = read_option_file(path, [field.name for field in fields(cls)])
        try:
            return read_fields(cls, content)
        except FieldError as error:
            raise ArgumentError(
                f"{path}: {error}",
                fix="correct that line; YAML takes 1e-4 for a text and 1.0e-4 for a number",
            ) from error
