"""What is damaged, and which verbs then read it.

A target changes files of `home`, the working directory, and returns the line to run there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import yaml

from .corpus import PAIR
from .damage import (
    mutate_bytes,
    mutate_database,
    mutate_json,
    mutate_png,
    mutate_table,
    mutate_tags,
    mutate_text,
    mutate_value,
)
from .lines import HEALTHY, OUTPUT_FLAGS, Line
from .options import OUTPUTS, draw_line
from .pictures import draw_place, write_odd_image, write_odd_raster
from .weights import damage_pickle, damage_safetensors

Target = Callable[[Random, Path], Line]
TARGETS: dict[str, Target] = {}
SLOW = ("demo", "export", "quantize", "view-served")
"""Healthy lines that take seconds, and are drawn less often."""


def target(damage: Target) -> Target:
    """Add a target under the function's name."""
    TARGETS[damage.__name__] = damage
    return damage


def _draw(random: Random, *names: str) -> Line:
    return HEALTHY[random.choice(names)]


@target
def options(random: Random, home: Path) -> Line:
    """Options and paths of every verb."""
    names = [name for name in HEALTHY if name not in SLOW or random.random() < 0.15]
    return draw_line(random, HEALTHY[random.choice(names)])


@target
def places(random: Random, home: Path) -> Line:
    """Outputs: in, above and beside what is there, with and without --overwrite."""
    names = [name for name, line in HEALTHY.items() if line.outputs and name not in SLOW]
    line = HEALTHY[random.choice(names)]
    flags = [flag for flag in OUTPUT_FLAGS if line.has(flag)]
    if flags:
        line = line.put(flags[0], random.choice(OUTPUTS))
    if random.random() < 0.7:
        line = line.put("--overwrite", None)
    return line


@target
def raster_bytes(random: Random, home: Path) -> Line:
    """The bytes and tags of a GeoTIFF."""
    source = random.choice(sorted(path for path in (home / "rasters").glob("*.tif")))
    damage = random.choice((mutate_bytes, mutate_tags))
    chosen = random.choice(PAIR)
    shutil.copy(source, home / chosen)
    (home / chosen).write_bytes(damage(random, source.read_bytes()))
    return _read_rasters(random)


def _read_rasters(random: Random) -> Line:
    names = ("check", "check-json", "predict", "predict", "predict-plan", "predict-all")
    names += ("predict-resumed", "sample", "report", "predict-listed", "predict-bands")
    line = _draw(random, *names)
    if line.verb in ("check", "predict") and random.random() < 0.3:
        line = line.put("--bands", "1,2,3")
    if line.verb in ("check", "predict") and random.random() < 0.2:
        line = line.put("--value-range", random.choice(("0,255", "0,3000", "300,2850")))
    if line.verb in ("check", "predict") and random.random() < 0.2:
        line = line.put("--aoi", random.choice(("aoi.gpkg", "aoi.geojson")))
    if line.verb in ("check", "predict") and random.random() < 0.3:
        line = line.put("--grid", random.choice(("after", "0.7", "EPSG:32633@0.7")))
    return line


@target
def odd_rasters(random: Random, home: Path) -> Line:
    """Rasters that are whole: CRS, transform, type, nodata, bands, masks and values."""
    place = draw_place(random) if random.random() < 0.6 else None
    others = place if random.random() < 0.8 else None
    write_odd_raster(random, home / PAIR[0], place)
    if place or random.random() < 0.3:
        write_odd_raster(random, home / PAIR[1], others)
    return _read_rasters(random)


SIDECARS = (
    *("before.tif.aux.xml", "before.tif.ovr", "before.tif.msk", "before.tfw", "before.tifw"),
    *("before.prj", "before.wld", "before_RPC.TXT", "before.IMD", "before.tif.gcp"),
)


@target
def sidecars(random: Random, home: Path) -> Line:
    """Files that GDAL reads beside a raster, VRTs, and lists of rasters."""
    if random.random() < 0.4:
        donors = ("out/change.tif.aux.xml", "rasters/tiled.tif", "notes.txt", "mosaic.txt")
        donor = (home / random.choice(donors)).read_bytes()
        path = home / "scene" / random.choice(SIDECARS)
        path.write_bytes(mutate_bytes(random, random.choice((donor, b"1\n0\n0\n-1\n0\n0\n"))))
        return _read_rasters(random)
    if random.random() < 0.5:
        virtual = (home / "pieces" / "change.vrt").read_bytes()
        (home / "pieces" / "change.vrt").write_bytes(
            random.choice((mutate_text, mutate_bytes))(random, virtual)
        )
        if random.random() < 0.5:
            return _draw(random, "report", "stats", "sample").swap("out", "pieces")
        line = HEALTHY["predict"].swap("scene/before.tif", "pieces/change.vrt")
        return line.put("--bands", "1,1,1")
    listing = home / "mosaic.txt"
    listing.write_bytes(mutate_text(random, listing.read_bytes() + b"mosaic.txt\nscene\n"))
    return HEALTHY["predict-listed"]


JSON_FILES = {
    "out/run.json": ("report", "stats", "sample", "view-out"),
    "out/summary.json": ("report", "view-out"),
    "assessed/area_estimates.json": ("report-assessed",),
    "shards.partial/job.json": ("merge", "predict-resumed"),
    "model/model.json": ("info", "info-json", "predict", "check", "evaluate", "train-from"),
    "classes.json": ("doctor-csv", "compose"),
    "data/classes.json": ("doctor", "train-plan", "evaluate", "score"),
    "masks/classes.json": ("score",),
    "pieces/items.json": ("predict-items",),
    "pieces/run.json": ("report-pieces",),
    "aoi.geojson": ("predict-geojson", "check-geojson"),
    "run/test.json": ("compare", "report-run"),
    "run/log.jsonl": ("report-run", "train-resumed"),
    "run/checkpoints": ("train-resumed",),
}
"""What reads each JSON file of our own."""
MORE = {
    "view-out": HEALTHY["view"].swap("reviewed", "out"),
    "report-pieces": HEALTHY["report"].swap("out", "pieces"),
    "predict-geojson": HEALTHY["predict-aoi"].swap("aoi.gpkg", "aoi.geojson"),
    "check-geojson": HEALTHY["check-aoi"].swap("aoi.gpkg", "aoi.geojson"),
}


@target
def own_json(random: Random, home: Path) -> Line:
    """JSON files of predictions, jobs, models, runs, class tables and STAC."""
    name = random.choice(sorted(JSON_FILES))
    path = home / name
    if path.is_dir():
        path = next(path.rglob("*.json"))
    if path.suffix == ".jsonl":
        path.write_bytes(mutate_text(random, path.read_bytes()))
    else:
        path.write_bytes(mutate_json(random, path.read_bytes()))
    if name == "data/classes.json":
        shutil.copy(path, home / "classes.json")
    return (HEALTHY | MORE)[random.choice(JSON_FILES[name])]


YAML_TEXTS = (
    *("&a [*a]", "a: &a {b: *a}", "!!python/object:os.system {}", "? [a]\n: 1", "\t", "- 1", "3"),
    *("data: 1", "data: [pairs.csv]", "data: pairs.csv\nepochs: 1e1", "epochs: 2019-01-01"),
    *("data: pairs.csv\nclass_weights: {a: 1}", "data: pairs.csv\nclass_weights: x", "{}"),
    "data: pairs.csv\nepochs: 1\nepochs: 2",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]",
)


@target
def recipes(random: Random, home: Path) -> Line:
    """YAML recipes, those of runs too."""
    line = _draw(random, "train-plan", "train", "pseudo-label-rounds", "compare", "report-run")
    path = (
        home / "recipe.yaml" if line.verb in ("train", "pseudo-label") else home / "run/config.yaml"
    )
    draw = random.random()
    if draw < 0.65:
        value = mutate_value(random, yaml.safe_load(path.read_text()))
        path.write_text(json.dumps(value, default=str), "utf-8", "backslashreplace")
    elif draw < 0.8:
        path.write_text(random.choice(YAML_TEXTS))
    else:
        path.write_bytes(random.choice((mutate_text, mutate_bytes))(random, path.read_bytes()))
    if line.verb == "train" and line.has("--output"):
        # A mutant may ask for a thousand epochs.
        line = line.put("--epochs", "1")
    return line


TABLES = {
    "pairs.csv": ("doctor-csv", "train-plan", "train", "evaluate-all", "pseudo-label-rounds"),
    "out/transitions.csv": ("report", "view-out"),
    "assessed/area_estimates.csv": ("report-assessed",),
    "assessed/zones/zones.csv": ("report-assessed",),
    "run/log.csv": ("report-run", "train-resumed"),
}


@target
def tables(random: Random, home: Path) -> Line:
    """CSV files of pairs and of results."""
    name = random.choice(("pairs.csv", *sorted(TABLES)))
    path = home / name
    path.write_bytes(mutate_table(random, path.read_bytes()))
    return (HEALTHY | MORE)[random.choice(TABLES[name])]


DATABASES = {
    "out/changes.gpkg": ("report", "view-out"),
    "reviewed/changes.gpkg": ("view", "view"),
    "points.gpkg": ("assess",),
    "zones.gpkg": ("stats",),
    "assessed/zones/zones.gpkg": ("report-assessed",),
    "aoi.gpkg": ("check-aoi", "predict-aoi", "plan"),
}


@target
def databases(random: Random, home: Path) -> Line:
    """GeoPackages of changes, reviews, points, zones and areas of interest."""
    name = random.choice(sorted(DATABASES))
    mutate_database(random, home / name)
    return (HEALTHY | MORE)[random.choice(DATABASES[name])]


@target
def model_files(random: Random, home: Path) -> Line:
    """The weights of a model folder."""
    damage_safetensors(random, home / "model" / "model.safetensors")
    names = ("predict", "predict-folders", "evaluate", "train-from", "pseudo-label", "info")
    return _draw(random, *names)


@target
def published_weights(random: Random, home: Path) -> Line:
    """Weights in a .pth."""
    damage_pickle(random, home / "published.pth")
    line = HEALTHY["convert"].put("--polarity", random.choice(("changed", "unchanged")))
    if random.random() < 0.2:
        line = HEALTHY["train"].put("--encoder-weights", "published.pth")
    return line


@target
def checkpoints(random: Random, home: Path) -> Line:
    """The state that a training run is resumed from."""
    folder = next((home / "run" / "checkpoints").iterdir())
    match random.randrange(4):
        case 0 | 1:
            damage_safetensors(random, folder / "state.safetensors")
        case 2:
            path = folder / "progress.json"
            path.write_bytes(mutate_json(random, path.read_bytes()))
        case 3:
            _spoil_folder(random, home / "run")
    return HEALTHY["train-resumed"]


def _spoil_folder(random: Random, folder: Path):
    """Remove a file, or put an empty one or a folder in its place."""
    path = random.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    path.unlink()
    match random.randrange(3):
        case 0:
            path.touch()
        case 1:
            path.mkdir()


@target
def folders(random: Random, home: Path) -> Line:
    """Folders of ours in which a file is missing, empty or a folder."""
    choices = {
        "out": ("report", "stats", "sample", "assess", "view-out"),
        "model": ("info", "predict", "evaluate", "export"),
        "shards.partial": ("merge", "predict-resumed"),
        "run": ("report-run", "compare"),
        "assessed": ("report-assessed",),
        "data": ("doctor", "doctor-fix", "evaluate", "score", "predict-folders"),
        "pieces": ("predict-items", "report-pieces"),
    }
    name = random.choice(sorted(choices))
    _spoil_folder(random, home / name)
    return (HEALTHY | MORE)[random.choice(choices[name])]


@target
def blocks(random: Random, home: Path) -> Line:
    """The finished blocks of a run that is not."""
    path = random.choice(sorted((home / "shards.partial").rglob("*.tif")))
    path.write_bytes(random.choice((mutate_bytes, mutate_tags))(random, path.read_bytes()))
    return _draw(random, "merge", "predict-resumed")


@target
def images(random: Random, home: Path) -> Line:
    """Images and masks of a data set."""
    folder = random.choice(("data/im1", "data/im2", "data/label1", "data/label2", "masks/before"))
    paths = sorted((home / folder).iterdir())
    for path in random.sample(paths, random.choice((1, 1, 2, len(paths)))):
        match random.randrange(4):
            case 0:
                path.write_bytes(mutate_bytes(random, path.read_bytes()))
            case 1:
                path.write_bytes(mutate_png(random, path.read_bytes()))
            case _:
                write_odd_image(random, path)
    if folder.startswith("masks"):
        return HEALTHY["score"]
    names = ("doctor", "doctor-csv", "doctor-fix", "train-plan", "train", "evaluate", "score")
    return _draw(random, *names, "predict-folders", "compose", "pseudo-label", "evaluate-all")
