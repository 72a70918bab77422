"""Scores of models and rivals on real pairs that no model was trained on, as results.md.

Run: `python benchmarks/real/table.py --shared ../shared/data [--model FOLDER ...]`.

Legend of the array names: C bands, K classes, H rows, W columns, N pairs, R replicates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from hand_drawn import write_drawn
from pairs import RealPair, read_levir, read_oscd, read_unchanged
from rivals import RIVALS
from scipy.ndimage import label

from terradelta.classes import SENSEEARTH
from terradelta.inference.folders import ImageProbabilities, find_probabilities
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.models.embedded import DEFAULT_MODEL

BUILDING = SENSEEARTH.names.index("building") - 1
SMALLEST_OBJECT_PX = 40
"""10 m2 at LEVIR's half a metre: a shed."""
FOUND_SHARE = 0.5
SURE = 0.9
EVEN = 0.5
REPLICATES = 2000


@dataclass
class Tally:
    """Pixels and objects of one way on one set of pairs, pair by pair."""

    pixels: list[tuple[int, int, int, int]] = field(default_factory=list)
    """True positives, false positives, false negatives, all."""
    objects: list[tuple[int, int, int]] = field(default_factory=list)
    """True objects found, true objects, flagged objects that touch no truth."""

    def add(self, flagged_HW: np.ndarray, truth_HW: np.ndarray):
        """Count one pair."""
        hits = int((flagged_HW & truth_HW).sum())
        wrong, missed = int(flagged_HW.sum()) - hits, int(truth_HW.sum()) - hits
        self.pixels.append((hits, wrong, missed, truth_HW.size))
        shares = measure_objects(truth_HW, flagged_HW)
        self.objects.append(
            (
                int((shares >= FOUND_SHARE).sum()),
                len(shares),
                int((measure_objects(flagged_HW, truth_HW) == 0).sum()),
            )
        )

    def compute(self, weights_N: np.ndarray | None = None) -> dict[str, float]:
        """Return the numbers of all pairs together, each counted as often as its weight."""
        if weights_N is None:
            weights_N = np.ones(len(self.pixels))
        hits, wrong, missed, total = weights_N @ np.array(self.pixels, float)
        found, true, alarms = weights_N @ np.array(self.objects, float)
        return {
            "precision": hits / max(hits + wrong, 1),
            "recall": hits / max(hits + missed, 1),
            "F1": 2 * hits / max(2 * hits + wrong + missed, 1),
            "IoU": hits / max(hits + wrong + missed, 1),
            "objects found": found / max(true, 1),
            "false alarms a pair": alarms / weights_N.sum(),
            "flagged": (hits + wrong) / total,
        }

    def span(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of a number by drawing pairs again."""
        number = len(self.pixels)
        draws = np.random.default_rng(0).multinomial(
            number, np.full(number, 1 / number), size=REPLICATES
        )
        values = [self.compute(weights_N)[name] for weights_N in draws]
        low, high = np.percentile(values, (2.5, 97.5))
        return float(low), float(high)


def measure_objects(objects_HW: np.ndarray, other_HW: np.ndarray) -> np.ndarray:
    """Return the share of each object of one mask that lies in the other, without small objects."""
    owner_HW, _ = label(objects_HW)
    sizes = np.bincount(owner_HW.ravel())[1:]
    inside = np.bincount(owner_HW[other_HW], minlength=len(sizes) + 1)[1:]
    is_large = sizes >= SMALLEST_OBJECT_PX
    return inside[is_large] / sizes[is_large]


def changed(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return the pixels that the map shows as changed."""
    return answer.decide(predictor.rule)[0] > 0


def to_building(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return the changed pixels that are building afterwards."""
    return answer.decide(predictor.rule)[1] == BUILDING + 1


def change_head(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return the pixels that the change head flags, with any classes."""
    del predictor
    return answer.change_HW >= EVEN


def to_building_if_sure(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return the pixels changed with a probability of 90 % that are building afterwards."""
    return to_building(answer, predictor) & (answer.change_HW >= SURE)


def two_maps_building(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return the pixels that separate maps of the two dates show as other and then as building."""
    del predictor
    before_HW, after_HW = answer.before_KHW.argmax(0), answer.after_KHW.argmax(0)
    return (before_HW != BUILDING) & (after_HW == BUILDING)


def two_maps(answer: ImageProbabilities, predictor: Predictor) -> np.ndarray:
    """Return where separate maps of the two dates differ."""
    del predictor
    return answer.before_KHW.argmax(0) != answer.after_KHW.argmax(0)


Way = Callable[[ImageProbabilities, Predictor], np.ndarray]
BUILDING_WAYS: dict[str, Way] = {
    "changed to building": to_building,
    f"changed to building, p >= {SURE}": to_building_if_sure,
    "changed to anything": changed,
    "change head alone": change_head,
    "two maps, to building": two_maps_building,
}
CHANGE_WAYS: dict[str, Way] = {
    "changed to anything": changed,
    "change head alone": change_head,
    "two maps": two_maps,
}


def tally(
    pairs: Iterable[RealPair], predictors: dict[str, Predictor], ways: dict[str, Way], rivals: bool
) -> dict[str, Tally]:
    """Return the counts of every way on a set of pairs."""
    rows: dict[str, Tally] = {}
    for pair in pairs:
        answers = list(_answer(pair, predictors, ways))
        if rivals:
            answers += [(n, rival(pair.before_CHW, pair.after_CHW)) for n, rival in RIVALS.items()]
            everything_HW = np.ones_like(pair.truth_HW)
            answers += [("all changed", everything_HW), ("nothing changed", ~everything_HW)]
        for name, flagged_HW in answers:
            rows.setdefault(name, Tally()).add(flagged_HW, pair.truth_HW)
    return rows


def _answer(
    pair: RealPair, predictors: dict[str, Predictor], ways: dict[str, Way]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, predictor in predictors.items():
        images = (torch.from_numpy(np.ascontiguousarray(i)) for i in pair[1:3])
        answer = find_probabilities(predictor, *images)
        for way, flag in ways.items():
            yield f"{name}: {way}", flag(answer, predictor)


def write_table(title: str, rows: dict[str, Tally], names: list[str], with_span: str) -> str:
    """Return rows as Markdown, the best first."""
    lines = [
        f"**{title}**",
        "",
        "| way | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for way, counts in sorted(rows.items(), key=lambda row: -row[1].compute()[names[0]]):
        numbers = counts.compute()
        cells = [f"{numbers[name]:.{1 if 'alarms' in name else 3}f}" for name in names]
        low, high = counts.span(with_span)
        cells[names.index(with_span)] += f" ({low:.3f} to {high:.3f})"
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    """Score everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", nargs="*", default=[str(DEFAULT_MODEL)], help="NAME=FOLDER")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--no-drawn", action="store_true", help="leave labels by hand out")
    options = parser.parse_args()
    predictors = {}
    for text in options.model:
        name, _, folder = text.rpartition("=")
        predictors[name or Path(folder).name] = Predictor(
            [load_model(folder)], Runtime(precision="fp32")
        )
    if not options.no_drawn:
        print(write_drawn(options.shared, predictors))
    rivals = not options.no_rivals
    levir = tally(read_levir(options.shared), predictors, BUILDING_WAYS, rivals)
    print(
        write_table(
            "LEVIR-CD, 10 pairs, changed buildings",
            levir,
            ["F1", "precision", "recall", "IoU", "objects found", "false alarms a pair"],
            "F1",
        )
    )
    still = tally(read_unchanged(options.shared), predictors, CHANGE_WAYS, rivals)
    print(
        write_table(
            f"Unchanged ground, {len(next(iter(still.values())).pixels)} pairs",
            still,
            ["flagged"],
            "flagged",
        )
    )
    oscd = tally(read_oscd(options.shared), predictors, CHANGE_WAYS, rivals)
    print(
        write_table(
            "Sentinel-2 (OSCD), 2 cities, urban change",
            oscd,
            ["F1", "precision", "recall"],
            "F1",
        )
    )


if __name__ == "__main__":
    main()
