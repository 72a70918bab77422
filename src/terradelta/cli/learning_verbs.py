"""Verbs that train networks and measure them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from terradelta.cli.application import (
    Json,
    Networks,
    Output,
    Overwrite,
    Protocol,
    Split,
    app,
)
from terradelta.cli.results import (
    print_comparison,
    print_pseudo_labels,
    print_run,
    print_run_comparison,
    print_scores,
)
from terradelta.flags import read_list
from terradelta.inference.prediction_options import BackendName, PrecisionName, Runtime, Views
from terradelta.training.config import TrainConfig

_recipe = Group("Recipe", sort_key=1)


@app.command
def train(
    source: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    config: Annotated[TrainConfig, Parameter(name="*", group=_recipe)] = TrainConfig(),  # noqa: B008
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
):
    """Train a network on labelled pairs; the defaults are the reference recipe.

    Without an output nothing is trained: the data set is examined, and a recipe for it printed as
    YAML, to edit and to pass as the source.

    Args:
        source: Data set (a folder or a CSV), or a YAML recipe; options given here override it.
        config: The recipe.
        output: Run folder: best/ and last/ model, log.csv, config.yaml, pictures/, checkpoints/.
        resume: Resume after the last finished epoch of OUTPUT.
        overwrite: Start again in an OUTPUT that holds a run.
    """
    from dataclasses import replace

    if not is_recipe(source):
        config = replace(config, data=source)
    if output is None:
        from terradelta.training.inferred_recipe import infer_plan

        print(infer_plan(config).to_yaml(), end="")
        return
    from terradelta.destination import claim_folder
    from terradelta.training.loop import train as run_train

    if is_recipe(source) and not resume:
        claim_folder(output, [source], overwrite=overwrite)
    result = run_train(config, output, resume=resume, overwrite=overwrite)
    if result.rank == 0:
        print_run(result)


@app.command
def evaluate(
    model: str,
    data: str,
    /,
    *,
    split: Split = "val",
    protocol: Protocol = "second",
    against: str | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    runtime: Networks = Runtime(),  # noqa: B008
    overwrite: Overwrite = False,
    as_json: Json = False,
):
    """Score a model on a labelled data set, alone or against another.

    Args:
        model: Model folder, or several that vote: M1,M2.
        data: Data set: a folder in a known layout, or a CSV.
        split: Split of the data set.
        protocol: How pixels are counted; numbers of different protocols are not comparable.
        against: Another model, or several that vote: print differences, image by image.
        bootstrap: How many sets of images to draw for 95 % intervals; with --against 1000 by
            default, otherwise none.
        seed: Seed of the drawing.
        output: Folder to write: numbers of all protocols, IoU by class, transitions, outlines of
            change, reliability of the probabilities.
        runtime: How the networks are run.
        overwrite: Replace an existing OUTPUT.
        as_json: Print one JSON object.
    """
    from terradelta.evaluation import model_scores

    options = {
        "split": split,
        "protocol": protocol,
        "seed": seed,
        "output": output,
        "overwrite": overwrite,
        "runtime": runtime,
    }
    if against is None:
        scores = model_scores.evaluate(read_list(model), data, bootstrap=bootstrap, **options)
        print_scores(scores, as_json)
    else:
        replicates = model_scores.DEFAULT_REPLICATES if bootstrap is None else bootstrap
        names = read_list(model), read_list(against)
        comparison = model_scores.compare_models(*names, data, bootstrap=replicates, **options)
        print_comparison(comparison, as_json)
    if output is not None:
        print(f"diagnosis in {output}", file=sys.stderr)


@app.command
def calibrate(
    model: Path,
    data: str,
    /,
    *,
    split: Split = "val",
    device: str = "auto",
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
):
    """Calibrate a model's probabilities by temperatures stored in it; its maps stay the same.

    Args:
        model: Model folder.
        data: Labelled pairs that it was not trained on: a folder in a known layout, or a CSV.
        split: Split of the data set.
        device: auto, cpu, cuda or cuda:N.
        backend: Runtime of the network.
        precision: fp32 is exact; the others are faster.
    """
    from terradelta.evaluation.temperatures import calibrate as run_calibrate

    fitted = run_calibrate(
        model, data, split=split, device=device, backend=backend, precision=precision
    )
    print(
        f"calibrated {model}: logits of change divided by {fitted.change:.3g}, of classes by "
        f"{fitted.classes:.3g}"
    )


@app.command
def score(
    predictions: Path,
    labels: Path,
    /,
    *,
    protocol: Protocol = "second",
    against: Path | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    as_json: Json = False,
):
    """Score predicted masks against labels of the same names.

    Args:
        predictions: Folder with before/ after/, im1/ im2/ or label1/ label2/.
        labels: Folder with the true masks, named alike, and classes.json if the classes are not
            those of SECOND.
        protocol: How pixels are counted; numbers of different protocols are not comparable.
        against: Folder of other predictions: print differences, image by image.
        bootstrap: How many sets of images to draw for 95 % intervals; with --against 1000 by
            default, otherwise none.
        seed: Seed of the drawing.
        as_json: Print one JSON object.
    """
    from terradelta.evaluation import scoring

    if against is None:
        scores = scoring.score(
            predictions, labels, protocol=protocol, bootstrap=bootstrap, seed=seed
        )
        print_scores(scores, as_json)
        return
    replicates = bootstrap or scoring.DEFAULT_REPLICATES
    comparison = scoring.compare_masks(
        predictions, against, labels, protocol=protocol, bootstrap=replicates, seed=seed
    )
    print_comparison(comparison, as_json)


@app.command
def compare(first: str, second: str, /, *, protocol: Protocol = "second", as_json: Json = False):
    """Compare the test numbers of two recipes, each trained with several seeds.

    Args:
        first: Run folders of one recipe: RUN1,RUN2,RUN3.
        second: Run folders of the other, with the same seeds.
        protocol: Protocol of the numbers.
        as_json: Print one JSON object.
    """
    from terradelta.training.comparison import compare as run_compare

    print_run_comparison(run_compare(read_list(first), read_list(second), protocol), as_json)


@app.command
def pseudo_label(
    models: str,
    data: str,
    /,
    *,
    output: Output,
    confidence: float = 0.9,
    agreement: Literal["dates", "models"] = "dates",
    views: Views = "seed6",
    recipe: Path | None = None,
    rounds: int = 1,
    models_per_round: int = 1,
    device: str = "auto",
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
):
    """Label the land cover of unchanged ground by a vote of models, and train on it.

    Without a recipe, the data set is OUTPUT/data.csv. With one, it is in OUTPUT/round-1/labels, and
    OUTPUT/round-1/run-SEED is a run on it, whose model votes in the next round.

    Args:
        models: Model folders that vote: M1,M2.
        data: Labelled pairs: a folder in a known layout, or a CSV; training pairs get labels.
        output: Folder to make.
        confidence: Least mean probability of the class, at each date.
        agreement: What must agree on the class: the vote at both dates, or also every single model.
        views: Flips and rotations that each model averages.
        recipe: YAML recipe to train with, for instance a run's config.yaml.
        rounds: Number of rounds of labelling and training.
        models_per_round: Models to train in each round, with seeds one apart.
        device: auto, cpu, cuda or cuda:N; for labelling only; training uses the recipe's.
        resume: Resume an OUTPUT that was left unfinished.
        overwrite: Replace an existing OUTPUT.
        as_json: Print one JSON object for each round.
    """
    from terradelta.training.pseudo_labels import VotingRule, label_unchanged

    rule = VotingRule(confidence, agreement, views)
    voters = read_list(models)
    if recipe is None:
        _require_recipe(rounds, models_per_round, resume)
        report = label_unchanged(voters, data, output, rule, device=device, overwrite=overwrite)
        print(json.dumps(report.to_dict())) if as_json else print_pseudo_labels(report.to_dict())
        return
    from terradelta.destination import claim_folder
    from terradelta.training import rounds as training

    if not resume:
        claim_folder(output, [recipe], overwrite=overwrite)
    done = training.pseudo_label(
        voters,
        data,
        output,
        TrainConfig.read_yaml(recipe),
        rule,
        rounds=rounds,
        models_per_round=models_per_round,
        resume=resume,
        overwrite=overwrite,
    )
    for one in done:
        if as_json:
            print(json.dumps(one.to_dict()))
            continue
        print_pseudo_labels(one.report)
        for result in one.results:
            print_run(result)


def _require_recipe(rounds: int, models_per_round: int, resume: bool):
    from terradelta.errors import ArgumentError

    if rounds != 1 or models_per_round != 1 or resume:
        raise ArgumentError(
            "rounds, models per round and resuming need a recipe, and none was given",
            fix="add --recipe runs/a/config.yaml",
        )


def is_recipe(source: str) -> bool:
    """Return whether the source of `train` is a YAML file."""
    return Path(source).suffix.lower() in (".yaml", ".yml")
