"""The leaderboard: tables of runs.jsonl, with the uncertainty of each difference.

Run: `python benchmarks/ual/table.py`. It writes results.md, differences.png and curves.png.

A loss is compared with `none` in pairs that share benchmark, network, encoder and seed. Intervals
are Student's, over seeds. Over several benchmarks the numbers of a seed are averaged first.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from runs import BENCHMARKS, HERE, LOSSES, MAIN_MODEL, WEIGHTED, Run, read_runs

from terradelta.evaluation.bootstrap import Difference
from terradelta.evaluation.seeds import compare_seeds, summarize_seeds

sys.path.append(str(HERE.parent))
from tables import Tables, format_tables

BASELINE = "none"
NUMBERS = (
    ("second", "score"),
    ("second", "miou"),
    ("second", "sek"),
    ("second", "fscd"),
    ("from-to", "score"),
    ("from-to", "fscd"),
    ("ual", "score"),
    ("ual", "miou_change"),
    ("ual", "miou_semantic"),
)
Recipe = tuple[str, float]
"""A loss and its weight."""
RECIPES: tuple[Recipe, ...] = (*((loss, Run.weight) for loss in LOSSES), *WEIGHTED)
Network = tuple[str, str]
Lines = Mapping[Run, dict]


def main():
    """Write the tables and the pictures."""
    lines = read_runs()
    networks = list(dict.fromkeys((run.model, run.encoder) for run in lines))
    tables: Tables = {}
    for protocol, number in NUMBERS:
        title = f"{number}, protocol {protocol}, {' '.join(MAIN_MODEL)}"
        tables[title] = tabulate_losses(lines, MAIN_MODEL, protocol, number)
    for protocol, number in (("second", "score"), ("ual", "miou_semantic")):
        for benchmark in BENCHMARKS:
            tables[f"{number}, protocol {protocol}, all networks on {benchmark}"] = [
                row
                for network in networks
                for row in tabulate_network(lines, network, protocol, number, benchmark)
            ]
    commits = ", ".join(sorted({line["commit"] for line in lines.values()}))
    epochs = ", ".join(sorted({str(line["epochs"]) for line in lines.values()}))
    head = f"{len(lines)} runs of {epochs} epochs each, commit {commits}. Written by table.py.\n"
    (HERE / "results.md").write_text(f"# Leaderboard\n\n{head}\n{format_tables(tables)}")
    draw_differences(lines, HERE / "differences.png")
    draw_curves(lines, HERE / "curves.png")


def find_values(
    lines: Lines, network: Network, recipe: Recipe, read: Callable[[dict], float | None]
) -> dict[str, dict[int, float]]:
    """Return a number of the runs by benchmark and seed."""
    found: dict[str, dict[int, float]] = {name: {} for name in BENCHMARKS}
    for run, line in lines.items():
        if (run.model, run.encoder) == network and (run.loss, run.weight) == recipe:
            value = read(line)
            found[run.benchmark][run.seed] = float("nan") if value is None else value
    return found


def pair(
    lines: Lines,
    network: Network,
    recipe: Recipe,
    read: Callable[[dict], float | None],
    benchmarks: Sequence[str] = BENCHMARKS,
) -> tuple[list[float], list[float]]:
    """Return means over benchmarks by seed, of a recipe and the baseline: seeds that all have."""
    mine, theirs = (
        find_values(lines, network, which, read) for which in (recipe, (BASELINE, Run.weight))
    )
    seeds = set.intersection(*(set(part[name]) for part in (mine, theirs) for name in benchmarks))
    values, others = (
        [statistics.fmean(part[name][seed] for name in benchmarks) for seed in sorted(seeds)]
        for part in (mine, theirs)
    )
    return values, others


def tabulate_losses(lines: Lines, network: Network, protocol: str, number: str) -> list[dict]:
    """Return a row for each recipe: mean and difference on each benchmark, and over all."""
    rows = []
    for recipe in RECIPES:
        row = {"loss": name_recipe(recipe)}
        for title, names in (*((name, [name]) for name in BENCHMARKS), ("all three", BENCHMARKS)):
            values, others = pair(lines, network, recipe, _reader(protocol, number), names)
            if values:
                row[title] = _describe(recipe, values, others)
        rows.append(row)
    return [row for row in rows if len(row) > 1]


def tabulate_network(
    lines: Lines, network: Network, protocol: str, number: str, benchmark: str
) -> list[dict]:
    """Return one row: the baseline's mean over seeds, and the differences from it."""
    read = _reader(protocol, number)
    row = {"network": " ".join(network)}
    for recipe in RECIPES:
        values, others = pair(lines, network, recipe, read, [benchmark])
        if not values:
            continue
        row["seeds"] = str(len(values))
        mean = statistics.fmean(values)
        difference = mean - statistics.fmean(others)
        row[name_recipe(recipe)] = f"{mean:.4f}" if recipe[0] == BASELINE else f"{difference:+.4f}"
    return [row] if len(row) > 1 else []


def draw_differences(lines: Lines, path: Path):
    """Draw the differences from the baseline with their intervals."""
    shown = (("second", "score"), ("ual", "miou_change"), ("ual", "miou_semantic"))
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (protocol, number) in zip(
        figure.subplots(1, len(shown), sharey=True), shown, strict=True
    ):
        begun = {(run.loss, run.weight) for run in lines}
        recipes = [recipe for recipe in RECIPES if recipe in begun and recipe[0] != BASELINE]
        for place, recipe in enumerate(recipes):
            for title, names in (*((n, [n]) for n in BENCHMARKS), ("all three", BENCHMARKS)):
                values, others = pair(lines, MAIN_MODEL, recipe, _reader(protocol, number), names)
                if len(values) < 2:
                    continue
                found = compare_seeds(values, others)
                offset = [*BENCHMARKS, "all three"].index(title)
                axes.errorbar(
                    found.value,
                    -place - (offset - 1.5) / 6,
                    xerr=[
                        [found.value - found.interval.low],
                        [found.interval.high - found.value],
                    ],
                    fmt="s" if title == "all three" else "o",
                    color=f"C{offset}" if title != "all three" else "black",
                    markersize=4,
                    label=title if place == 0 else None,
                )
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_yticks([-place for place in range(len(recipes))], map(name_recipe, recipes))
        axes.set_title(f"{number}, protocol {protocol}")
        axes.set_xlabel("difference from training without")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def draw_curves(lines: Lines, path: Path):
    """Draw the validation score by epoch, means over seeds."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, benchmark in zip(figure.subplots(1, len(BENCHMARKS)), BENCHMARKS, strict=True):
        for place, recipe in enumerate(RECIPES):
            curves = [
                line["validation"]
                for run, line in lines.items()
                if (run.model, run.encoder) == MAIN_MODEL
                and (run.benchmark, run.loss, run.weight) == (benchmark, *recipe)
            ]
            if curves:
                means = [statistics.fmean(scores) for scores in zip(*curves, strict=True)]
                style = "k--" if recipe[0] == BASELINE else f"C{place}-"
                axes.plot(range(1, len(means) + 1), means, style, label=name_recipe(recipe))
        axes.set(title=f"{benchmark}, validation", xlabel="epoch", ylabel="score, protocol second")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def name_recipe(recipe: Recipe) -> str:
    """Return the loss, and its weight if it is not the usual one."""
    loss, weight = recipe
    return loss if weight == Run.weight else f"{loss}, weight {weight:g}"


def _reader(protocol: str, number: str) -> Callable[[dict], float | None]:
    return lambda line: line["test"][protocol][number]


def _describe(recipe: Recipe, values: Sequence[float], others: Sequence[float]) -> str:
    summary = summarize_seeds(values)
    if recipe[0] == BASELINE:
        return f"{summary.mean:.4f} ± {summary.standard_deviation:.4f}"
    return f"{summary.mean:.4f}: {_format(compare_seeds(values, others))}"


def _format(found: Difference) -> str:
    low, high = found.interval.low, found.interval.high
    certain = "**" if low > 0 or high < 0 else ""
    return f"{certain}{found.value:+.4f}{certain} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
