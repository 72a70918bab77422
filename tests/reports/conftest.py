import json
import re
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import terradelta as td
from terradelta.classes import ClassTable
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.geo.grid import allow_no_place
from terradelta.models.bundle import Model, save_model
from terradelta.models.card import ModelCard
from terradelta.models.registry import create_model
from tests.areas.maps import label
from tests.chromium import WITHOUT_GPU, launch, require_browser
from tests.flat_options import sort_options

SCREENS = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "scene"
    write_geotiff_pair(folder, 11, (240, 320))
    return folder


@pytest.fixture(scope="session")
def prediction(scene, tmp_path_factory):
    """What the embedded model finds in a small drawn pair."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    return td.predict(scene / "before.tif", scene / "after.tif", out)


@pytest.fixture(scope="session")
def doubtful(prediction, tmp_path_factory) -> Path:
    """A copy of the prediction that carries cautions, and a report of it."""
    folder = tmp_path_factory.mktemp("doubtful") / "out"
    shutil.copytree(prediction.folder, folder)
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["cautions"] = [
        {"name": "scale", "message": "pixels of <b>5</b> m", "fix": "--grid 0.5"},
        {"name": "dates", "message": "a_very_long_name" * 12, "fix": "give the earlier first"},
    ]
    path.write_text(json.dumps(summary))
    td.report(folder, overwrite=True)
    return folder


@pytest.fixture(scope="session")
def surveyed(prediction, tmp_path_factory) -> Path:
    """A copy of the prediction with area estimates and zones, and a report of them."""
    folder = tmp_path_factory.mktemp("surveyed") / "out"
    shutil.copytree(prediction.folder, folder)
    points = folder.with_name("points.gpkg")
    td.sample(folder, points, td.SampleDesign(points=200, floor=10), chip_size_px=0)
    with rasterio.open(folder / "change.tif") as dataset:
        bounds, crs = dataset.bounds, dataset.crs
        # A truth that the map has displaced.
        label(points, np.roll(dataset.read(1), 4, axis=1))
    td.assess(points)
    middle = (bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2
    away = 5 * (bounds.right - bounds.left)
    boxes = [
        shapely.box(bounds.left - 50, bounds.bottom - 50, middle[0], middle[1]),
        shapely.box(middle[0], bounds.bottom, bounds.right, middle[1]),
        shapely.box(bounds.left, middle[1], bounds.right, bounds.top + 90),
        shapely.box(bounds.left + away, bounds.bottom, bounds.right + away, bounds.top),
    ]
    names = {"name": ["South <b>West</b>", "South East", "North", "Away"]}
    zones = geopandas.GeoDataFrame(names, geometry=boxes, crs=crs.to_wkt())
    zones.to_file(folder.with_name("zones.gpkg"))
    td.stats(folder, folder.with_name("zones.gpkg"), name="name")
    td.report(folder, overwrite=True)
    return folder


@dataclass(frozen=True)
class Mapper:
    """Predicts a small pair with an untrained model, whose answers need not make sense."""

    scene: Path
    folder: Path
    model: Path

    def predict(self, *, names=("before.tif", "after.tif"), **options):
        """Map the upper left of the scene, or the files of these names where they are there."""
        files = [self.folder / name for name in names]
        for source, path in zip(("before.tif", "after.tif"), files, strict=True):
            if not path.exists():
                self.copy(self.scene / source, path)
        return td.predict(
            *files,
            self.folder / "out",
            **sort_options({"model": self.model, **options}),
        )

    def copy(self, source: Path, path: Path, **changes):
        """Copy 128 x 160 px of a raster, with another profile if wanted."""
        with rasterio.open(source) as dataset:
            image = dataset.read()[:, :128, :160]
            profile = {**dataset.profile, "width": 160, "height": 128, **changes}
        profile = {key: value for key, value in profile.items() if value is not None}
        with allow_no_place(), rasterio.open(path, "w", **profile) as dataset:
            dataset.write(np.ascontiguousarray(image).astype(profile["dtype"]))


@pytest.fixture
def mapper(scene, model_folder, tmp_path) -> Mapper:
    return Mapper(scene, tmp_path, model_folder)


def save_eager_model(classes: ClassTable, folder: Path) -> Path:
    """Save an untrained model of these classes, which finds change everywhere."""
    network = create_model("fcn", encoder="resnet18", num_classes=classes.num_classes)
    card = ModelCard(architecture=network.config, classes=classes, change_threshold=1e-6)
    save_model(Model(network.eval(), card), folder)
    return folder


class _Tables(HTMLParser):
    """Collects the text of a page, and of its tables cell by cell."""

    def __init__(self):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.pictures: list[str] = []
        self._cell: list[str] | None = None
        self._silent = False

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag in ("style", "script"):
            self._silent = True
        elif tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag in ("style", "script"):
            self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.text += data
            if self._cell is not None:
                self._cell.append(data)


@pytest.fixture(scope="session")
def read_page():
    """Return a function from a page's path to its text, tables and pictures."""

    def read(path: Path) -> _Tables:
        parser = _Tables()
        parser.feed(path.read_text(encoding="utf-8"))
        parser.text = " ".join(parser.text.split())
        return parser

    return read


# Of a module: two playwrights at once, this and the viewer's tests', are refused.
@pytest.fixture(scope="module")
def browser():
    with launch(require_browser(), WITHOUT_GPU) as chromium:
        yield chromium


@pytest.fixture
def visit(browser):
    """Return a function that opens a page without a network and fails on any complaint."""
    contexts, complaints, requests = [], [], []

    def open_page(path, screen="desktop", scheme="light"):
        context = browser.new_context(viewport=SCREENS[screen], color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    outside = [url for url in requests if not re.match(r"data:|file:.*/report\.html$", url)]
    assert outside == [], "the page asks for nothing but itself"


@pytest.fixture
def examine(visit):
    """Return a function that finds what axe complains of in a page, or what sticks out of it."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )

    def run(path, screen, scheme):
        page = visit(path, screen, scheme)
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        found = axe.Axe().run(page).response["violations"]
        assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found] == []
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == SCREENS[screen]["width"]

    return run
