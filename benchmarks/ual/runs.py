"""The runs of the leaderboard, trained in turn until all are done.

A run is a benchmark, a consistency loss, a network, an encoder and a seed. Everything else is the
same for all: steps, rates, augmentation, the epoch chosen on the validation split, the numbers
taken on the test split. Runs that share benchmark, network, encoder and seed start from the same
weights and see the same crops in the same order, so their differences are paired. Each finished run
is a line of runs.jsonl, and an interrupted command resumes. Run, after data.py:

    python benchmarks/ual/runs.py --data DIR --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
RUNS = HERE / "runs.jsonl"
BENCHMARKS = ("composed", "naip", "drawn")
RIVALS = ("none", "ual", "ual-probability", "cosine", "mse")
LOSSES = (*RIVALS, "agreement")
"""With our own attempt at a better one, which is compared on the main network only."""
ENCODERS = {"resnet18": None, "efficientnet_lite0": "imagenet"}
"""Encoders, and the weights they start from: ResNet's ImageNet weights are not on PyPI."""
MAIN_MODEL = ("fcn", "resnet18")
WEIGHTED = (("ual-probability", 2.0),)
"""Losses that the main network is also trained with at another weight."""
MAIN_SEEDS = 5
OTHER_SEEDS = 1
EPOCHS = 6
PROTOCOLS = ("second", "from-to", "ual")
THREADS_PER_JOB = "1"


@dataclass(frozen=True)
class Run:
    """One line of the leaderboard's raw results."""

    benchmark: str
    """Folder of the data set."""
    loss: str
    """Consistency loss."""
    model: str
    """Architecture."""
    encoder: str
    """Its encoder."""
    seed: int
    """Seed of weights, order and augmentation."""
    weight: float = 0.5
    """Weight of the consistency loss in the change term."""

    @property
    def name(self) -> str:
        """A name for its folder."""
        fields = asdict(self)
        if self.weight == Run.weight:
            del fields["weight"]
        return "-".join(map(str, fields.values()))


def plan(
    benchmarks: Sequence[str] = BENCHMARKS,
    main_seeds: int = MAIN_SEEDS,
    other_seeds: int = OTHER_SEEDS,
) -> Iterator[Run]:
    """Yield all runs, the ones needed for any comparison first.

    Seed by seed, so that after an early stop all losses have the same number of runs.
    """
    losses, rivals = ([(loss, Run.weight) for loss in names] for names in (LOSSES, RIVALS))
    yield from _cross((MAIN_MODEL,), losses, benchmarks, main_seeds)
    others = [(model, encoder) for encoder in ENCODERS for model in ("fcn", "pspnet")]
    others.remove(MAIN_MODEL)
    yield from _cross(others, rivals, benchmarks, other_seeds)
    yield from _cross((MAIN_MODEL,), WEIGHTED, benchmarks, main_seeds)


def _cross(
    networks: Sequence[tuple[str, str]],
    losses: Sequence[tuple[str, float]],
    benchmarks: Sequence[str],
    seeds: int,
) -> Iterator[Run]:
    for seed in range(seeds):
        for model, encoder in networks:
            for benchmark in benchmarks:
                for loss, weight in losses:
                    yield Run(benchmark, loss, model, encoder, seed, weight)


def train_and_score(run: Run, data: Path, work: Path, epochs: int) -> dict:
    """Return the run's line."""
    from terradelta.evaluation.model_scores import evaluate
    from terradelta.training.config import TrainConfig
    from terradelta.training.loop import train

    config = TrainConfig(
        data=str(data / run.benchmark),
        model=run.model,
        encoder=run.encoder,
        encoder_weights=ENCODERS[run.encoder],
        loss=run.loss,  # pyright: ignore[reportArgumentType]
        consistency_weight=run.weight,
        epochs=epochs,
        batch_size=8,
        learning_rate=3e-4,
        brightness=0.15,
        contrast=0.15,
        swap_dates=True,
        seed=run.seed,
        workers=0,
    )
    started = time.monotonic()
    result = train(config, work / run.name, overwrite=True)
    seconds = time.monotonic() - started
    best = result.folder / "best"
    numbers = {
        protocol: evaluate(best, data / run.benchmark, split="test", protocol=protocol).numbers
        for protocol in PROTOCOLS
    }
    log = (result.folder / "log.jsonl").read_text().splitlines()
    shutil.rmtree(result.folder / "checkpoints")
    return {
        **asdict(run),
        "epochs": epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(seconds, 1),
        "commit": read_commit(),
        "validation": [round(json.loads(line)["score"] or 0, 4) for line in log],
        "test": numbers,
    }


def read_commit() -> str:
    """Return the commit of this checkout, with a + if files have changed since."""
    commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "src"])
    commit, changes = (
        subprocess.run(["git", *command], cwd=HERE, capture_output=True, text=True).stdout.strip()
        for command in commands
    )
    return commit + ("+" if changes else "")


def read_runs(path: Path = RUNS) -> dict[Run, dict]:
    """Return the existing lines, by run."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    # Old lines have no weights.
    known = Run.__dataclass_fields__
    return {Run(**{key: line[key] for key in known if key in line}): line for line in lines}


def work_off(options: argparse.Namespace):
    """Train every run of this job's part that has no line yet."""
    runs = plan(options.benchmarks, options.seeds, options.other_seeds)
    for index, run in enumerate(runs):
        if index % options.jobs != options.job or run in read_runs():
            continue
        print(f"{time.strftime('%H:%M:%S')} {run.name}", file=sys.stderr, flush=True)
        line = json.dumps(train_and_score(run, options.data, options.work, options.epochs))
        # One short write at the end of the file: jobs do not mix their lines.
        with RUNS.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def main():
    """Start the jobs and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="what data.py has written")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--benchmarks", nargs="*", default=BENCHMARKS, choices=BENCHMARKS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=MAIN_SEEDS, help="of the main network")
    parser.add_argument("--other-seeds", type=int, default=OTHER_SEEDS, help="of the others")
    parser.add_argument("--job", type=int, help="which of them this process is; all by default")
    options = parser.parse_args()
    if options.job is not None:
        work_off(options)
        return
    environment = os.environ | {"OMP_NUM_THREADS": THREADS_PER_JOB}
    processes = [
        subprocess.Popen([sys.executable, *sys.argv, "--job", str(number)], env=environment)
        for number in range(options.jobs)
    ]
    if any(process.wait() for process in processes):
        sys.exit("a job failed; the same command resumes where it stopped")


if __name__ == "__main__":
    main()
