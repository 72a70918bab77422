"""Rounds of pseudo-labels: models label the unchanged ground, new models learn from it, and so on.

Source: the idea is that of self-training with agreement, as in the winning solution of the
SenseEarth 2020 contest (README names it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from terradelta.data.layouts import list_inputs
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError, DataError
from terradelta.inputs import read_object
from terradelta.outputs import clear_output, null_undefined
from terradelta.ownership import is_made
from terradelta.training.config import TrainConfig
from terradelta.training.loop import TrainResult, train
from terradelta.training.network import list_start_files
from terradelta.training.processes import count_processes
from terradelta.training.pseudo_labels import (
    COUNTS_FILE,
    DATA_FILE,
    VotingRule,
    label_unchanged,
)


@dataclass(frozen=True)
class Round:
    """One round's folders and numbers."""

    labels: Path
    """The labelled data set, written by `label_unchanged`."""
    report: dict[str, Any]
    """Content of its pseudo_labels.json."""
    results: tuple[TrainResult, ...]
    """The models that learned from it."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; undefined numbers become None."""
        runs = [
            {"folder": str(result.folder), "val": result.scores, "test": result.test_scores}
            for result in self.results
        ]
        return null_undefined({"labels": self.report, "runs": runs})


def pseudo_label(
    models: Sequence[str | Path],
    data: str | Path,
    output: str | Path,
    recipe: TrainConfig,
    rule: VotingRule | None = None,
    *,
    rounds: int = 1,
    models_per_round: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Round]:
    """Label unchanged ground, train on it, and let the new models vote in the next round.

    OUTPUT/round-N/labels is the data set of round N, OUTPUT/round-N/run-S a run on it with seed S.
    Every round trains from the start and on the original images; only the labels of unchanged
    ground are new. With them, the classes get equal weights if the recipe has the reference's
    weights, as in the contest's winning solution: the reference's are for changed ground.

    Args:
        models: Model folders that vote in the first round.
        data: A data set folder in a known layout, or a CSV.
        output: Folder of the rounds.
        recipe: How to train; its data set is replaced, its seed is that of the first model.
        rule: Which answers become labels; None for the defaults.
        rounds: Number of rounds.
        models_per_round: Number of models to train in each, with seeds one apart; all of them vote
            in the next round.
        resume: Resume an unfinished OUTPUT.
        overwrite: Start again in an OUTPUT that holds rounds.

    Raises:
        ArgumentError: If a number is out of range, an unfinished OUTPUT was made with other
            options, or several processes run this.
        TerradeltaError: Same as in `label_unchanged` and `train`.
    """
    rule = rule or VotingRule()
    folder = Path(output)
    for name, number in (("rounds", rounds), ("models_per_round", models_per_round)):
        if number < 1:
            raise ArgumentError(f"{name} is {number}", fix="give 1 or more")
    per_node, nodes = count_processes()
    if per_node * nodes > 1:
        raise ArgumentError(
            f"{per_node * nodes} processes would write the same labels",
            fix="label in one process (terradelta pseudo-label without a recipe), then train",
        )
    if not (resume and is_made(folder / "round-1" / "labels")):
        inputs = [*models, *list_inputs(data), *list_start_files(recipe)]
        folder = claim_folder(folder, inputs, overwrite=overwrite)
        clear_output(folder)
    if recipe.class_weights is None and recipe.class_weight_rule == "reference":
        recipe = replace(recipe, class_weight_rule="equal")
    done = []
    voters = list(models)
    for number in range(1, rounds + 1):
        here = folder / f"round-{number}"
        labels = here / "labels"
        if labels.exists():
            _require_same_vote(labels, voters, rule)
        else:
            label_unchanged(voters, data, labels, rule, device=recipe.device)
        results = tuple(
            _train(replace(recipe, data=str(labels / DATA_FILE), seed=recipe.seed + index), here)
            for index in range(models_per_round)
        )
        report = _read_report(labels)
        done.append(Round(labels, report, results))
        voters = [result.folder / "best" for result in results]
    return done


def _read_report(labels: Path) -> dict[str, Any]:
    return read_object(labels / COUNTS_FILE, DataError, "label again with --overwrite")


def _train(config: TrainConfig, folder: Path) -> TrainResult:
    run = folder / f"run-{config.seed}"
    return train(config, run, resume=run.exists())


def _require_same_vote(labels: Path, voters: Sequence[str | Path], rule: VotingRule):
    written = _read_report(labels)
    asked = {"models": [str(voter) for voter in voters], "rule": asdict(rule)}
    there = {name: written.get(name) for name in asked}
    if there != asked:
        raise ArgumentError(
            f"{labels} was made with {there}, and now {asked} was given",
            fix="resume with the same options, or use --overwrite",
        )
