"""Verbs that train networks and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from terradelta.cli.application import (
    Json,
    Overwrite,
    Precision,
    Protocol,
    Runtime,
    Split,
    app,
)
from terradelta.report.summary import print_run, print_scores
from terradelta.train.config import TrainConfig, Views

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

    Without an output nothing is trained: the data set is looked at, and a recipe for it printed as
    YAML, to be edited and given back.

    Args:
        source: Data set (a folder or a CSV), or a YAML recipe; options given here override it.
        config: The recipe.
        output: Run folder: best/ and last/ model, log.csv, config.yaml, pictures/, checkpoints/.
        resume: Go on after the last finished epoch of OUTPUT.
        overwrite: Start anew in an OUTPUT that holds a run.
    """
    from dataclasses import replace

    if not is_recipe(source):
        config = replace(config, data=source)
    if output is None:
        from terradelta.train.plan import infer_plan

        print(infer_plan(config).to_yaml(), end="")
        return
    from terradelta.train.loop import train as run_train

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
    tta: Views = "none",
    device: str = "auto",
    backend: Runtime = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
):
    """Score a model on a labelled data set.

    Args:
        model: Model folder, or several that vote: M1,M2.
        data: Data set: a folder in a known layout, or a CSV.
        split: Which part of it.
        protocol: How pixels are counted; numbers of different protocols do not compare.
        tta: Flips and turns whose answers are averaged.
        device: auto, cpu, cuda or cuda:N.
        backend: What runs the network.
        precision: bf16 is faster where the processor has it, int8 faster still for a model that
            has been quantized, fp32 exact.
        as_json: Print one JSON object.
    """
    from terradelta.evaluate.scoring import evaluate as run_evaluate

    scores = run_evaluate(
        model.split(","),
        data,
        split=split,
        protocol=protocol,
        tta=tta,
        device=device,
        backend=backend,
        precision=precision,
    )
    print_scores(scores, as_json)


@app.command
def score(
    predictions: Path, labels: Path, /, *, protocol: Protocol = "second", as_json: Json = False
):
    """Score predicted masks against labels of the same names.

    Args:
        predictions: Folder with before/ after/, im1/ im2/ or label1/ label2/.
        labels: Folder with the true masks, named alike.
        protocol: How pixels are counted; numbers of different protocols do not compare.
        as_json: Print one JSON object.
    """
    from terradelta.evaluate.scoring import score as run_score

    print_scores(run_score(predictions, labels, protocol=protocol), as_json)


def is_recipe(source: str) -> bool:
    """Return whether the source of `train` is a YAML file."""
    return Path(source).suffix.lower() in (".yaml", ".yml")
