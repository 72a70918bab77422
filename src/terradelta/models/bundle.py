"""A model as a folder: `model.safetensors`, `model.json` and `README.md`.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.errors import DataError, ModelError, TerradeltaError
from terradelta.models import aerial_resnet, efficientnet_lite
from terradelta.models.published import convert_published, load_strictly, read_checkpoint
from terradelta.models.registry import create_model
from terradelta.models.siamese import SiameseNetwork
from terradelta.outputs import null_undefined, refuse_existing, stage_file, stage_folder

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
README_FILE = "README.md"
INT8_FILE = "int8.xml"
"""With the weights beside it in a .bin."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Scaling:
    """How stored pixel values become what the network was trained on.

    Raises:
        ModelError: If the numbers cannot scale anything.
    """

    divisor: float
    """Stored values are divided by this first; 255 for 8-bit images."""
    mean: tuple[float, ...]
    """Then this is subtracted, one number per band."""
    std: tuple[float, ...]
    """And the rest divided by this, one number per band."""

    def __post_init__(self):
        if len(self.mean) != len(self.std):
            raise ModelError(
                f"the scaling has {len(self.mean)} means and {len(self.std)} standard deviations",
                fix="give one of each per band",
            )
        if self.divisor <= 0 or min(self.std, default=1) <= 0:
            raise ModelError(
                f"the scaling divides by {self.divisor} and {self.std}", fix="use positive numbers"
            )

    @classmethod
    def imagenet(cls, bands: int = 3) -> Scaling:
        """Return ImageNet's for 8-bit RGB; for other bands mean 0.5 and standard deviation 0.25."""
        if bands == 3:
            return cls(255.0, _IMAGENET_MEAN, _IMAGENET_STD)
        return cls(255.0, (0.5,) * bands, (0.25,) * bands)

    @classmethod
    def for_encoder(cls, encoder: str, bands: int = 3) -> Scaling:
        """Return what an encoder's published weights want of 8-bit images; else `imagenet`."""
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
    """What logits are divided by, so that probabilities mean what they say.

    Raises:
        ModelError: If one is not positive.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    change: float = 1.0
    """Of the change head."""
    classes: float = 1.0
    """Of the semantic head, at both dates."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ModelError(
                    f"the temperature of {name} is {value}", fix="use a positive number"
                )


@dataclass(frozen=True)
class ModelCard:
    """All that has to be known about a network besides its weights.

    Raises:
        ModelError: If the fields contradict each other.
    """

    architecture: dict[str, Any]
    """Arguments of `create_model`; a network's `config`."""
    bands: tuple[str, ...] = ("red", "green", "blue")
    """What each input band is, in order."""
    scaling: Scaling = field(default_factory=Scaling.imagenet)
    """From stored values to the network's input."""
    classes: ClassTable = SENSEEARTH
    """What the class ids mean."""
    change_threshold: float = 0.5
    """Probability of change from which a pixel counts as changed."""
    same_class_changes: bool = True
    """Whether a change may be from a class to itself, as a new building in an old one's place."""
    temperatures: Temperatures = field(default_factory=Temperatures)
    """As `evaluate --calibrate` has found them."""
    resolution_m: tuple[float, float] | None = None
    """Least and largest side of a pixel on the ground that it learned from, in metres."""
    tile_size_px: int | None = None
    """Side of the tiles the network must see; None where any size gives the same answer."""
    training: dict[str, Any] = field(default_factory=dict)
    """Where the weights come from: data, recipe, versions."""
    licence: str = ""
    """Terms of the weights."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Measured numbers, each under the name of its data and protocol."""

    def __post_init__(self):
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
                f"the network tells {num_classes} classes and the class table has "
                f"{self.classes.num_classes} ({', '.join(self.classes.names[1:])})",
                fix="give the class table the network was trained on",
            )
        if not self.same_class_changes and self.classes.num_classes < 2:
            raise ModelError(
                f"the model knows one class, {self.classes.names[1]}, and is not to tell a change "
                "from it to itself",
                fix="allow it: same_class_changes true",
            )
        if not 0 < self.change_threshold < 1:
            raise ModelError(
                f"the change threshold is {self.change_threshold}", fix="use a number in (0, 1)"
            )

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
        """Build a card from what `to_dict` returned.

        Raises:
            ModelError: If a field is missing or unknown, or the format is a newer one.
        """
        fields = dict(fields)
        version = fields.pop("format", None)
        if not isinstance(version, int) or version > FORMAT:
            raise ModelError(
                f"the model has format {version}, this terradelta reads up to {FORMAT}",
                fix="update terradelta",
            )
        try:
            scaling = fields["scaling"]
            fields |= {
                "bands": tuple(fields["bands"]),
                "scaling": Scaling(
                    float(scaling["divisor"]), tuple(scaling["mean"]), tuple(scaling["std"])
                ),
                "classes": ClassTable.from_dict(fields["classes"]),
                # Folders of earlier versions have none.
                "temperatures": Temperatures(**fields.get("temperatures", {})),
                "resolution_m": _read_range(fields.get("resolution_m")),
            }
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the model card has a wrong or missing field: {error!r}",
                fix="write the folder with terradelta's save_model or convert",
            ) from error

    def to_markdown(self, title: str) -> str:
        """Return the card for readers."""
        architecture = self.architecture
        heads = "lightweight heads" if architecture.get("lightweight") else "full heads"
        tile = "any" if self.tile_size_px is None else f"{self.tile_size_px} px"
        resolution = "not stated"
        if self.resolution_m is not None:
            resolution = "{:g} to {:g} m".format(*self.resolution_m)
        classes = "\n".join(
            f"| {index} | {name} | {', '.join(map(str, colour))} |"
            for index, (name, colour) in enumerate(
                zip(self.classes.names, self.classes.colours, strict=True)
            )
        )
        return f"""# {title}

A terradelta model for semantic change detection: it takes two co-registered images of one place and
answers where the land cover changed, and from which class to which.

| | |
| --- | --- |
| Network | {architecture.get("name")} on {architecture.get("encoder")}, {heads} |
| Bands | {", ".join(self.bands)} |
| Scaling | (value / {self.scaling.divisor:g} - mean) / std, mean {_list(self.scaling.mean)}, \
std {_list(self.scaling.std)} |
| Counts as changed | probability of {self.change_threshold:g} or more |
| From a class to itself | {"may be told" if self.same_class_changes else "is never told"} |
| Calibration | logits of change / {self.temperatures.change:.3g}, \
of classes / {self.temperatures.classes:.3g} |
| Pixels on the ground | {resolution} |
| Tile size | {tile} |
| Licence of the weights | {self.licence or "not stated"} |

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


@dataclass(frozen=True)
class Model:
    """A network and what has to be known about it."""

    network: SiameseNetwork
    """The network, in eval mode where `load_model` returned it."""
    card: ModelCard
    """All the rest."""
    int8_graph: Path | None = None
    """The quantized network, an OpenVINO file of the folder, where there is one."""


def save_model(
    model: Model | tuple[SiameseNetwork, ModelCard],
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
):
    """Write a model folder, whole or not at all.

    Args:
        model: The model; its network is left as it is.
        folder: Where to.
        dtype: What floating-point weights are stored as, float32 or float16.
        overwrite: Replace a folder that is there.

    Raises:
        OutputExistsError: If the folder holds something and `overwrite` is False.
        ModelError: If the card is not that network's or cannot be written as JSON.
    """
    network, card = (model.network, model.card) if isinstance(model, Model) else model
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
    with stage_folder(folder, overwrite=overwrite) as staged:
        save_file(tensors, staged / WEIGHTS_FILE)
        # safetensors writes for the owner only; a model is for whoever may read its folder.
        (staged / WEIGHTS_FILE).chmod(0o644)
        (staged / CARD_FILE).write_text(text, encoding="utf-8")
        (staged / README_FILE).write_text(card.to_markdown(Path(folder).name), encoding="utf-8")


def replace_card(folder: str | Path, card: ModelCard):
    """Write another card of the same weights into a model folder.

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
    """Read what a model folder says of itself, without its weights.

    Raises:
        ModelError: If a file is missing or damaged or the format is newer than this terradelta.
    """
    card_path, _ = _find_files(Path(folder))
    try:
        fields = json.loads(card_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{card_path} is not JSON: {error}", fix="fetch the model again"
        ) from error
    if not isinstance(fields, dict):
        raise ModelError(
            f"{card_path} holds a {type(fields).__name__} and not an object",
            fix="fetch the model again",
        )
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
    return Model(network.eval(), card, int8_graph if int8_graph.is_file() else None)


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
    """Turn weights that the UAL paper's implementation or its like published into a model folder.

    Args:
        checkpoint: The .pth file; only tensors are read from it.
        output: The model folder to make.
        model: The architecture it was trained with.
        encoder: Its encoder.
        polarity: What a 1 of its change output means; the published code contradicts itself.
        lightweight: Whether its heads are depthwise separable.
        overwrite: Replace an existing output.

    Raises:
        ModelError: If the file holds more than tensors or does not fit the network.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    checkpoint = Path(checkpoint)
    refuse_existing(Path(output), overwrite)
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


def _read_range(numbers: list[float] | None) -> tuple[float, float] | None:
    if numbers is None:
        return None
    least, most = (float(number) for number in numbers)
    return least, most


def _list(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _tabulate(rows: dict[str, Any], empty: str) -> str:
    if not rows:
        return empty
    lines = "\n".join(f"| {key} | {_format(value)} |" for key, value in rows.items())
    return f"| | |\n| --- | --- |\n{lines}"


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
