"""Scores one model on a labelled data set, or compares two.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm

from terradelta.classes import BINARY
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.labels import UNKNOWN
from terradelta.data.layouts import Split, find_pairs, list_inputs
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError
from terradelta.evaluation.bootstrap import DEFAULT_REPLICATES, ImageCounts
from terradelta.evaluation.diagnosis import Diagnosis, diagnose
from terradelta.evaluation.scoring import Comparison, Scores, compare_counts, summarize
from terradelta.evaluation.scoring_protocols import create_protocol
from terradelta.fields import COUNT, POSITIVE_COUNT, checks_ranges
from terradelta.inference.folders import ImagePair, count_pixels_per_size, predict_images
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import find_model_folders
from terradelta.outputs import stage_folder
from terradelta.protocols import PairDataset

Folders = str | Path | Sequence[str | Path]


@checks_ranges
def evaluate(
    model: Folders,
    data: str | Path,
    *,
    split: Split = "val",
    protocol: str = "second",
    bootstrap: Annotated[int, POSITIVE_COUNT] | None = None,
    seed: Annotated[int, COUNT] = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
    runtime: Runtime = Runtime(),  # noqa: B008
) -> Scores:
    """Score a model, or several that vote, on a labelled data set.

    Args:
        model: A model folder or several.
        data: A data set folder in a known layout, or a CSV.
        split: "train", "val", "test" or "all".
        protocol: "second", "from-to" or "ual".
        bootstrap: Number of sets of images to draw for 95 % intervals, or None.
        seed: Seed of the drawing.
        output: Folder to write: numbers of all protocols, IoU by class, transitions, outlines of
            change, reliability of the probabilities. None writes nothing.
        overwrite: Replace an output that exists.
        runtime: How the networks are run.

    Raises:
        TerradeltaError: If the model or the data cannot be used, or their classes differ.
        OutputExistsError: If the output exists.
    """
    folder = _claim(output, [model], data, overwrite)
    prepared = prepare(model, data, split, runtime)
    counts, diagnosis = _count(prepared, protocol, bootstrap is not None, folder is not None)
    scores = summarize(counts, bootstrap, seed)
    _write(diagnosis, folder, overwrite)
    return scores


@checks_ranges
def compare_models(
    model: Folders,
    against: Folders,
    data: str | Path,
    *,
    split: Split = "val",
    protocol: str = "second",
    bootstrap: Annotated[int, POSITIVE_COUNT] = DEFAULT_REPLICATES,
    seed: Annotated[int, COUNT] = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
    runtime: Runtime = Runtime(),  # noqa: B008
) -> Comparison:
    """Compare two models on a labelled data set, image by image.

    Args:
        model: A model folder or several that vote.
        against: Another model, or several that vote.
        data: Same as in `evaluate`.
        split: Same as in `evaluate`.
        protocol: Same as in `evaluate`.
        bootstrap: Number of sets of images to draw, and of random exchanges.
        seed: Seed of both.
        output: Same as in `evaluate`, for the first model.
        overwrite: Replace an output that exists.
        runtime: Same as in `evaluate`.

    Raises:
        TerradeltaError: Same as in `evaluate`.
    """
    folder = _claim(output, [model, against], data, overwrite)
    prepared = prepare(model, data, split, runtime)
    counts, diagnosis = _count(prepared, protocol, True, folder is not None)
    other = count_dataset(*prepare(against, data, split, runtime), protocol)
    comparison = compare_counts(counts, other, bootstrap, seed)
    _write(diagnosis, folder, overwrite)
    return comparison


def _claim(
    output: str | Path | None, models: Sequence[Folders], data: str | Path, overwrite: bool
) -> Path | None:
    if output is None:
        return None
    inputs = [folder for model in models for folder in find_model_folders(model)]
    return claim_folder(output, [*inputs, *list_inputs(data)], overwrite=overwrite)


def _count(
    prepared: tuple[Predictor, ChangeDataset], protocol: str, apart: bool, is_close: bool
) -> tuple[ImageCounts, Diagnosis | None]:
    """Return the counts of a predictor's maps, and a diagnosis if requested, in one pass."""
    if not is_close:
        return count_dataset(*prepared, protocol, apart), None
    num_classes = prepared[1].pairs.classes.num_classes
    counts = ImageCounts(create_protocol(protocol, num_classes), apart)
    return counts, diagnose(*prepared, counts=counts)


def _write(diagnosis: Diagnosis | None, folder: Path | None, overwrite: bool):
    if diagnosis is not None and folder is not None:
        with stage_folder(folder, overwrite=overwrite, listed=False) as staged:
            diagnosis.write(staged)


def prepare(
    model: Folders, data: str | Path, split: Split, runtime: Runtime
) -> tuple[Predictor, ChangeDataset]:
    """Return a predictor, and the labelled pairs that it will answer.

    Args:
        model: A model folder or several that vote.
        data: A data set folder in a known layout, or a CSV.
        split: "train", "val", "test" or "all".
        runtime: How the networks are run.

    Raises:
        TerradeltaError: If the model or the data cannot be used, or their classes differ.
    """
    models = [load_model(folder) for folder in find_model_folders(model)]
    predictor = Predictor(models, runtime)
    pairs = find_pairs(data, split=split)
    predictor.start(count_pixels_per_size(pairs.pairs))
    dataset = ChangeDataset(pairs)
    if dataset.pairs.classes not in (predictor.classes, BINARY):
        raise ArgumentError(
            f"the model knows the classes {', '.join(predictor.classes.names[1:])} and {data} "
            f"has {', '.join(dataset.pairs.classes.names[1:])}",
            fix="use a model that was trained on these classes",
        )
    return predictor, dataset


def evaluate_dataset(predictor: Predictor, dataset: PairDataset, protocol: str) -> dict[str, float]:
    """Return the numbers of a protocol for a predictor on a labelled data set."""
    return count_dataset(predictor, dataset, protocol, apart=False).metric.compute()


def count_dataset(
    predictor: Predictor, dataset: PairDataset, protocol: str, apart: bool = True
) -> ImageCounts:
    """Return the counts of a predictor's maps, pair by pair if they are kept apart.

    Only changed pixels have classes in the truth, even if others are labelled. Pixels whose change
    is not known do not count. If the truth are
    change masks, classes of the answer do not count either.
    """
    counts = ImageCounts(create_protocol(protocol, dataset.classes.num_classes), apart)
    for index in tqdm(range(len(dataset)), "evaluating", unit="pair", disable=None, leave=False):
        sample = dataset[index]
        predicted = answer_pair(predictor, dataset, sample)
        change_HW = sample.change_HW.numpy()
        true = (
            np.where(change_HW == 1, labels_HW.numpy(), 0)
            for labels_HW in (sample.before_labels_HW, sample.after_labels_HW)
        )
        counts.add(*predicted, *true, valid=change_HW != UNKNOWN)
    return counts


def answer_pair(
    predictor: Predictor, dataset: PairDataset, sample: PairSample
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of both dates of a predictor's answer, in the data set's class table.

    Args:
        predictor: The models.
        dataset: Pairs of their classes, or with only change masks.
        sample: One of its pairs.

    Returns:
        Two (H, W) uint8 arrays, 0 where unchanged; 1 where changed if the data set has no classes.
    """
    images = ImagePair(sample.before_CHW.numpy(), sample.after_CHW.numpy())
    before_HW, after_HW = predict_images(predictor, images)
    if dataset.classes == BINARY:
        before_HW, after_HW = (np.minimum(ids_HW, 1) for ids_HW in (before_HW, after_HW))
    return before_HW, after_HW
