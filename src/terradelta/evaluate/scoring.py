"""Numbers for predictions: a model on a data set, or a folder of masks against its labels.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.images import read_mask
from terradelta.data.layouts import find_masks
from terradelta.errors import ArgumentError, DataError
from terradelta.evaluate.protocols import create_protocol

if TYPE_CHECKING:
    from terradelta.data.dataset import ChangeDataset
    from terradelta.data.layouts import Split
    from terradelta.predict.engine import Predictor


@dataclass(frozen=True)
class Scores:
    """The numbers of one protocol."""

    protocol: str
    """Name of the protocol; numbers of different protocols do not compare."""
    numbers: dict[str, float]
    """Every number of the protocol."""
    pairs: int
    """How many image pairs were counted."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; numbers that are undefined (nan) become None."""
        numbers = {k: None if math.isnan(v) else v for k, v in self.numbers.items()}
        return {"protocol": self.protocol, "pairs": self.pairs, **numbers}


def evaluate(
    model: str | Path | Sequence[str | Path],
    data: str | Path,
    *,
    split: Split = "val",
    protocol: str = "second",
    tta: str = "none",
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> Scores:
    """Score a model, or several that vote, on a labelled data set.

    Args:
        model: A model folder or several.
        data: A data set folder in a known layout, or a CSV.
        split: "train", "val", "test" or "all".
        protocol: "second", "from-to" or "ual".
        tta: Test-time views to average: "none", "flips", "d4" or "seed6".
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: What runs the network: "auto", "torch", "torch-compile",
            "openvino" or "onnx".
        precision: "auto", "fp32", "bf16", "fp16" or "int8".

    Raises:
        TerradeltaError: If the model or the data cannot be used, or their classes differ.
    """
    from terradelta.data.dataset import ChangeDataset
    from terradelta.data.layouts import find_pairs
    from terradelta.models.bundle import load_model
    from terradelta.predict.engine import Predictor
    from terradelta.predict.folders import count_pixels_per_size

    folders = [model] if isinstance(model, str | Path) else list(model)
    predictor = Predictor(
        [load_model(folder) for folder in folders],
        tta=tta,
        device=device,
        backend=backend,
        precision=precision,
    )
    pairs = find_pairs(data, split=split)
    predictor.start(count_pixels_per_size(pairs.pairs))
    dataset = ChangeDataset(pairs)
    if dataset.pairs.classes != predictor.classes:
        raise ArgumentError(
            f"the model knows the classes {', '.join(predictor.classes.names[1:])} and {data} "
            f"has {', '.join(dataset.pairs.classes.names[1:])}",
            fix="use a model that was trained on these classes",
        )
    return Scores(protocol, evaluate_dataset(predictor, dataset, protocol), len(dataset))


def evaluate_dataset(
    predictor: Predictor, dataset: ChangeDataset, protocol: str
) -> dict[str, float]:
    """Return the numbers of a protocol for a predictor on a labelled data set."""
    from terradelta.predict.folders import ImagePair, predict_images

    counter = create_protocol(protocol, predictor.classes.num_classes)
    for index in tqdm(range(len(dataset)), "evaluating", unit="pair", disable=None, leave=False):
        sample = dataset[index]
        images = ImagePair(sample.before_CHW.numpy(), sample.after_CHW.numpy())
        before_HW, after_HW = predict_images(predictor, images)
        counter.update(
            before_HW, after_HW, sample.before_labels_HW.numpy(), sample.after_labels_HW.numpy()
        )
    return counter.compute()


def score(
    predictions: str | Path,
    labels: str | Path,
    *,
    protocol: str = "second",
    classes: ClassTable = SENSEEARTH,
) -> Scores:
    """Score predicted masks against labels of the same names.

    Both folders may hold `before/ after/`, `im1/ im2/` or `label1/ label2/`, indexed or in the
    colours of the class table.

    Args:
        predictions: Folder of the predicted masks.
        labels: Folder of the true masks.
        protocol: "second", "from-to" or "ual".
        classes: What the masks' values mean.

    Raises:
        DataError: If a mask is missing or cannot be read, or two masks differ in size.
        ArgumentError: If the protocol is unknown.
    """
    counter = create_protocol(protocol, classes.num_classes)
    predicted = find_masks(Path(predictions))
    true = find_masks(Path(labels))
    if predicted.keys() != true.keys():
        missing, extra = (
            sorted(true.keys() - predicted.keys()),
            sorted(predicted.keys() - true.keys()),
        )
        raise DataError(
            f"{predictions} lacks {len(missing)} masks that {labels} has "
            f"({', '.join(missing[:5])}) and has {len(extra)} more ({', '.join(extra[:5])})",
            fix="predict every labelled pair, and nothing else",
        )
    for name in tqdm(sorted(true), desc="scoring", unit="pair", disable=None):
        masks = [read_mask(path, classes) for path in (*predicted[name], *true[name])]
        _require_same_size([*predicted[name], *true[name]], masks)
        counter.update(*masks)
    return Scores(protocol, counter.compute(), len(true))


def _require_same_size(paths: Sequence[Path], masks: Sequence[np.ndarray]):
    for path, mask_HW in zip(paths, masks, strict=True):
        if mask_HW.shape != masks[0].shape:
            raise DataError(
                f"{path} is {mask_HW.shape[1]} x {mask_HW.shape[0]} px and {paths[0]} is "
                f"{masks[0].shape[1]} x {masks[0].shape[0]} px",
                fix="score masks of the same size",
            )
