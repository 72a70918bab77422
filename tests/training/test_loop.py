import csv
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, DataError, OutputExistsError
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train
from terradelta.training.optimization import build_optimizer, set_rates

from .recipes import SMALL


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    write_folders(root, 11, seed=1, size_px=64)
    return root


@pytest.fixture(scope="module")
def config(drawn):
    return replace(SMALL, data=str(drawn), epochs=3)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(config, folder)


def read_weights(folder):
    return load_file(folder / "last" / "model.safetensors")


def test_a_run_leaves_models_a_log_and_its_recipe(run, config):
    with (run.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss_total"] for line in lines] == [
        float(row["loss_total"]) for row in rows
    ]
    assert TrainConfig.read_yaml(run.folder / "config.yaml") == config
    for name in ("best", "last"):
        card = td.load_model(run.folder / name).card
        assert card.training["learning_rate"] == 1e-3
    best = max(rows, key=lambda row: float(row["score"]))
    assert run.best_epoch == int(best["epoch"])
    assert td.load_model(run.folder / "best").card.training["epoch"] == run.best_epoch


def test_the_logged_scores_are_those_of_the_kept_model(run, config):
    again = td.evaluate(run.folder / "best", config.data)
    assert again.numbers == pytest.approx(run.scores, nan_ok=True)


def test_a_killed_run_resumes_bit_for_bit(config, tmp_path):
    """Killed in its second epoch by SIGKILL, a run ends with the weights of one that was not."""
    config = replace(config, ema_decay=0.5)
    config.write_yaml(tmp_path / "recipe.yaml")
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "terradelta.cli", "train", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen([*command, "-o", str(killed)])
    while not (killed / "checkpoints" / "epoch-0001").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "checkpoints" / "epoch-0003").exists()
    resumed = train(config, killed, resume=True)
    unbroken = train(config, tmp_path / "unbroken")
    theirs, ours = read_weights(unbroken.folder), read_weights(resumed.folder)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert resumed.scores == pytest.approx(unbroken.scores, nan_ok=True)


def test_the_number_of_workers_changes_nothing(config, tmp_path):
    one_epoch = replace(config, epochs=1, brightness=0.2, swap_dates=True, crop_size_px=48)
    runs = [train(replace(one_epoch, workers=n), tmp_path / str(n)) for n in (0, 2)]
    first, second = (read_weights(result.folder) for result in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_finished_run_is_kept_without_overwrite(run, config):
    with pytest.raises(OutputExistsError):
        train(config, run.folder)
    assert (run.folder / "best" / "model.json").exists()


def test_heads_learn_faster_and_rates_fall(config):
    network = td.create_model("fcn", encoder="resnet18")
    optimizer = build_optimizer(TrainConfig(), network)
    encoder, heads = optimizer.param_groups
    assert (encoder["lr"], heads["lr"]) == pytest.approx((1.5e-4, 1.5e-3))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(network.parameters())
    )
    set_rates(optimizer, 0.5)
    assert (encoder["lr"], heads["lr"]) == pytest.approx((0.75e-4, 0.75e-3))


@pytest.mark.parametrize("loss", ["ual-probability", "cosine", "mse", "none"])
def test_every_loss_trains(config, tmp_path, loss):
    result = train(replace(config, loss=loss, epochs=1), tmp_path / "run")
    log = json.loads((result.folder / "log.jsonl").read_text())
    assert np.isfinite(log["loss_total"])


def test_a_binary_set_trains(drawn, tmp_path):
    root = tmp_path / "levir"
    for ours, theirs in (("im1", "A"), ("im2", "B"), ("label1", "label")):
        shutil.copytree(drawn / ours, root / theirs)
    for path in (root / "label").iterdir():
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    result = train(replace(SMALL, data=str(root), epochs=1), tmp_path / "run")
    card = td.load_model(result.folder / "last").card
    assert card.classes.names == ("unchanged", "changed")


def test_a_bad_file_is_a_typed_error_even_in_a_worker(drawn, config, tmp_path):
    root = tmp_path / "drawn"
    shutil.copytree(drawn, root)
    (root / "im2" / "00007.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"00007.png"):
        train(replace(config, data=str(root), workers=2), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, "2 class weights for 6 classes"),
        ({"data": None}, "no data set"),
        ({"learning_rate": 1e30, "precision": "fp32"}, "the loss became"),
    ],
)
def test_recipes_that_cannot_work_are_refused(config, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        train(replace(config, **options), tmp_path / "run")


@pytest.fixture(scope="module")
def copies(config, drawn, tmp_path_factory):
    """A recipe on copies of one pair, 12 to train on and 2 held out."""
    folder = tmp_path_factory.mktemp("copies")
    for name in ("im1", "im2", "label1", "label2"):
        (folder / name).mkdir()
        source = sorted((drawn / name).iterdir())[0]
        for number in range(14):
            shutil.copy(source, folder / name / f"{number:02}.png")
    return replace(config, data=str(folder), views="none", precision="fp32", epochs=1)


def test_a_network_learns_a_pair_by_heart(copies, tmp_path):
    result = train(replace(copies, epochs=16, batch_size=4), tmp_path / "run")
    lines = (result.folder / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss_total"] for line in lines]
    assert losses[-1] < 0.5 * losses[0]


def test_two_batches_a_step_are_one_of_twice_the_size(copies, tmp_path, monkeypatch):
    """On copies of one pair, whose batch statistics and means do not depend on the batch."""
    # Its random masks are what would differ.
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, features: features)
    # Its steps are as long as the gradients; Adam's go by the sign of what may be rounding.
    plain = replace(copies, optimizer="sgd", learning_rate=0.01)
    runs = {
        "large": replace(plain, batch_size=12),
        "small": replace(plain, batch_size=6, accumulate_batches=2),
        "never": replace(plain, batch_size=6),
    }
    weights = {
        name: torch.cat(
            [
                tensor.flatten()
                for key, tensor in read_weights(train(recipe, tmp_path / name).folder).items()
                if "running" not in key and "num_batches" not in key
            ]
        )
        for name, recipe in runs.items()
    }
    off = {name: (tensor - weights["large"]).norm() for name, tensor in weights.items()}
    # Four steps of float32, summed in another order.
    assert off["small"] < 0.1 * off["never"]


def test_only_the_last_checkpoint_is_kept(run):
    """Each holds all weights and the optimizer's numbers: a long run would fill the disk."""
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["epoch-0003"]
