"""Scores of models on real changes and land cover that were labelled by hand (recipes/default).

Legend of the array names: K classes, H rows, W columns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from terradelta.classes import SENSEEARTH
from terradelta.data.images import IGNORE
from terradelta.evaluation.bootstrap import ImageCounts
from terradelta.evaluation.scoring import summarize
from terradelta.evaluation.scoring_protocols import create_protocol
from terradelta.inference.folders import ImagePair, find_probabilities, predict_images
from terradelta.inference.predictor import Predictor

# The recipe is not a package.
sys.path.append(str(Path(__file__).parents[2] / "recipes" / "default"))
from hand_labels import HandLabels, HandPair, find_split, list_sites, read_pairs

from data import read_tile

REPLICATES = 2000
SETS = {
    "test": "Claremont, a city that no model of this table was trained on",
    "val": "development sites: thresholds were chosen on them",
}
PLACES = {
    "rio": "Rio de Janeiro, 0.5 m, in one of two trainings",
    "claremont": "Claremont, not trained on",
    "santa_monica": "Santa Monica, validation",
    "banepa": "Banepa, Nepal, in the other training",
    "zanzibar": "Zanzibar, in the other training",
}


def write_drawn(shared: Path, predictors: dict[str, Predictor]) -> str:
    """Return the tables as Markdown."""
    sites = list_sites(shared)
    pairs = list(read_pairs(shared))
    parts = []
    for split, words in SETS.items():
        chosen = [pair for pair in pairs if find_split(pair.name, sites) == split]
        parts.append(
            write_changes(f"Real changes, {len(chosen)} pairs: {words}", chosen, predictors)
        )
    return "\n".join([*parts, write_land_cover(shared, predictors)])


def write_changes(title: str, pairs: list[HandPair], predictors: dict[str, Predictor]) -> str:
    """Return the scores of each model on some pairs."""
    lines = [
        f"**{title}**",
        "",
        "| model | Fscd, from-to | SeK, second | F1 of change | precision | recall |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, predictor in predictors.items():
        from_to = ImageCounts(create_protocol("from-to", SENSEEARTH.num_classes))
        second = ImageCounts(create_protocol("second", SENSEEARTH.num_classes))
        change = []
        for pair in pairs:
            known_HW = (pair.ids[0] != IGNORE) & (pair.ids[1] != IGNORE)
            maps = predict_images(predictor, ImagePair(*pair.images))
            maps = [*maps, *(np.where(known_HW, ids_HW, 0) for ids_HW in pair.ids)]
            for counts in (from_to, second):
                counts.add(*maps, valid=known_HW)
            flagged_HW, true_HW = maps[0] > 0, (maps[2] > 0) | (maps[3] > 0)
            counted = (flagged_HW & true_HW, flagged_HW & ~true_HW, ~flagged_HW & true_HW)
            change.append([int((part_HW & known_HW).sum()) for part_HW in counted])
        cells = [
            _write(summarize(from_to, REPLICATES), "fscd"),
            _write(summarize(second, REPLICATES), "sek"),
            *_score_change(np.array(change, float)),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _write(scores, name: str) -> str:
    interval = scores.intervals[name]
    return f"{scores.numbers[name]:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _score_change(counts: np.ndarray) -> Iterator[str]:
    """Yield F1 with its interval, precision and recall, of hits, alarms and misses by pair."""

    def compute(hits: float, alarms: float, misses: float) -> float:
        return 2 * hits / max(1, 2 * hits + alarms + misses)

    number = len(counts)
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), REPLICATES)
    low, high = np.percentile([compute(*(draw @ counts)) for draw in draws], (2.5, 97.5))
    hits, alarms, misses = counts.sum(axis=0)
    yield f"{compute(hits, alarms, misses):.3f} ({low:.3f} to {high:.3f})"
    yield f"{hits / max(1, hits + alarms):.3f}"
    yield f"{hits / max(1, hits + misses):.3f}"


def write_land_cover(shared: Path, predictors: dict[str, Predictor]) -> str:
    """Return the accuracy and the IoU of each class, by place."""
    hand = HandLabels.read(shared)
    names = SENSEEARTH.names[1:]
    lines = [
        "**Land cover of one date, tiles labelled by hand**",
        "",
        "| place | model | accuracy | " + " | ".join(f"IoU {name}" for name in names) + " |",
        "| --- | --- | --- |" + " --- |" * len(names),
    ]
    for place, words in PLACES.items():
        images = [image for image, tiles in hand.tiles.items() if tiles[0].name.startswith(place)]
        for name, predictor in predictors.items():
            counts_KK = np.zeros((len(names), len(names)), np.int64)
            for image in images:
                image_CHW, true_HW = read_tile(shared, hand, image)
                both = torch.from_numpy(np.ascontiguousarray(image_CHW))
                found_HW = find_probabilities(predictor, both, both).after_KHW.argmax(axis=0)
                known_HW = (true_HW > 0) & (true_HW != IGNORE)
                np.add.at(counts_KK, (found_HW[known_HW], true_HW[known_HW] - 1), 1)
            hits_K = np.diag(counts_KK)
            union_K = counts_KK.sum(axis=0) + counts_KK.sum(axis=1) - hits_K
            cells = [
                f"{hits / union:.2f}" if true else "-"
                for hits, union, true in zip(hits_K, union_K, counts_KK.sum(axis=0), strict=True)
            ]
            accuracy = hits_K.sum() / counts_KK.sum()
            where = f"{words} ({len(images)} images)"
            lines.append(f"| {where} | {name} | {accuracy:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
