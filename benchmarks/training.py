"""Training steps per second: the reference way, and terradelta's in float32 and bfloat16.

A step is the network on a batch, the objective with UAL, the gradients and Adam. The ways take
turns in one process. `--curves` trains small networks on the same drawn scenes from three seeds in
either format and prints their losses side by side. Run: `python benchmarks/training.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from terradelta.data.synthetic import draw_pair, write_folders
from terradelta.losses.objective import ChangeObjective
from terradelta.models.card import Scaling
from terradelta.models.registry import create_model
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train
from trained import WORK

SIZE_PX = 256
BATCH = 4
ROUNDS = 9
NETWORKS = (("fcn", "resnet18"), ("unet", "efficientnet_lite0"))
CURVE_SEEDS = (0, 1, 2)
CURVE_PAIRS = 96
CURVE_EPOCHS = 4


def make_step(name: str, encoder: str, *, channels_last: bool, bf16: bool) -> Callable[[], object]:
    """Return a function that takes one step on one batch of drawn pairs."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = create_model(name, encoder=encoder).to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    objective = ChangeObjective("ual")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)
    scaling = Scaling.for_encoder(encoder)
    scenes = [draw_pair(seed, SIZE_PX) for seed in range(BATCH)]
    before, after = (
        torch.stack([torch.from_numpy(getattr(scene, part)) for scene in scenes])
        for part in ("before_CHW", "after_CHW")
    )
    labels = [
        torch.stack([torch.from_numpy(scene.labels[date]).long() for scene in scenes])
        for date in (0, 1)
    ]

    def step():
        images = [scaling.apply(part).contiguous(memory_format=layout) for part in (before, after)]
        autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
        with autocast:
            output = network(*images)
        objective(output, *labels).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_steps() -> list[dict]:
    """Return a row for each network and way."""
    rows = []
    for name, encoder in NETWORKS:
        ways = {
            "reference: float32, contiguous": make_step(
                name, encoder, channels_last=False, bf16=False
            ),
            "terradelta fp32": make_step(name, encoder, channels_last=True, bf16=False),
            "terradelta bf16": make_step(name, encoder, channels_last=True, bf16=True),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS + 1):
            for way, step in ways.items():
                started = time.perf_counter()
                step()
                seconds[way].append(time.perf_counter() - started)
        reference, *_ = (taken[1:] for taken in seconds.values())
        for way, taken in seconds.items():
            ratios = [a / b for a, b in zip(reference, taken[1:], strict=True)]
            quartiles = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "network": f"{name}, {encoder}",
                    "way": way,
                    "pairs/s": f"{BATCH / statistics.median(taken[1:]):.2f}",
                    "ratio": f"{statistics.median(ratios):.2f}",
                    "quartiles": f"{quartiles[0]:.2f} - {quartiles[2]:.2f}",
                }
            )
    return rows


def measure_curves() -> list[dict]:
    """Return the losses after each epoch, mean and spread over seeds, by number format."""
    write_folders(WORK / "curves", CURVE_PAIRS, 21, overwrite=True)
    rows = []
    for precision in ("fp32", "bf16"):
        runs = []
        for seed in CURVE_SEEDS:
            print(f"training in {precision}, seed {seed}", file=sys.stderr)
            config = TrainConfig(
                data=str(WORK / "curves"),
                encoder="resnet18",
                epochs=CURVE_EPOCHS,
                batch_size=BATCH,
                crop_size_px=128,
                learning_rate=0.0004,
                precision=precision,
                seed=seed,
            )
            folder = WORK / f"curve_{precision}_{seed}"
            train(config, folder, overwrite=True)
            runs.append(read_losses(folder / "log.csv"))
        row: dict = {"precision": precision}
        for epoch, losses in enumerate(zip(*runs, strict=True), start=1):
            row[f"epoch {epoch}"] = (
                f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}"
            )
        rows.append(row)
    return rows


def read_losses(path: Path) -> list[float]:
    """Return the training loss of each epoch."""
    with path.open(newline="") as file:
        return [float(row["loss_total"]) for row in csv.DictReader(file)]


def measure() -> dict[str, list[dict]]:
    """Return the table of this file."""
    return {f"Training steps: batch {BATCH}, {SIZE_PX} px, {ROUNDS} rounds": measure_steps()}


def main():
    """Measure and print."""
    from tables import print_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", action="store_true", help="losses by number format instead")
    if parser.parse_args().curves:
        title = f"Loss (mean ± standard deviation over seeds {CURVE_SEEDS}), {CURVE_PAIRS} pairs"
        print_tables({title: measure_curves()})
    else:
        print_tables(measure())


if __name__ == "__main__":
    main()
