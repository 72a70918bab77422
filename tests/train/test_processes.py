"""Two processes joined by gloo against one that does the work of both."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from terradelta.data.sampler import PairBatchSampler
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError
from terradelta.train.config import TrainConfig
from terradelta.train.loop import train

# A dropout draws other masks in other processes: that is all that would differ.
PROGRAM = """
import sys, torch
torch.nn.Dropout.forward = lambda self, features: features
torch.set_num_threads(1)
from terradelta.cli import main
main(["train", sys.argv[1], "-o", sys.argv[2], *sys.argv[3:]])
"""


def launch(folder, *options):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, str(program), str(folder / "recipe.yaml"), str(folder / "two"), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_train_as_one_of_two_batches_a_step(tmp_path, monkeypatch):
    write_folders(tmp_path / "drawn", 20, seed=1, size_px=64)
    config = TrainConfig(
        data=str(tmp_path / "drawn"),
        epochs=1,
        batch_size=3,
        precision="fp32",
        # Its steps are as long as the gradients; Adam's go by the sign of what may be rounding.
        optimizer="sgd",
        learning_rate=0.01,
        gradient_clip_norm=0.5,
        workers=0,
    )
    config.write_yaml(tmp_path / "recipe.yaml")
    finished = launch(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("best epoch 1") == 1
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, features: features)
    train(replace(config, accumulate_batches=2), tmp_path / "one")
    train(config, tmp_path / "other")
    # Batch statistics are each process's own.
    weights = {
        name: torch.cat(
            [
                tensor.flatten()
                for key, tensor in load_file(tmp_path / name / "last/model.safetensors").items()
                if "running" not in key and "num_batches" not in key
            ]
        )
        for name in ("two", "one", "other")
    }
    off = {name: (tensor - weights["one"]).norm() for name, tensor in weights.items()}
    assert off["two"] < 0.01 * off["other"]

    (tmp_path / "recipe.yaml").unlink()
    replace(config, epochs=2).write_yaml(tmp_path / "recipe.yaml")
    resumed = launch(tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 2


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
