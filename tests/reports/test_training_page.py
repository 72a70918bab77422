import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.data.dataset import ChangeDataset
from terradelta.data.images import read_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, OutputError
from terradelta.evaluation.scoring import count_folders
from terradelta.inference.folders import find_probabilities
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import Model, save_model
from terradelta.reports.chart import LineChart

from .conftest import SCREENS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    for seed, (split, pairs) in enumerate({"train": 2, "val": 4, "test": 2}.items()):
        write_folders(root / split, pairs, seed=seed, size_px=128)
    return root


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = td.TrainConfig(
        data=str(data), encoder="resnet18_slim", epochs=2, batch_size=2, workers=0, precision="fp32"
    )
    td.train(config, folder)
    model = td.load_model(folder / "best")
    pair = ChangeDataset(find_pairs(data, split="val"))[0]
    change_HW = find_probabilities(Predictor([model]), pair.before_CHW, pair.after_CHW).change_HW
    # So short a run finds no change at all; with this threshold it finds some, right and wrong.
    card = replace(model.card, change_threshold=float(np.median(change_HW)))
    save_model(Model(model.network, card), folder / "best", overwrite=True)
    return folder


@pytest.fixture(scope="module")
def page(run, read_page):
    return read_page(td.report(run))


def test_it_says_what_the_log_and_the_test_say(page, run):
    with (run / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    epoch = json.loads((run / "best" / "model.json").read_text())["training"]["epoch"]
    best = float(log[epoch - 1]["score"])
    assert f"scores {best:.3f} on the validation pairs, after epoch {epoch} of 2" in page.text
    assert f"total {float(log[-1]['loss_total']):.3g}" in page.text
    tested = json.loads((run / "test.json").read_text())["protocols"]["second"]
    assert f"overall_accuracy {tested['overall_accuracy']:.3f} " in page.text
    assert "batch_size2" in page.text


def test_the_confusion_is_that_of_the_models_masks(page, run, data, tmp_path):
    out = tmp_path / "out"
    td.predict(data / "val" / "im1", data / "val" / "im2", out, model=run / "best")
    counts_II = count_folders(out, data / "val", "second", None).metric.counts
    head, *rows = page.tables[0]
    names = head[1:-2]
    assert len(names) > 2
    ids = [SENSEEARTH.names.index(name) for name in names]
    for row in rows:
        true = SENSEEARTH.names.index(row[0])
        assert int(row[-1].replace(",", "")) == counts_II[:, true].sum()
        if counts_II[:, true].any():
            shares = 100 * counts_II[ids, true] / counts_II[:, true].sum()
            assert [float(cell) for cell in row[1:-2]] == pytest.approx(shares.tolist(), abs=0.06)

    wrong = {}
    for path in (out / "before").iterdir():
        parts = []
        for date, number in (("before", 1), ("after", 2)):
            masks = [out / date / path.name, data / "val" / f"label{number}" / path.name]
            parts.append(np.not_equal(*(read_mask(mask, SENSEEARTH) for mask in masks)))
        wrong[path.stem] = np.logical_or(*parts).mean()
    wrong = {name: share for name, share in wrong.items() if share}
    assert len(wrong) > 1
    places = [page.text.index(f" {name} ") for name in sorted(wrong, key=wrong.get, reverse=True)]
    assert places == sorted(places), "the worst pair comes first"
    assert f"{100 * max(wrong.values()):.1f} % of its pixels are wrong" in page.text
    assert len(page.pictures) == 3 * len(wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_serious_and_nothing_sticks_out(examine, page, run, screen, scheme):
    examine(run / "report.html", screen, scheme)


def test_a_run_has_no_areas(run):
    with pytest.raises(ArgumentError, match="training run, which has no areas"):
        td.report(run, areas="area_estimates.json", overwrite=True)


def test_without_the_data_it_says_so_and_shows_the_rest(run, data, read_page):
    moved = data.with_name("moved")
    data.rename(moved)
    try:
        page = read_page(td.report(run, overwrite=True))
    finally:
        moved.rename(data)
    assert f"{data} does not exist" in page.text
    assert "Losses on the training pairs" in page.text
    assert page.tables == []


def test_a_recipe_that_names_no_data_is_said_so(run, read_page, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    recipe = tmp_path / "run" / "config.yaml"
    lines = recipe.read_text().splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if not line.startswith("data:")))
    page = read_page(td.report(tmp_path / "run", overwrite=True))
    assert "trained on data that the recipe does not name" in page.text


def test_a_run_without_an_epoch_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "log.csv").write_text("epoch,score\n")
    with pytest.raises(OutputError, match="no epoch"):
        td.report(tmp_path / "run")


def test_curves_break_where_a_value_is_undefined_and_stay_within_their_frame():
    nan = float("nan")
    chart = LineChart.of("a", "epoch", [1, 2, 3, 4], {"a": [1, nan, 3, 2], "b": [nan, nan, 2, -1]})
    assert [line.path.count("M") for line in chart.lines] == [2, 1]
    for line in chart.lines:
        assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in line.points)
    (_, top), *_ = sorted(chart.lines[0].points, key=lambda point: point[1])
    assert top == pytest.approx(min(point[1] for line in chart.lines for point in line.points))
    for values in ([nan, nan], [0, 0], [5, 5]):
        flat = LineChart.of("flat", "epoch", [1, 2], {"a": values})
        assert all(0 <= y <= 100 for _, y in flat.lines[0].points)
    assert len(LineChart.of("one", "epoch", [1], {"a": [0.5]}).lines[0].points) == 1
