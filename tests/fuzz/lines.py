"""Command lines: those that work on the healthy files, and where a verb may write.

In a line here an option and its value are one word, `--seed=3`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from terradelta.areas.assessment import FILES as ASSESSMENT_FILES

from .corpus import NETWORK, PAIR, RUNTIME


@dataclass(frozen=True)
class Line:
    """A command line, taken apart."""

    verb: str
    positionals: tuple[str, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    """Flag and value, None for flags that take none."""

    @classmethod
    def parse(cls, text: str) -> Line:
        """Read a line that is written as above."""
        verb, *words = shlex.split(text)
        positionals = tuple(word for word in words if not word.startswith("--"))
        flags = (word.partition("=") for word in words if word.startswith("--"))
        return cls(
            verb,
            positionals,
            tuple((flag, value if equals else None) for flag, equals, value in flags),
        )

    def get(self, flag: str) -> str | None:
        """Return the value of an option, None where it is not given."""
        return dict(self.options).get(flag)

    def has(self, flag: str) -> bool:
        """Return whether an option is given."""
        return flag in dict(self.options)

    def put(self, flag: str, value: str | None) -> Line:
        """Return the line with an option set, instead of what it was or added."""
        kept = tuple(option for option in self.options if option[0] != flag)
        return replace(self, options=(*kept, (flag, value)))

    def swap(self, old: str, new: str) -> Line:
        """Return the line with a path instead of another, wherever it stands."""
        positionals = tuple(new if word == old else word for word in self.positionals)
        options = tuple((flag, new if value == old else value) for flag, value in self.options)
        return replace(self, positionals=positionals, options=options)

    @property
    def words(self) -> list[str]:
        """The line as a program gets it."""
        flags = (flag if value is None else f"{flag}={value}" for flag, value in self.options)
        return [self.verb, *self.positionals, *flags]

    @property
    def outputs(self) -> list[str]:
        """Files and folders that the verb may make or replace."""
        return [path for path in _list_outputs(self) if path]

    @property
    def inputs(self) -> list[str]:
        """Files and folders that the line names and that are not its outputs."""
        values = [value for flag, value in self.options if flag not in OUTPUT_FLAGS and value]
        return [
            part.split("#")[0]
            for text in (*self.positionals, *values)
            for piece in text.split(",")
            for part in piece.split(" + ")
        ]


OUTPUT_FLAGS = ("--output", "--fix", "--export")
IN_PLACE = ("report", "assess", "stats", "quantize", "calibrate", "merge")
"""Verbs that add to a folder that they read."""
RESUMABLE = ("predict", "merge", "train", "pseudo-label")
"""Verbs that leave unfinished work to go on with."""


def _list_outputs(line: Line) -> list[str]:
    first = line.positionals[0] if line.positionals else ""
    output = line.get("--output") or ""
    match line.verb:
        case "predict":
            return [output, f"{output}.partial"]
        case "merge":
            return [first, f"{first}.partial"]
        case "report":
            return [f"{first}/report.html"]
        case "stats":
            return [output or f"{first}/zones"]
        case "assess":
            # An empty path is the working directory, as for every other path.
            folder = Path("out" if line.get("--output") is None else output)
            return [str(folder / name) for name in ASSESSMENT_FILES]
        case "sample":
            return [output, f"{Path(output).with_suffix('')}_chips"]
        case "export":
            ending = {"deepness": "onnx", "openvino": "xml"}.get(line.get("--to") or "")
            made = output or f"{first}.{ending or line.get('--to')}"
            return [made, str(Path(made).with_suffix(".bin"))]
        case "quantize" | "calibrate":
            return [first]
        case "demo":
            return [output or "demo"]
        case _:
            return [output, *(line.get(flag) or "" for flag in OUTPUT_FLAGS)]


_PAIR = " ".join(PAIR)
_NETWORK = "--model=model --tile-size=320 --device=cpu --backend=torch --precision=fp32"
assert Line.parse(f"x {_NETWORK}").words[1:] == [
    f"{flag}={value}" for flag, value in zip(NETWORK[::2], NETWORK[1::2], strict=True)
]
_RUNTIME = " ".join(
    f"{flag}={value}" for flag, value in zip(RUNTIME[::2], RUNTIME[1::2], strict=True)
)
HEALTHY = {
    name: Line.parse(text)
    for name, text in {
        "check": f"check {_PAIR} --model=model",
        "check-json": f"check {_PAIR} --model=model --json",
        "check-aoi": f"check {_PAIR} --model=model --aoi=aoi.gpkg",
        "predict": f"predict {_PAIR} --output=new {_NETWORK}",
        "predict-aoi": f"predict {_PAIR} --output=new {_NETWORK} --aoi=aoi.gpkg",
        "predict-pieces": f"predict {_PAIR} --output=new {_NETWORK} --cog-size=512",
        "predict-all": f"predict {_PAIR} --output=new {_NETWORK} --picture "
        "--min-area=2m2 --grid=EPSG:32633@0.7 --vector=parquet",
        "predict-listed": f"predict mosaic.txt scene/after.tif --output=new {_NETWORK}",
        "predict-items": "predict pieces/items.json#change pieces/items.json#change "
        f"--output=new {_NETWORK} --bands=1,1,1",
        "predict-bands": "predict 'rasters/tiled.tif + rasters/strips.tif' scene/after.tif "
        f"--output=new {_NETWORK} --bands=1,2,3",
        "predict-resumed": f"predict {_PAIR} --output=shards {_NETWORK}",
        "predict-plan": f"predict {_PAIR} --plan --json {_NETWORK}",
        "predict-folders": f"predict data/im1 data/im2 --output=new --model=model {_RUNTIME}",
        "plan": f"plan aoi.gpkg --grid=EPSG:32632@0.5 --json {_NETWORK}",
        "merge": "merge shards",
        "report": "report out --overwrite",
        "report-assessed": "report assessed --overwrite",
        "report-run": "report run",
        "stats": "stats out --zones=zones.gpkg",
        "sample": "sample out --output=new.gpkg --points=40 --floor=2 --chip-size=8",
        "assess": "assess points.gpkg --output=new --json",
        "view": "view reviewed --export=new.gpkg",
        "view-served": "view reviewed --no-browser",
        "info": "info model",
        "info-json": "info model --json",
        "models": "models",
        "doctor": "doctor data",
        "doctor-csv": "doctor pairs.csv --json --classes=classes.json",
        "doctor-fix": "doctor data --fix=new",
        "train-plan": "train recipe.yaml",
        "train": "train recipe.yaml --output=new --device=cpu",
        "train-from": "train recipe.yaml --output=new --device=cpu --from=model",
        "train-resumed": "train recipe.yaml --output=run --resume --epochs=2 --device=cpu",
        "evaluate": f"evaluate model data --split=all --json {_RUNTIME}",
        "calibrate": f"calibrate model data --split=all {_RUNTIME}",
        "evaluate-all": "evaluate model pairs.csv --split=all --output=new --bootstrap=100 "
        f"{_RUNTIME}",
        "score": "score masks data --json",
        "compare": "compare run run --json",
        "pseudo-label": "pseudo-label model data --output=new --device=cpu --confidence=0.1",
        "pseudo-label-rounds": "pseudo-label model pairs.csv --output=new --device=cpu "
        "--confidence=0.1 --recipe=recipe.yaml",
        "synth": "synth --output=new --pairs=1 --size=64",
        "synth-geotiff": "synth --output=new --geotiff --size=64",
        "compose": "compose data/im1 data/label1 --output=new --pairs=1 --size=48 "
        "--classes=classes.json",
        "convert": "convert published.pth --output=new --model=fcn --encoder=resnet18_slim "
        "--polarity=changed",
        "export": "export model --to=onnx --output=new.onnx",
        "quantize": "quantize model data --pairs=1",
        "demo": "demo --output=new",
    }.items()
}
"""Lines that end with exit code 0 on the healthy files."""
