r"""The table of the UAL paper: {FCN, PSPNet} x {ResNet-18, ResNet-34}, with UAL and without.

For those who hold SECOND or SenseEarth2020 (neither is available here, and their numbers are not
known to us). One line trains and scores everything; after an interruption it resumes:

    python benchmarks/ual/paper.py SECOND -o runs/paper --seeds 3 \
        --weights resnet18=resnet18.pth resnet34=resnet34.pth

`--weights` are ImageNet weights in torchvision's layout, as the paper's runs started from; without
them networks start from random weights. The recipe is the reference's. OUTPUT/table.md holds the
means over seeds and the differences from training without UAL, by every protocol: of the test
split, or, where the data names none, of the validation split, which has chosen the epochs and is
therefore optimistic.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

from terradelta.evaluation.model_scores import evaluate
from terradelta.evaluation.scoring_protocols import PROTOCOLS
from terradelta.evaluation.seeds import compare_seeds, summarize_seeds
from terradelta.outputs import write_json
from terradelta.training.comparison import TEST_FILE
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train

sys.path.append(str(Path(__file__).parents[1]))
from tables import Tables, format_tables

BASELINE = "none"
NUMBERS = {
    "second": ("score", "miou", "sek", "fscd"),
    "from-to": ("score", "fscd"),
    "ual": ("score", "miou_change", "miou_semantic"),
}
VALIDATION_FILE = "validation.json"


def main():
    """Train what has not been trained, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="SECOND, SenseEarth2020 or another data set in a known layout")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["fcn", "pspnet"])
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet34"])
    parser.add_argument("--losses", nargs="+", default=[BASELINE, "ual", "ual-probability"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="ENCODER=FILE")
    parser.add_argument("--recipe", type=Path, help="YAML; by default the reference's")
    options = parser.parse_args()
    weights = dict(pair.split("=", 1) for pair in options.weights)
    recipe = TrainConfig.read_yaml(options.recipe) if options.recipe else TrainConfig()
    lines = []
    # Seed by seed, so that after an early stop all recipes have the same number of runs.
    for seed, model, encoder, loss in product(
        range(options.seeds), options.models, options.encoders, options.losses
    ):
        config = replace(
            recipe,
            data=options.data,
            model=model,
            encoder=encoder,
            encoder_weights=weights.get(encoder),
            loss=loss,
            seed=seed,
        )
        run = options.output / f"{model}-{encoder}-{loss}-{seed}"
        protocols, split = run_one(config, run)
        line = {"model": model, "encoder": encoder, "loss": loss, "seed": seed, "test": protocols}
        lines.append(line)
        table = f"Numbers of the {split} split.\n\n{format_tables(tabulate(lines))}"
        (options.output / "table.md").write_text(table, encoding="utf-8")
    print((options.output / "table.md").read_text(encoding="utf-8"))


def run_one(config: TrainConfig, run: Path) -> tuple[dict[str, dict], str]:
    """Train unless it is done, and return the numbers by protocol and their split."""
    train(config, run, resume=run.exists())
    if (run / TEST_FILE).exists():
        return json.loads((run / TEST_FILE).read_text(encoding="utf-8"))["protocols"], "test"
    held_out = run / VALIDATION_FILE
    if not held_out.exists():
        numbers = {
            name: evaluate(run / "best", config.data or "", split="val", protocol=name).to_dict()
            for name in PROTOCOLS
        }
        write_json(held_out, numbers)
    return json.loads(held_out.read_text(encoding="utf-8")), "validation"


def tabulate(lines: list[dict]) -> Tables:
    """Return a table for each protocol, a row for each network and loss."""
    tables: Tables = {}
    for protocol, names in NUMBERS.items():
        rows = []
        for model, encoder, loss in dict.fromkeys(
            (line["model"], line["encoder"], line["loss"]) for line in lines
        ):
            row = {"network": f"{model} {encoder}", "loss": loss}
            for name in names:
                values, others = (
                    {
                        line["seed"]: line["test"][protocol][name]
                        for line in lines
                        if (line["model"], line["encoder"], line["loss"]) == (model, encoder, which)
                    }
                    for which in (loss, BASELINE)
                )
                row[name] = describe(values, {} if loss == BASELINE else others)
            rows.append(row)
        tables[f"protocol {protocol}"] = rows
    return tables


def describe(values: dict[int, float | None], others: dict[int, float | None]) -> str:
    """Return mean and spread, and the paired difference from others with its interval."""
    known = [value for value in values.values() if value is not None]
    if not known:
        return "undefined"
    summary = summarize_seeds(known)
    text = f"{summary.mean:.4f}"
    if summary.seeds > 1:
        text += f" ± {summary.standard_deviation:.4f}"
    if summary.seeds < len(values):
        text += f", {summary.seeds} of {len(values)} seeds"
    pairs = [
        (value, other)
        for seed, value in values.items()
        if value is not None and (other := others.get(seed)) is not None
    ]
    if pairs:
        found = compare_seeds(*map(list, zip(*pairs, strict=True)))
        text += f" ({found.value:+.4f}"
        if len(pairs) > 1:
            text += f" [{found.interval.low:+.4f}, {found.interval.high:+.4f}]"
        text += ")"
    return text


if __name__ == "__main__":
    main()
