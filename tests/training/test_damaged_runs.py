"""Recipes, checkpoints and logs of a run that are damaged: refused, file and key by name."""

import csv
import json
import random
import shutil
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.mutants import mutate_bytes, mutate_json

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, DataError, ModelError, OutputError, TerradeltaError
from terradelta.training.checkpoint import read_state
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train
from terradelta.training.record import read_test


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write_folders(folder, 4, seed=1, size_px=64)
    return TrainConfig(
        data=str(folder),
        encoder="resnet18_slim",
        lightweight=True,
        epochs=1,
        batch_size=2,
        val_every=4,
        workers=0,
        picture_pairs=0,
        ema_decay=0.9,
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(config, run)
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def state_of(run: Path) -> Path:
    return run / "checkpoints" / "epoch-0001"


def edit_tensors(change):
    def damage(state: Path):
        path = state / "state.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)

    return damage


def edit_progress(**changes):
    def damage(state: Path):
        path = state / "progress.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def first(tensors, prefix):
    return next(key for key in sorted(tensors) if key.startswith(prefix) and tensors[key].ndim > 1)


DAMAGE = {
    "truncated state": (
        lambda state: (state / "state.safetensors").write_bytes(
            (state / "state.safetensors").read_bytes()[:1000]
        ),
        r"state\.safetensors is damaged",
    ),
    "missing state": (
        lambda state: (state / "state.safetensors").unlink(),
        r"the weight file .*state\.safetensors does not exist",
    ),
    "huge header": (
        lambda state: (state / "state.safetensors").write_bytes(struct.pack("<Q", 2**40)),
        "its header would take",
    ),
    "missing progress": (
        lambda state: (state / "progress.json").unlink(),
        r"progress\.json cannot be read",
    ),
    "truncated progress": (
        lambda state: (state / "progress.json").write_text("{"),
        r"progress\.json cannot be read: it is not JSON",
    ),
    "lost weight": (
        edit_tensors(lambda tensors: tensors.pop(first(tensors, "network."))),
        "holds .* tensors and .* counts",
    ),
    "lost weight of an earlier version": (
        lambda state: (
            edit_tensors(lambda tensors: tensors.pop(first(tensors, "network.")))(state),
            edit_progress(tensors=None)(state),
        ),
        "does not fit the network",
    ),
    "lost slot of an earlier version": (
        lambda state: (
            edit_tensors(lambda tensors: tensors.pop("optimizer.3.exp_avg"))(state),
            edit_progress(tensors=None)(state),
        ),
        "the optimizer's state is incomplete for some parameters",
    ),
    "turned slot": (
        edit_tensors(lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(7)})),
        r"optimizer\.0\.exp_avg is \[7\] where",
    ),
    "slot of one number with another axis": (
        edit_tensors(lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1, 1)})),
        r"optimizer\.0\.exp_avg is \[1, 1\] where",
    ),
    "slot of nothing": (
        edit_tensors(
            lambda tensors: tensors.update(
                {"optimizer.9999.exp_avg": tensors.pop("optimizer.0.exp_avg")}
            )
        ),
        "belongs to none of its",
    ),
    "slot without number": (
        edit_tensors(
            lambda tensors: tensors.update({"optimizer.x": tensors.pop("optimizer.0.exp_avg")})
        ),
        "belongs to none of its",
    ),
    "no average": (
        edit_tensors(
            lambda tensors: [
                tensors.update({f"other.{key}": tensors.pop(key)})
                for key in list(tensors)
                if key.startswith("average.")
            ]
        ),
        "does not fit the network",
    ),
    "epoch of text": (edit_progress(epoch="1"), r"progress\.json: epoch is '1'"),
    "more epochs than rows": (edit_progress(epoch=3), "log is 1, and it must be a row for each"),
    "best in the future": (edit_progress(best_epoch=5), "best_epoch is 5"),
    "rows of nothing": (edit_progress(log=[{}]), r"log\[0\] is \[\]"),
    "score of text": (edit_progress(best_score="high"), "best_score is 'high'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_on_resume(config, run, name):
    damage, words = DAMAGE[name]
    damage(state_of(run))
    with pytest.raises(ModelError, match=words) as caught:
        train(replace(config, epochs=2), run, resume=True)
    assert "epoch-0001" in caught.value.problem
    assert "resume with" in caught.value.fix or "--overwrite" in caught.value.fix


def test_a_checkpoint_of_an_earlier_version_resumes(config, run):
    edit_progress(tensors=None)(state_of(run))
    assert train(replace(config, epochs=2), run, resume=True).folder == run
    assert json.loads((run / "checkpoints" / "epoch-0002" / "progress.json").read_text())["tensors"]


def test_a_log_may_have_columns_of_another_version(config, run):
    path = state_of(run) / "progress.json"
    progress = json.loads(path.read_text())
    progress["log"][0]["recald_scd"] = 0.5
    path.write_text(json.dumps(progress))
    train(replace(config, epochs=2), run, resume=True)
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert [row["recald_scd"] for row in rows] == ["0.5", ""]


def test_damaged_checkpoints_are_read_or_refused(run):
    path = state_of(run) / "progress.json"
    content = path.read_text()
    every = list(mutate_json(json.loads(content)))
    refused = 0
    for _, text in random.Random(1).sample(every, 60):
        path.write_text(text)
        try:
            read_state(run)
        except TerradeltaError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"epochs: 3\ndata: \xff\xfe", "it is not UTF-8 text"),
        (b"ema_decay: {a: 1}", r"ema_decay is \{'a': 1\}, and it must be a finite number of more"),
        (b"ema_decay: .nan", "ema_decay is nan"),
        (b"ema_decay: .inf", "ema_decay is inf"),
        (b"epochs: 3.5", "epochs is 3.5, and it must be a whole number"),
        (b"epochs: true", "epochs is True"),
        (b"epochs: [3]", r"epochs is \[3\]"),
        (b"epochs: '3'", "epochs is '3'"),
        (b"learning_rate: 1e-4", "learning_rate is '1e-4'"),
        (b"lightweight: 1", "lightweight is 1"),
        (b"class_weights: 3", "class_weights is 3"),
        (b"class_weights: [1, x]", r"class_weights\[1\] is 'x'"),
        (b"class_weights: [1, -1]", r"class_weights\[1\] is -1"),
        (b"model: [fcn]", r"model is \['fcn'\]"),
        (b"loss: banana", "loss is 'banana', and it must be one of ual"),
        (b"data: 2019-01-01", "data is datetime.date"),
        (b"? [a, b]\n: 3", "cannot be read"),
        (b"3: 4", "options that do not exist: 3"),
        (b"!!python/object/apply:os.getcwd []", "cannot be read"),
        (b"[" * 5000, "cannot be read"),
        (b"data: " + b"x" * 2**20, "more than 1,048,576 bytes"),
        (b"\x00", "cannot be read"),
        (b"", "holds NoneType"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9))
                for n in range(98, 110)
            ),
            "options that do not exist",
        ),
        (
            b"class_weights: [&a [x,x,x,x,x,x,x,x,x], "
            + b", ".join(
                b"&%c [%s]" % (n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)
            )
            + b"]",
            r"class_weights\[0\] is \[",
        ),
    ],
)
def test_a_recipe_of_other_things_is_refused(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text)
    with pytest.raises(ArgumentError, match=words) as caught:
        TrainConfig.read_yaml(path)
    assert "recipe.yaml" in caught.value.problem
    assert len(str(caught.value)) < 3000


def test_numbers_that_yaml_takes_for_texts_are_explained(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("learning_rate: 1e-4")
    with pytest.raises(ArgumentError) as caught:
        TrainConfig.read_yaml(path)
    assert "1.0e-4" in caught.value.fix


def test_any_bytes_are_no_recipe_or_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    TrainConfig(data="set", class_weights=(1.0, 2.0)).write_yaml(path)
    for _, content in mutate_bytes(path.read_bytes(), seed=2, count=60):
        path.write_bytes(content)
        with suppress(ArgumentError):
            assert isinstance(TrainConfig.read_yaml(path), TrainConfig)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no epoch"),
        ("epoch,seconds\n1,x\n", "cannot be read"),
        ("epoch,seconds\n1\n", "cannot be read"),
        ("epoch,seconds\n1,2,3\n", "cannot be read"),
        ("epoch,seconds\n1,2\n", "without its loss_total"),
        ("epoch,seconds\n1,nan\n", "without its"),
        ('epoch,"' + "x" * 200_000, "cannot be read"),
    ],
)
def test_a_damaged_log_is_refused_by_the_report(run, text, words):
    (run / "log.csv").write_text(text)
    with pytest.raises(OutputError, match=rf"log\.csv .*{words}"):
        td.report(run, overwrite=True)


def test_a_model_that_names_no_epoch_of_the_log_is_refused(run):
    path = run / "best" / "model.json"
    for epoch in (None, 0, 99, "1"):
        card = json.loads(path.read_text())
        card["training"]["epoch"] = epoch
        path.write_text(json.dumps(card))
        with pytest.raises(OutputError, match="was kept after epoch"):
            td.report(run, overwrite=True)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"protocols": []}', '{"protocols": {"second": {"miou": "x"}}}']
)
def test_damaged_test_numbers_are_refused(tmp_path, text):
    path = tmp_path / "test.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"test\.json"):
        read_test(path)
