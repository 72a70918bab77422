"""Two processes joined by gloo against one that does the work of both."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from terradelta.data.sampler import PairBatchSampler
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train

# A dropout draws other masks in other processes: that is all that would differ. Which pairs are
# drawn is noted down.
PROGRAM = """
import os, sys, torch
torch.nn.Dropout.forward = lambda self, features: features
torch.set_num_threads(1)
from terradelta.training.batches import _Reporting
fetch = _Reporting.__getitem__
def note(self, index):
    with open(os.path.join(sys.argv[2] + "-seen", str(os.getpid())), "a") as file:
        print(self.dataset.epoch, os.environ.get("WORLD_SIZE", 1), index, file=file)
    return fetch(self, index)
_Reporting.__getitem__ = note
from terradelta.cli import main
main(["train", sys.argv[1], "-o", sys.argv[2], *sys.argv[3:]])
"""


def start(folder, name, processes, *options, launcher=()):
    """Start a run in processes of its own."""
    (folder / f"{name}-seen").mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable]
    if processes > 1 or launcher:
        launcher = launcher or ("--standalone",)
        command += ["-m", "torch.distributed.run", *launcher, f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*command, str(program), str(folder / "recipe.yaml"), str(folder / name), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(folder, name="two", processes=2, options=()):
    process = start(folder, name, processes, *options)
    stdout, stderr = process.communicate(timeout=500)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def count_epochs(run):
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def kill_family(process):
    """Kill a process and all that it has started, at once."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.communicate()


def read_weights(run):
    """Return all weights as one vector, but for batch statistics: each process has its own."""
    tensors = load_file(run / "last" / "model.safetensors")
    return torch.cat(
        [
            tensor.flatten()
            for key, tensor in tensors.items()
            if "running" not in key and "num_batches" not in key
        ]
    )


def read_seen(folder, name):
    """Return the pairs that were drawn, by epoch and number of processes."""
    seen = defaultdict(list)
    for path in (folder / f"{name}-seen").iterdir():
        for line in path.read_text().splitlines():
            epoch, processes, index = map(int, line.split())
            seen[epoch, processes].append(index)
    return seen


@pytest.fixture
def config(tmp_path):
    """A recipe of 18 training pairs: six batches an epoch, three steps of two."""
    write_folders(tmp_path / "drawn", 20, seed=1, size_px=64)
    config = TrainConfig(
        data=str(tmp_path / "drawn"),
        encoder="resnet18_slim",
        epochs=1,
        batch_size=3,
        precision="fp32",
        # Its steps are as long as the gradients; Adam's go by the sign of what may be rounding.
        optimizer="sgd",
        learning_rate=0.01,
        gradient_clip_norm=0.5,
        workers=0,
        picture_pairs=0,
    )
    config.write_yaml(tmp_path / "recipe.yaml")
    return config


def test_two_processes_train_as_one_of_two_batches_a_step(config, tmp_path, monkeypatch):
    finished = launch(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("best epoch 1") == 1
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, features: features)
    train(replace(config, accumulate_batches=2), tmp_path / "one")
    train(config, tmp_path / "other")
    weights = {name: read_weights(tmp_path / name) for name in ("two", "one", "other")}
    off = {name: (vector - weights["one"]).norm() for name, vector in weights.items()}
    assert off["two"] < 0.01 * off["other"]
    # The next epoch is learned by one process alone as by two.
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    replace(config, epochs=2).write_yaml(tmp_path / "recipe.yaml")
    resumed = launch(tmp_path, options=["--resume"])
    assert resumed.returncode == 0, resumed.stderr
    train(replace(config, epochs=2, accumulate_batches=2), tmp_path / "alone", resume=True)
    assert count_epochs(tmp_path / "two") == count_epochs(tmp_path / "alone") == 2
    seen = read_seen(tmp_path, "two")
    assert sorted(seen[0, 2]) == sorted(seen[1, 2]) == list(range(18))
    alone, both = (read_weights(tmp_path / name) for name in ("alone", "two"))
    assert (both - alone).norm() < 0.01 * off["other"]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_run_resumes_with_another_number_of_processes(
    config, tmp_path, monkeypatch, before, after
):
    """What goes on is as if the processes had always been so many; no pair is seen twice."""
    recipe = replace(config, epochs=3)
    recipe.write_yaml(tmp_path / "recipe.yaml")
    process = start(tmp_path, "run", before)
    while read_seen(tmp_path, "run")[1, before] == []:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    kill_family(process)
    done = count_epochs(tmp_path / "run")
    assert done == 1
    shutil.copytree(tmp_path / "run", tmp_path / "expected")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    resumed = launch(tmp_path, "run", after, ["--resume"])
    assert resumed.returncode == 0, resumed.stderr
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, features: features)
    for name, batches in (("expected", after), ("other", before)):
        train(replace(recipe, accumulate_batches=batches), tmp_path / name, resume=True)
    weights = {name: read_weights(tmp_path / name) for name in ("run", "expected", "other")}
    off = {name: (vector - weights["expected"]).norm() for name, vector in weights.items()}
    assert off["run"] < 0.01 * off["other"]
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("run", "expected")
    ]
    assert [row["epoch"] for row in logs[0]] == [1, 2, 3]
    for row, expected in zip(*logs, strict=True):
        assert row["loss_total"] == pytest.approx(expected["loss_total"], rel=0.02)
    seen = read_seen(tmp_path, "run")
    for epoch, processes in ((0, before), (1, after), (2, after)):
        assert sorted(seen[epoch, processes]) == list(range(18))


@pytest.mark.slow
def test_the_loss_of_a_node_restarts_the_epoch_on_what_is_left(config, tmp_path):
    """Two torchrun agents; one is killed with its process, the other goes on alone."""
    replace(config, epochs=4).write_yaml(tmp_path / "recipe.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("--nnodes=1:2", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=1")
    launcher += (f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-conf=last_call_timeout=5")
    first = start(tmp_path, "run", 1, "--resume", launcher=(*launcher, "--local-addr=127.0.0.1"))
    time.sleep(1)
    second = start(tmp_path, "run", 1, "--resume", launcher=(*launcher, "--local-addr=127.0.0.1"))
    while count_epochs(tmp_path / "run") < 1 or not read_seen(tmp_path, "run")[1, 2]:
        assert first.poll() is None, first.communicate()
        assert second.poll() is None, second.communicate()
        time.sleep(0.01)
    kill_family(second)
    printed, log = first.communicate()
    assert first.returncode == 0, log
    assert "best epoch" in printed
    assert count_epochs(tmp_path / "run") == 4
    seen = read_seen(tmp_path, "run")
    assert sorted(seen[0, 2]) == sorted(seen[3, 1]) == list(range(18))


def test_processes_share_the_batches_of_an_epoch():
    for num_pairs in range(6, 40):
        for processes in (2, 3):
            shares = [
                list(PairBatchSampler(num_pairs, 2, seed=4, rank=rank, processes=processes))
                for rank in range(processes)
            ]
            assert len({len(share) for share in shares}) == 1
            seen = [index for share in shares for batch in share for index in batch]
            assert len(seen) == len(set(seen))
            whole = list(PairBatchSampler(num_pairs, 2, seed=4))
            together = [batch for turn in zip(*shares, strict=True) for batch in turn]
            assert together == whole[: len(together)]
            assert len(whole) - len(together) < processes


def test_more_processes_than_batches_are_refused():
    with pytest.raises(ArgumentError, match="5 pairs make 2 batches of 2, fewer than the 3"):
        PairBatchSampler(5, 2, processes=3)
