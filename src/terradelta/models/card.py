"""The model card: scaling, classes, calibration and origin of a network.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from terradelta.classes import MAX_CLASSES, SENSEEARTH, ClassTable
from terradelta.errors import ArgumentError, DataError, ModelError
from terradelta.fields import FieldError, Within, read_fields, refuse_unknown
from terradelta.models import aerial_resnet, efficientnet_lite
from terradelta.models.decision import Decision, DecisionRule, Sensitivity

FORMAT = 1
CARD_FILE = "model.json"
MAX_BANDS = 1024
MAX_TILE_SIZE_PX = 65_536

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Scaling:
    """Scales stored pixel values to the input of the network.

    Raises:
        ModelError: If the numbers are not a valid scaling.
    """

    divisor: float
    """Stored values are divided by this first; 255 for 8-bit images."""
    mean: tuple[float, ...]
    """Then this is subtracted, one number per band."""
    std: tuple[float, ...]
    """The result is divided by this, one number per band."""

    def __post_init__(self):
        if len(self.mean) != len(self.std):
            raise ModelError(
                f"the scaling has {len(self.mean)} means and {len(self.std)} standard deviations",
                fix="give one of each per band",
            )
        if not all(0 < number < math.inf for number in (self.divisor, *self.std)):
            raise ModelError(
                f"the scaling divides by {self.divisor} and {self.std}", fix="use positive numbers"
            )
        if not all(map(math.isfinite, self.mean)):
            raise ModelError(f"the scaling subtracts {self.mean}", fix="use finite numbers")

    @classmethod
    def imagenet(cls, bands: int = 3) -> Scaling:
        """Return ImageNet's scaling for 8-bit RGB; for other bands mean 0.5 and deviation 0.25."""
        if bands == 3:
            return cls(255.0, _IMAGENET_MEAN, _IMAGENET_STD)
        return cls(255.0, (0.5,) * bands, (0.25,) * bands)

    @classmethod
    def for_encoder(cls, encoder: str, bands: int = 3) -> Scaling:
        """Return the scaling for an encoder's published weights and 8-bit images, or `imagenet`."""
        if encoder in efficientnet_lite.VARIANTS or encoder in aerial_resnet.VARIANTS:
            return cls(255.0, (0.5,) * bands, (0.5,) * bands)
        return cls.imagenet(bands)

    def apply(self, image_BCHW: Tensor) -> Tensor:
        """Return `(image / divisor - mean) / std` as float32.

        Args:
            image_BCHW: Images of any dtype, in stored values.

        Raises:
            DataError: If the number of bands differs.
        """
        bands = image_BCHW.shape[-3]
        if bands != len(self.mean):
            raise DataError(
                f"the image has {bands} bands and the model's scaling {len(self.mean)}",
                fix="choose the bands the model was trained on",
            )
        offset_C11, scale_C11 = (
            self.divisor
            * torch.tensor(numbers, dtype=torch.float32, device=image_BCHW.device)[:, None, None]
            for numbers in (self.mean, self.std)
        )
        return image_BCHW.float().sub(offset_C11).div_(scale_C11)


@dataclass(frozen=True)
class Temperatures:
    """Divisors of logits, and a shift of those of change, that calibrate the probabilities.

    Raises:
        ModelError: If a divisor is not positive, or the shift is not finite.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; the shift: Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999.
    """

    change: float = 1.0
    """Divisor of the change head."""
    classes: float = 1.0
    """Divisor of the semantic head, at both dates."""
    change_shift: float = 0.0
    """Added to the divided logits of the change head: below 0, change is less probable."""

    def __post_init__(self):
        for name in ("change", "classes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ModelError(
                    f"the temperature of {name} is {value}", fix="use a positive number"
                )
        if not math.isfinite(self.change_shift):
            raise ModelError(f"change_shift is {self.change_shift}", fix="use a finite number")

    def calibrate_change(self, logits: Tensor) -> Tensor:
        """Return calibrated logits of change, of any shape."""
        return logits / self.change + self.change_shift

    def then(self, other: Temperatures) -> Temperatures:
        """Return the temperatures that correct by these first, and then by others."""
        return Temperatures(
            self.change * other.change,
            self.classes * other.classes,
            self.change_shift / other.change + other.change_shift,
        )


@dataclass(frozen=True)
class Architecture:
    """Arguments of `create_model`, as stored in a card."""

    name: str
    encoder: str = "resnet18"
    num_classes: Annotated[int, Within(least=1, most=MAX_CLASSES)] = 6
    lightweight: bool = False
    in_channels: Annotated[int, Within(least=1, most=MAX_BANDS)] = 3


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a network, besides its weights.

    Raises:
        ModelError: If the fields contradict each other.
    """

    architecture: dict[str, Any]
    """Arguments of `create_model`; a network's `config`."""
    bands: tuple[str, ...] = ("red", "green", "blue")
    """Name of each input band, in order."""
    scaling: Scaling = field(default_factory=Scaling.imagenet)
    """Scaling from stored values to the network's input."""
    classes: ClassTable = SENSEEARTH
    """The classes of the ids."""
    change_threshold: float = 0.5
    """Probability from which a pixel counts as changed."""
    decided_by: Decision = "change"
    """Which probability must reach it: that of the change head, or that of the most probable
    transition; see `DecisionRule`."""
    sensitivities: dict[Sensitivity, float] = field(default_factory=dict)
    """The threshold of each other sensitivity: "few-alarms", "find-all"."""
    same_class_changes: bool = True
    """Whether a change may be from a class to itself, such as a new building in place of an old
    one."""
    temperatures: Temperatures = field(default_factory=Temperatures)
    """Temperatures found by `calibrate`."""
    resolution_m: tuple[float, float] | None = None
    """Smallest and largest pixel side of its training images, in metres."""
    tile_size_px: int | None = None
    """Side of the tiles the network must see; None if any size gives the same answer."""
    training: dict[str, Any] = field(default_factory=dict)
    """Origin of the weights: data, recipe, versions."""
    licence: str = ""
    """Licence of the weights."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Measured numbers, each under the name of its data and protocol."""
    strengths: tuple[str, ...] = ()
    """Its strengths and how they were measured, in sentences."""
    limits: tuple[str, ...] = ()
    """Known failures, and untested uses, in sentences."""

    def __post_init__(self):
        self._check_ranges()
        bands = self.architecture.get("in_channels", 3)
        if not bands == len(self.bands) == len(self.scaling.mean):
            raise ModelError(
                f"the network takes {bands} bands, the card names {len(self.bands)} "
                f"and scales {len(self.scaling.mean)}",
                fix="name and scale every band",
            )
        num_classes = self.architecture.get("num_classes", 6)
        if num_classes != self.classes.num_classes:
            raise ModelError(
                f"the network distinguishes {num_classes} classes and the class table has "
                f"{self.classes.num_classes} ({', '.join(self.classes.names[1:])})",
                fix="give the class table the network was trained on",
            )
        if not self.same_class_changes and self.classes.num_classes < 2:
            raise ModelError(
                f"the model knows one class, {self.classes.names[1]}, and must not map a change "
                "from it to itself",
                fix="allow it: same_class_changes true",
            )
        for name, threshold in {"balanced": self.change_threshold, **self.sensitivities}.items():
            if not 0 < threshold < 1:
                raise ModelError(
                    f"the change threshold ({name}) is {threshold}", fix="use a number in (0, 1)"
                )

    def find_rule(self, sensitivity: Sensitivity = "balanced") -> DecisionRule:
        """Return when a pixel counts as changed.

        Args:
            sensitivity: "balanced", "few-alarms" or "find-all".

        Raises:
            ArgumentError: If the model has no threshold for it.
        """
        thresholds = {"balanced": self.change_threshold, **self.sensitivities}
        if sensitivity not in thresholds:
            raise ArgumentError(
                f"the model has no threshold for --sensitivity {sensitivity}, but for "
                f"{', '.join(thresholds)}",
                fix="leave --sensitivity out, or add a threshold to `sensitivities` in model.json",
            )
        return DecisionRule(thresholds[sensitivity], self.decided_by, self.same_class_changes)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; `from_dict` reads it."""
        fields = {key: value for key, value in vars(self).items() if key != "classes"}
        fields |= {
            "scaling": asdict(self.scaling),
            "classes": self.classes.to_dict(),
            "temperatures": asdict(self.temperatures),
        }
        return {"format": FORMAT, **fields}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelCard:
        """Build a card from the result of `to_dict`.

        Raises:
            ModelError: If a field is missing or unknown, or the format is newer.
        """
        fields = dict(fields)
        version = fields.pop("format", None)
        if not isinstance(version, int) or version > FORMAT:
            raise ModelError(
                f"the model has format {version}, this terradelta reads up to {FORMAT}",
                fix="update terradelta",
            )
        try:
            refuse_unknown(cls, fields)
            refuse_unknown(Architecture, fields.get("architecture"), "architecture")
            read_fields(Architecture, fields.get("architecture"), "architecture")
            return read_fields(cls, fields)
        except FieldError as error:
            raise ModelError(
                f"the model card has a wrong or missing field: {error}",
                fix="write the folder with terradelta's save_model or convert",
            ) from error
        except ArgumentError as error:
            raise ModelError(error.problem, error.fix) from error

    def _check_ranges(self):
        if len(self.bands) > MAX_BANDS:
            raise ModelError(
                f"the card names {len(self.bands)} bands", fix=f"use at most {MAX_BANDS}"
            )
        if self.tile_size_px is not None and not 1 <= self.tile_size_px <= MAX_TILE_SIZE_PX:
            raise ModelError(
                f"the tile size is {self.tile_size_px} px",
                fix=f"use 1 to {MAX_TILE_SIZE_PX}, or None for any",
            )
        if self.resolution_m is not None and not (
            0 < self.resolution_m[0] <= self.resolution_m[1] < math.inf
        ):
            raise ModelError(
                f"the resolution is {self.resolution_m} m",
                fix="give the least and the largest side of a pixel, both above 0",
            )

    def to_markdown(self, title: str) -> str:
        """Return the card for readers."""
        classes = "\n".join(
            f"| {index} | {name} | {', '.join(map(str, colour))} |"
            for index, (name, colour) in enumerate(
                zip(self.classes.names, self.classes.colours, strict=True)
            )
        )
        return f"""# {title}

A terradelta model for semantic change detection: it takes two co-registered images of one place and
answers where the land cover changed, and from which class to which.

## What it is good at

{_itemise(self.strengths)}

## Where it fails

{_itemise(self.limits)}

## What it is

{_tabulate(self._describe(), "")}

## Classes

| id | name | red, green, blue |
| --- | --- | --- |
{classes}

## Scores

{_tabulate(self.scores, "Not measured.")}

## Training

{_tabulate(self.training, "Not recorded.")}

## Use

```
terradelta predict BEFORE AFTER --model FOLDER -o OUT
```

`FOLDER` is the folder of this file. `{CARD_FILE}` says the same for programs.
"""

    def _describe(self) -> dict[str, str]:
        """Return a description of the network, in words."""
        architecture, scaling = self.architecture, self.scaling
        heads = "lightweight heads" if architecture.get("lightweight") else "full heads"
        tile = "any" if self.tile_size_px is None else f"{self.tile_size_px} px"
        resolution = "not stated"
        if self.resolution_m is not None:
            resolution = "{:g} to {:g} m".format(*self.resolution_m)
        return {
            "Network": f"{architecture.get('name')} on {architecture.get('encoder')}, {heads}",
            "Bands": ", ".join(self.bands),
            "Scaling": f"(value / {scaling.divisor:g} - mean) / std, mean {_list(scaling.mean)}, "
            f"std {_list(scaling.std)}",
            "Counts as changed": _describe_rule(self),
            "From a class to itself": "is mapped" if self.same_class_changes else "is never mapped",
            "Calibration": f"logits of change / {self.temperatures.change:.3g} "
            f"{self.temperatures.change_shift:+.3g}, "
            f"of classes / {self.temperatures.classes:.3g}",
            "Pixels on the ground": resolution,
            "Tile size": tile,
            "Licence of the weights": self.licence or "not stated",
        }


def _describe_rule(card: ModelCard) -> str:
    others = [f"{name} {threshold:g}" for name, threshold in card.sensitivities.items()]
    return f"{card.decided_by} with a probability of {card.change_threshold:g} or more" + (
        f" ({', '.join(others)})" if others else ""
    )


def _list(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _itemise(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) or "Not stated."


def _tabulate(rows: dict[str, Any], empty: str) -> str:
    if not rows:
        return empty
    lines = "\n".join(f"| {key} | {_format(value)} |" for key, value in rows.items())
    return f"| | |\n| --- | --- |\n{lines}"


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
