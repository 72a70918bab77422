"""The page of a training run: its curves, the confusion of its best model, and its worst pairs.

Legend of the array names: C bands, H rows, W columns, I ids.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terradelta.classes import Colour
from terradelta.data.dataset import ChangeDataset
from terradelta.data.layouts import find_pairs
from terradelta.errors import ArgumentError, OutputError, TerradeltaError
from terradelta.evaluation.calibration import Reliability
from terradelta.evaluation.diagnosis import Diagnosis, diagnose
from terradelta.fields import show
from terradelta.geo.stretch import find_range
from terradelta.inference.folders import ImagePair, count_pixels_per_size, predict_images
from terradelta.inference.predictor import Predictor
from terradelta.inputs import read_text
from terradelta.models.bundle import load_card, load_model
from terradelta.models.card import ModelCard
from terradelta.reports.chart import LineChart
from terradelta.reports.document import REPORT_FILE, embed_colours, embed_photograph, write_page
from terradelta.reports.imagery import draw_photograph
from terradelta.training.checkpoint import LOGGED
from terradelta.training.config import TrainConfig
from terradelta.training.record import SELECTION_NUMBER, SELECTION_PROTOCOL, TEST_FILE, read_test

WORST_PAIRS = 6
PANEL_SIDE_PX = 320
MAX_CONFUSION_IDS = 16
"""Most classes shown: those with the most true pixels."""
STRONGEST_SHADE = 30
SHOWN_NUMBERS = ("score", "miou", "fscd", "sek", "iou_changed")
VERDICTS: tuple[tuple[str, Colour], ...] = (
    ("unchanged, and found so", (226, 230, 233)),
    ("change found, with its classes", (11, 120, 132)),
    ("change found, a class wrong", (122, 92, 178)),
    ("change missed", (222, 150, 20)),
    ("false change", (190, 44, 54)),
)
"""Meaning of the colours of a pair's verdict."""


def write_training_page(run: Path):
    """Write report.html into the folder of a training run.

    Raises:
        ArgumentError: If its recipe cannot be read.
        OutputError: If it lacks a part, or the page cannot be written.
    """
    log = _read_log(run / "log.csv")
    config = TrainConfig.read_yaml(run / "config.yaml")
    card = load_card(run / "best")
    epoch = card.training.get("epoch")
    if not isinstance(epoch, int) or not 1 <= epoch <= len(log):
        raise OutputError(
            f"{run / 'best'} was kept after epoch {show(epoch)}, and log.csv has 1 to {len(log)}",
            fix="give the folder of a run, as `train` left it",
        )
    try:
        found = _examine(run, config)
        missing = None
    except TerradeltaError as error:
        found, missing = None, error.problem
    write_page(
        run / REPORT_FILE,
        "training.html.jinja",
        name=run.resolve().name,
        config={name: value for name, value in config.to_dict().items() if value is not None},
        best=log[epoch - 1],
        epoch=epoch,
        epochs=config.epochs,
        trained=len(log),
        selection=(SELECTION_NUMBER, SELECTION_PROTOCOL),
        shown_numbers=SHOWN_NUMBERS,
        minutes=sum(row["seconds"] for row in log) / 60,
        curves=list(_draw_curves(log)),
        test=read_test(run / TEST_FILE) if (run / TEST_FILE).is_file() else None,
        found=found,
        missing=missing,
        verdicts=VERDICTS,
        facts=_describe(card),
    )


def _read_log(path: Path) -> list[dict[str, float]]:
    fix = "give the folder of a run, as `train` left it"
    try:
        rows = [
            {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(io.StringIO(read_text(path), newline=""))
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise OutputError(f"{path} cannot be read: {error}", fix) from error
    if not rows:
        raise OutputError(f"{path} has no epoch", fix="let the run finish an epoch first")
    for name in LOGGED:
        if not all(math.isfinite(row.get(name, math.inf)) for row in rows) and name != "score":
            raise OutputError(f"{path} has an epoch without its {name}", fix)
    return rows


def _draw_curves(log: list[dict[str, float]]) -> list[LineChart]:
    """Return charts of the losses, of the validation numbers and of the rate."""
    epochs = [row["epoch"] for row in log]
    losses = [name for name in log[0] if name.startswith("loss_")]
    groups = {
        "Losses on the training pairs": {name.removeprefix("loss_"): name for name in losses},
        f"Validation pairs, protocol {SELECTION_PROTOCOL}": {
            name: name for name in SHOWN_NUMBERS if name in log[0]
        },
        "Learning rate of the encoder": {"rate": "learning_rate"},
    }
    return [
        LineChart.of(
            title,
            "epoch",
            epochs,
            {name: [row[key] for row in log] for name, key in names.items()},
        )
        for title, names in groups.items()
    ]


@dataclass(frozen=True)
class ConfusionRow:
    """A true class, and the predictions for its pixels, in percent by column."""

    true_px: int
    shares: list[float]
    shades: list[float]
    """Strength of the cells' backgrounds, in percent of the accent."""
    iou: float | None


@dataclass(frozen=True)
class ConfusionTable:
    """The confusion of both dates."""

    heads: list[tuple[str, Colour]]
    """Name and colour of the shown classes."""
    rows: list[ConfusionRow]
    hidden: int
    """Classes that are not shown."""


@dataclass(frozen=True)
class ReliabilityChart:
    """Stated against observed percentages."""

    name: str
    error: float
    """The expected calibration error."""
    points: list[tuple[float, float]]
    """x, and y from the top."""
    path: str
    """SVG path through the points."""
    rows: list[dict[str, float]]
    """See `Reliability.to_rows`."""


@dataclass(frozen=True)
class ShownPair:
    """Pictures of a validation pair as data URIs."""

    name: str
    wrong: float
    """Wrong pixels in percent."""
    photographs: list[str]
    """Pictures before and after."""
    verdict: str


@dataclass(frozen=True)
class _Findings:
    """The evaluation of the best model on the validation pairs."""

    pairs: int
    numbers: dict[str, float]
    """Numbers of the protocol that chose it."""
    confusion: ConfusionTable
    calibration: list[ReliabilityChart]
    worst: list[ShownPair]


def _examine(run: Path, config: TrainConfig) -> _Findings:
    """Evaluate the best model on the validation pairs.

    Raises:
        TerradeltaError: If the model or the data set can no longer be used.
    """
    if config.data is None:
        raise ArgumentError("the recipe names no data set", fix="add it to config.yaml")
    predictor = Predictor([load_model(run / "best")])
    pairs = find_pairs(config.data, split="val", val_every=config.val_every)
    predictor.start(count_pixels_per_size(pairs.pairs))
    dataset = ChangeDataset(pairs)
    diagnosis = diagnose(predictor, dataset)
    order = np.argsort(diagnosis.wrong_shares, kind="stable")[::-1][:WORST_PAIRS].tolist()
    return _Findings(
        diagnosis.pairs,
        diagnosis.protocols[SELECTION_PROTOCOL].compute(),
        _tabulate(diagnosis),
        [_draw_reliability(name, curve) for name, curve in diagnosis.curves.items()],
        [
            _show_pair(predictor, dataset, index, 100 * diagnosis.wrong_shares[index])
            for index in order
            if diagnosis.wrong_shares[index] > 0
        ],
    )


def _tabulate(diagnosis: Diagnosis) -> ConfusionTable:
    """Return the confusion of both dates: the shares of the predictions for each true class."""
    counts_II = diagnosis.protocols[SELECTION_PROTOCOL].counts
    occurring = np.flatnonzero(counts_II.sum(axis=0) + counts_II.sum(axis=1))
    order = np.argsort(-counts_II.sum(axis=0)[occurring], kind="stable")
    shown = np.sort(occurring[order[:MAX_CONFUSION_IDS]])
    true_I = counts_II.sum(axis=0)
    ious = {row["id"]: row["iou"] for row in diagnosis.list_class_ious()}
    classes = diagnosis.classes
    shares_II = 100 * counts_II / np.maximum(true_I, 1)
    rows = [
        ConfusionRow(
            true_px=int(true_I[i]),
            shares=shares_II[shown, i].tolist(),
            shades=np.ceil(STRONGEST_SHADE * shares_II[shown, i] / 100).tolist(),
            iou=None if math.isnan(ious[i]) else ious[i],
        )
        for i in shown.tolist()
    ]
    heads = [(classes.names[i], classes.colours[i]) for i in shown]
    return ConfusionTable(heads, rows, hidden=len(occurring) - len(shown))


def _draw_reliability(name: str, curve: Reliability) -> ReliabilityChart:
    rows = curve.to_rows()
    points = [(100 * row["stated"], 100 - 100 * row["true"]) for row in rows]
    path = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) if points else ""
    return ReliabilityChart(name, curve.calibration_error, points, path, rows)


def _show_pair(
    predictor: Predictor, dataset: ChangeDataset, index: int, wrong_percent: float
) -> ShownPair:
    """Return pictures of a pair: before, after and the verdict on each pixel."""
    sample = dataset[index]
    images = sample.before_CHW.numpy(), sample.after_CHW.numpy()
    predicted = predict_images(predictor, ImagePair(*images))
    change_HW = sample.change_HW.numpy() > 0
    labels = sample.before_labels_HW.numpy(), sample.after_labels_HW.numpy()
    is_right_HW = np.logical_and.reduce(
        [found_HW == true_HW for found_HW, true_HW in zip(predicted, labels, strict=True)]
    )
    found_HW = predicted[0] > 0
    verdict_HW = np.select(
        [
            ~change_HW & ~found_HW,
            change_HW & found_HW & is_right_HW,
            change_HW & found_HW,
            change_HW,
        ],
        [0, 1, 2, 3],
        default=4,
    ).astype(np.uint8)
    everywhere_HW = np.ones_like(change_HW)
    height, width = change_HW.shape
    scale = min(1.0, PANEL_SIDE_PX / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    photographs = [
        draw_photograph(image_CHW, everywhere_HW, find_range(image_CHW, everywhere_HW), shape)
        for image_CHW in images
    ]
    return ShownPair(
        name=dataset.pairs.pairs[index].name,
        wrong=wrong_percent,
        photographs=[embed_photograph(picture_HWC[..., :3]) for picture_HWC in photographs],
        verdict=embed_colours(verdict_HW, tuple(colour for _, colour in VERDICTS)),
    )


def _describe(card: ModelCard) -> list[tuple[str, str]]:
    architecture = card.architecture
    return [
        ("Network", f"{architecture.get('name')} on {architecture.get('encoder')}"),
        ("Bands", ", ".join(card.bands)),
        ("Classes", ", ".join(card.classes.names[1:])),
        ("Counts as changed from a probability of", f"{card.change_threshold:g}"),
    ]
