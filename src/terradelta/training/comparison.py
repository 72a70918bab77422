"""Compares two recipes, each trained with several seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.bootstrap import Difference
from terradelta.evaluation.seeds import SeedSummary, compare_seeds, summarize_seeds
from terradelta.outputs import null_undefined
from terradelta.training.config import TrainConfig
from terradelta.training.record import TEST_FILE, read_test

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class RunComparison:
    """Two recipes, each trained with several seeds."""

    protocol: str
    seeds: tuple[int, ...]
    first: dict[str, SeedSummary]
    second: dict[str, SeedSummary]
    differences: dict[str, Difference]
    """Difference of first minus second, paired by seed."""
    changed_options: dict[str, tuple[object, object]]
    """The options in which the recipes differ."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; numbers that are undefined (nan) become None."""
        return null_undefined(asdict(self))


def compare(
    first: Sequence[str | Path], second: Sequence[str | Path], protocol: str = "second"
) -> RunComparison:
    """Compare the test numbers of two recipes' run folders, paired by seed.

    Args:
        first: Run folders of one recipe, each with a test.json, as `train` leaves it where the
            data set has a test split.
        second: Run folders of the other, with the same seeds, in any order.
        protocol: "second", "from-to" or "ual".

    Raises:
        ArgumentError: If seeds differ or occur twice, or the runs of a recipe differ in more
            than their seed.
        DataError: If a folder is not a finished run or has no test numbers of that protocol.
    """
    runs = [_read_runs(folders, protocol) for folders in (first, second)]
    recipes = [_share_recipe(by_seed) for by_seed in runs]
    seeds = tuple(sorted(runs[0]))
    if seeds != tuple(sorted(runs[1])):
        raise ArgumentError(
            f"the seeds are {_list(runs[0])} and {_list(runs[1])}",
            fix="train both recipes with the same seeds",
        )
    numbers = [
        {name: [by_seed[seed][1][name] for seed in seeds] for name in by_seed[seeds[0]][1]}
        for by_seed in runs
    ]
    if numbers[0].keys() != numbers[1].keys():
        raise ArgumentError("the runs have different classes", fix="compare runs on one data set")
    summaries = [{name: summarize_seeds(v) for name, v in part.items()} for part in numbers]
    mine, theirs = recipes
    changed = {name: (value, theirs[name]) for name, value in mine.items() if theirs[name] != value}
    return RunComparison(
        protocol,
        seeds,
        summaries[0],
        summaries[1],
        {name: compare_seeds(values, numbers[1][name]) for name, values in numbers[0].items()},
        changed,
    )


def _read_runs(
    folders: Sequence[str | Path], protocol: str
) -> dict[int, tuple[TrainConfig, dict[str, float]]]:
    runs: dict[int, tuple[TrainConfig, dict[str, float]]] = {}
    for folder in map(Path, folders):
        config = _read_config(folder)
        if config.seed in runs:
            raise ArgumentError(
                f"two runs have the seed {config.seed}, {folder} is the second",
                fix="give each seed once",
            )
        runs[config.seed] = config, _read_numbers(folder / TEST_FILE, protocol)
    if not runs:
        raise ArgumentError("no run was given", fix="name one or more run folders")
    return runs


def _read_config(folder: Path) -> TrainConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} is not a run: it has no {CONFIG_FILE}", fix="give train's output"
        )
    return TrainConfig.read_yaml(path)


def _read_numbers(path: Path, protocol: str) -> dict[str, float]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: the run is not finished, or its data have no test split",
            fix="finish it with --resume, or score the models with evaluate --against",
        )
    protocols = read_test(path).protocols
    if protocol not in protocols:
        raise DataError(
            f"{path} has no numbers of the protocol {protocol!r}",
            fix=f"use one of {', '.join(protocols)}",
        )
    return {k: math.nan if v is None else v for k, v in protocols[protocol].items()}


def _share_recipe(runs: Mapping[int, tuple[TrainConfig, object]]) -> dict[str, object]:
    """Return the recipe of runs that differ only in their seed, without the seed."""
    recipes = [{**config.to_dict(), "seed": None} for config, _ in runs.values()]
    for seed, recipe in zip(runs, recipes, strict=True):
        off = [name for name, value in recipe.items() if value != recipes[0][name]]
        if off:
            raise ArgumentError(
                f"the run with the seed {seed} has different values of {', '.join(off)} than its"
                " siblings",
                fix="compare one recipe with another, each with several seeds",
            )
    return recipes[0]


def _list(seeds: Mapping[int, object]) -> str:
    return ", ".join(map(str, sorted(seeds)))
