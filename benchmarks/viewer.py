"""The speed of the map viewer on a large prediction.

The prediction is a real one of a drawn scene of 1,500 px, repeated to the requested size:
its images and its blocks are repeated and go through terradelta's own assembly, so that the maps,
polygons and sums are those that `predict` would have written. Then a server is started and timed as
the page uses it; with Chromium and playwright the page itself as well. Run: `python
benchmarks/viewer.py 20000`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import morecantile
import numpy as np
import psutil
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.fields import read_fields, write_fields
from terradelta.geo.source import describe_source
from terradelta.inference.job import Job
from terradelta.inference.store import BlockFacts, BlockLayers
from terradelta.mapping.assembly import assemble, finish
from terradelta.mapping.run import predict
from terradelta.prediction.records import JobRecord

WORK = Path(__file__).parent / "work" / "viewer"
SCENE_SIZE_PX = 1500
SEED = 20
DATES = ("before", "after")
TILES = 60
REPEATS = 7
BROWSER_CONNECTIONS = 6
CHROMIUM = "/usr/bin/chromium"


def build(size_px: int) -> Path:
    """Return the folder of a prediction of this many pixels a side, made if necessary."""
    output = WORK / f"out_{size_px}"
    if output.exists():
        return output
    scene, small = WORK / "scene", WORK / "small"
    if not scene.exists():
        write_geotiff_pair(scene, SEED, SCENE_SIZE_PX)
    if not small.exists():
        predict(scene / "before.tif", scene / "after.tif", small)
    pair = {date: repeat_image(scene / f"{date}.tif", size_px) for date in DATES}
    job = Job(output, read_fields(JobRecord, describe_large(small, pair, size_px)))
    job.start(overwrite=True)
    layers = [read(small / f"{date}_class.tif") for date in DATES]
    layers += [read(small / "change.tif"), *[read(small / "confidence.tif")] * 2]
    for block in job.plan:
        cut = BlockLayers(*(repeat(layer_HW, block.write) for layer_HW in layers))
        job.store.write(block.index, block.write, cut, BlockFacts(1, 0.0, 0.0))
    assemble(job)
    finish(job)
    return output


def describe_large(small: Path, pair: dict[str, Path], size_px: int) -> dict:
    """Return the small prediction's request, for the large images."""
    request = json.loads((small / "run.json").read_text())
    with rasterio.open(small / "before_class.tif") as dataset:
        names = [dataset.tags(1)[f"class_{value}"] for value in range(7)]
        colours = [dataset.colormap(1)[value][:3] for value in range(7)]
    for date, path in pair.items():
        with rasterio.open(path) as dataset:
            request[date] = write_fields(describe_source(dataset, path))
    request["classes"] = {"names": names, "colours": colours}
    request["grid"].update(width=size_px, height=size_px)
    request["plan"]["area"] = [0, 0, size_px, size_px]
    return request


def repeat_image(path: Path, size_px: int) -> Path:
    """Return a COG of an image repeated to a larger one."""
    target = WORK / f"{path.stem}_{size_px}.tif"
    if target.exists():
        return target
    print(f"repeating {path.name} to {size_px} px", file=sys.stderr)
    plain = target.with_suffix(".plain.tif")
    with rasterio.open(path) as source:
        image_CHW = source.read()
        profile = {**source.profile, "width": size_px, "height": size_px, "compress": None}
    profile.update(tiled=True, blockxsize=512, blockysize=512, bigtiff="IF_SAFER")
    with rasterio.open(plain, "w", **profile) as dataset:
        for _, window in dataset.block_windows(1):
            dataset.write(repeat(image_CHW, window), window=window)
    rasterio.shutil.copy(plain, target, driver="COG", COMPRESS="DEFLATE", BIGTIFF="IF_SAFER")
    plain.unlink()
    return target


def read(path: Path) -> np.ndarray:
    """Return the first band of a raster."""
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def repeat(array: np.ndarray, window: Window) -> np.ndarray:
    """Return the window of an array (..., H, W) that repeats without end."""
    rows = np.arange(window.row_off, window.row_off + window.height) % array.shape[-2]
    columns = np.arange(window.col_off, window.col_off + window.width) % array.shape[-1]
    return array[..., rows[:, None], columns]


@contextmanager
def serve(output: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """Start `terradelta view`; yield address, seconds until it answered, process."""
    line = [sys.executable, "-m", "terradelta.cli", "view", str(output), "--no-browser"]
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].rstrip("/")
        ask(address, "/api/session")
        yield address, time.perf_counter() - started, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def ask(address: str, path: str) -> tuple[bytes, float]:
    """Return an answer and the seconds it took."""
    started = time.perf_counter()
    with urllib.request.urlopen(address + path) as answer:
        content = answer.read()
    return content, time.perf_counter() - started


def measure(output: Path) -> dict[str, list[dict]]:
    """Return the tables of this file."""
    with serve(output) as (address, start_seconds, server):
        session = json.loads(ask(address, "/api/session")[0])
        tables = {
            "Tiles": time_tiles(address, server, session["layers"]["change"]),
            "Patches": time_patches(address, session["layers"]["change"]["bounds"]),
            "Page": [{"what": "start of the server", "s": f"{start_seconds:.2f}"}],
        }
        tables["Page"] += time_page(address, server)
    return tables


def time_tiles(address: str, server: psutil.Process, layer: dict) -> list[dict]:
    """Time tiles of all zooms in random order, one at a time and as a browser asks for them."""
    draw = random.Random(SEED)
    tms = morecantile.tms.get("WebMercatorQuad")
    west, south, east, north = layer["bounds"]
    rows = []
    for name in ("before", "after", "change", "confidence"):
        paths = []
        for _ in range(TILES):
            zoom = draw.randint(layer["max_zoom"] - 6, layer["max_zoom"])
            place = draw.uniform(west, east), draw.uniform(south, north)
            tile = tms.tile(*place, zoom)
            paths.append(f"/tiles/{name}/{tile.z}/{tile.x}/{tile.y}")
        begun = processor_seconds(server)
        alone = [ask(address, path)[1] for path in paths]
        processor = (processor_seconds(server) - begun) / TILES
        with ThreadPoolExecutor(BROWSER_CONNECTIONS) as browser:
            together = [seconds for _, seconds in browser.map(lambda p: ask(address, p), paths)]
        row = {"layer": name, "processor, ms": f"{processor * 1000:.0f}"}
        rows.append({**row, **quartiles("alone", alone), **quartiles("six", together)})
    return rows


def time_patches(address: str, bounds: list[float]) -> list[dict]:
    """Time requests about all patches, and the patches of views of three sizes."""
    west, south, east, north = bounds
    paths = {
        "sums over all patches, filtered": "/api/sums?from_ids=1&from_ids=3&min_confidence=0.5",
        "the next patch": "/api/next?step=1&min_area_m2=50",
    }
    for share in (1, 0.1, 0.02):
        x, y = (west + east) / 2, (south + north) / 2
        width, height = share * (east - west), share * (north - south)
        paths[f"patches in view, {share:.0%} of the map's side"] = (
            f"/api/patches?west={x}&south={y}&east={x + width}&north={y + height}"
        )
    rows = []
    for what, path in paths.items():
        answers = [ask(address, path) for _ in range(REPEATS)]
        seconds = [seconds for _, seconds in answers]
        size = f"{len(answers[0][0]) / 1000:,.0f}"
        rows.append({"what": what, **quartiles("one", seconds), "kB": size})
    return rows


def time_page(address: str, server: psutil.Process) -> list[dict]:
    """Time the first view, nothing cached, in a Chromium that draws in software."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    flags = ["--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
    flags += ["--enable-unsafe-swiftshader", "--disable-quic", "--disable-background-networking"]
    seconds, first, processor = [], [], []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        for _ in range(REPEATS):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            tiles: list[float] = []
            begun, begun_processor = time.perf_counter(), processor_seconds(server)
            page.on(
                "requestfinished",
                lambda request, begun=begun, tiles=tiles: (
                    tiles.append(time.perf_counter() - begun) if "/tiles/" in request.url else None
                ),
            )
            page.goto(address)
            page.wait_for_selector("body[data-ready=true]", timeout=60_000)
            seconds.append(time.perf_counter() - begun)
            first.append(max(tiles))
            processor.append(processor_seconds(server) - begun_processor)
            context.close()
        browser.close()
    return [
        {"what": f"last tile of the first view, {len(tiles)} tiles", "s": format_median(first)},
        {"what": "the server's processor time for it", "s": format_median(processor)},
        {"what": "first view drawn, nothing more to come", "s": format_median(seconds)},
    ]


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process: other work on the machine does not count."""
    times = process.cpu_times()
    return times.user + times.system


def quartiles(name: str, seconds: list[float]) -> dict[str, str]:
    """Return the median and the 95th percentile in milliseconds."""
    middle, late = np.percentile(seconds, (50, 95)) * 1000
    return {f"{name}: median, ms": f"{middle:.0f}", f"{name}: 95 %, ms": f"{late:.0f}"}


def format_median(seconds: list[float]) -> str:
    """Return the median and the range."""
    return f"{np.median(seconds):.2f} ({min(seconds):.2f} - {max(seconds):.2f})"


def main():
    """Build the prediction and measure."""
    from tables import print_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size_px", type=int, nargs="?", default=20_000)
    arguments = parser.parse_args()
    output = build(arguments.size_px)
    print(f"{json.loads((output / 'summary.json').read_text())['patches']:,} patches\n")
    print_tables(measure(output))


if __name__ == "__main__":
    main()
