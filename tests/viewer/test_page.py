"""The page itself in Debian's Chromium: swipe, toggle, filter, review, reload."""

import json
import re
import socket
import sqlite3
import threading
from contextlib import closing, contextmanager

import numpy as np
import pyogrio
import pytest
import uvicorn
from PIL import Image

from terradelta.geo.vector import LAYER
from terradelta.viewer.endpoints import create_application
from terradelta.viewer.result import Result
from tests.chromium import WEBGL_IN_SOFTWARE, launch, require_browser

from .conftest import add_cautions, edit_run

playwright = require_browser()
expect = playwright.expect
PATIENCE_MS = 120_000
"""Two cores draw the map and run other tests beside."""
expect.set_options(timeout=PATIENCE_MS)


TOKEN = "a_token"


@contextmanager
def serve(folder, port=0, token=TOKEN):
    """Serve a prediction from a thread and yield the port."""
    app = create_application(Result.load(folder), token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def browser():
    # MapLibre draws with WebGL.
    with launch(playwright, WEBGL_IN_SOFTWARE) as chromium:
        yield chromium


@pytest.fixture
def port(folder):
    with serve(folder) as number:
        yield number


@contextmanager
def open_page(browser, port, token=TOKEN, **options):
    """Open the page as `view` does, or without the token.

    What it asks for elsewhere, or complains of, fails the test.
    """
    page = browser.new_page(viewport={"width": 1080, "height": 640}, **options)
    page.set_default_timeout(PATIENCE_MS)
    complaints = []
    page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((f"http://127.0.0.1:{port}/", "blob:", "data:"))
            or complaints.append(f"asked for {request.url}")
        ),
    )
    page.goto(f"http://127.0.0.1:{port}/" + (f"#token={token}" if token else ""))
    page.wait_for_selector("body[data-ready=true]")
    yield page
    page.close()
    assert complaints == []


def look(page, path) -> np.ndarray:
    """Return the map's pixels once they have come to rest."""
    page.wait_for_timeout(300)
    shot = path / "shot.png"
    last = None
    for _ in range(60):
        page.locator("main").screenshot(path=shot)
        now = np.array(Image.open(shot).convert("RGB")).astype(int)
        if last is not None and np.array_equal(last, now):
            return now
        last = now
        page.wait_for_timeout(150)
    raise AssertionError("the map does not come to rest")


def differ(first, second) -> float:
    return float((np.abs(first - second).max(axis=-1) > 24).mean())


@pytest.mark.slow
def test_swipe_shows_before_on_the_left_and_after_on_the_right(browser, port, tmp_path):
    with open_page(browser, port) as page:
        page.uncheck("#show-change")
        page.uncheck("#show-outlines")
        page.keyboard.press("1")
        before = look(page, tmp_path)
        page.keyboard.press("2")
        after = look(page, tmp_path)
        assert differ(before, after) > 0.01
        page.keyboard.press("3")
        page.locator("#swipe-position").focus()
        page.locator("#swipe-position").fill("500")
        swiped = look(page, tmp_path)
        middle = before.shape[1] // 2
        # The handle, the line and the names lie over the map.
        rows = slice(60, 480)
        left, right = slice(0, middle - 40), slice(middle + 40, -60)
        assert differ(swiped[rows, left], before[rows, left]) < 0.001
        assert differ(swiped[rows, right], after[rows, right]) < 0.001
        assert differ(before[rows, right], after[rows, right]) > 0.01
        page.locator("#swipe-position").fill("1000")
        assert differ(look(page, tmp_path)[rows, :-120], before[rows, :-120]) < 0.001
        # By keyboard alone.
        page.locator("body").click(position={"x": 5, "y": 5})
        for _ in range(25):
            page.keyboard.press("[")
        assert page.locator("#swipe-position").input_value() == "0"
        assert differ(look(page, tmp_path)[rows, 80:-60], after[rows, 80:-60]) < 0.001
        page.keyboard.press("1")
        page.keyboard.down(" ")
        assert differ(look(page, tmp_path)[rows], after[rows]) < 0.001
        page.keyboard.up(" ")
        assert differ(look(page, tmp_path)[rows], before[rows]) < 0.001


@pytest.mark.slow
def test_the_swipe_divides_fine_displays_too(browser, port, tmp_path):
    """Two pixels of the screen for one of the page."""
    with open_page(browser, port, device_scale_factor=2) as page:
        page.uncheck("#show-change")
        page.uncheck("#show-outlines")
        seen = {}
        for key in "123":
            page.keyboard.press(key)
            seen[key] = look(page, tmp_path)
        middle = seen["1"].shape[1] // 2
        rows = slice(120, 960)
        left, right = slice(0, middle - 80), slice(middle + 80, -120)
        assert differ(seen["3"][rows, left], seen["1"][rows, left]) < 0.001
        assert differ(seen["3"][rows, right], seen["2"][rows, right]) < 0.001
        assert differ(seen["1"][rows, right], seen["2"][rows, right]) > 0.01


@pytest.mark.slow
def test_layers_toggle_and_fade(browser, port, tmp_path):
    with open_page(browser, port) as page:
        page.keyboard.press("2")
        page.uncheck("#show-outlines")
        page.locator("#change-opacity").fill("100")
        full = look(page, tmp_path)
        page.locator("#change-opacity").fill("0")
        faded = look(page, tmp_path)
        page.locator("#change-opacity").fill("100")
        page.keyboard.press("c")
        off = look(page, tmp_path)
        assert differ(full, off) > 0.01
        assert differ(faded, off) == 0
        page.keyboard.press("k")
        expect(page.locator("#confidence-ramp")).to_be_visible()
        assert differ(look(page, tmp_path), off) > 0.2


def test_the_filter_changes_map_and_sums(browser, port, folder, tmp_path):
    frame = pyogrio.read_dataframe(folder / "changes.gpkg", layer=LAYER)
    lost = frame["from"].mode()[0]
    chosen = frame[(frame["from"] == lost) & (frame["area_m2"] >= 10)]
    assert 0 < len(chosen) < len(frame)

    def sums(page, patches):
        hectares = patches["area_m2"].sum() / 10_000
        expect(page.locator("#total-count")).to_have_text(f"in {len(patches):,} patches")
        expect(page.locator("#total-area")).to_have_text(f"{hectares:.3f} ha")

    with open_page(browser, port) as page:
        page.keyboard.press("2")
        sums(page, frame)
        everything = look(page, tmp_path)
        page.locator("#from-chips button", has_text=lost).click()
        sums(page, frame[frame["from"] == lost])
        page.keyboard.press("f")
        page.keyboard.type("10")
        sums(page, chosen)
        expect(page.locator("#change-hint")).to_contain_text("patches are shown")
        assert differ(look(page, tmp_path), everything) > 0.001
        rows = page.locator("#sums tbody tr")
        expect(rows).to_have_count(chosen.groupby(["from", "to"]).ngroups)
        page.reload()
        sums(page, chosen)
        page.keyboard.press("x")
        sums(page, frame)


def test_a_click_and_the_keys_review_and_a_reload_and_a_new_server_keep_it(
    browser, folder, tmp_path
):
    frame = pyogrio.read_dataframe(folder / "changes.gpkg", layer=LAYER, fid_as_index=True)
    order = frame["area_m2"].sort_values(ascending=False, kind="stable").index.tolist()
    names = [f"{frame.loc[fid, 'from']} → {frame.loc[fid, 'to']}" for fid in order]

    with serve(folder, token="first") as port, open_page(browser, port, "first") as page:
        assert "token" not in page.url, "and out of the history, whose entry is replaced"
        assert page.evaluate("history.length") == 2
        page.keyboard.press("n")
        expect(page.locator("#patch-label")).to_have_text(names[0])
        page.keyboard.press("a")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^2 of"))
        page.keyboard.press("r")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^3 of"))
        page.keyboard.press("l")
        page.keyboard.type("tree")
        page.keyboard.press("Tab")
        page.keyboard.type("water")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^4 of"))
        page.keyboard.press("m")
        page.keyboard.type("<img src=x onerror=alert(1)>")
        page.keyboard.press("Escape")
        expect(page.locator("#saved")).to_contain_text("saved")
        expect(page.locator("#progress")).to_contain_text("3 of")
        page.keyboard.press("p")
        expect(page.locator("#patch-label")).to_have_text("tree → water")
        expect(page.locator("#patch-status")).to_have_text(f"relabelled (was {names[2]})")
        page.keyboard.press("p")
        expect(page.locator("#patch-status")).to_have_text("rejected")
        expect(page.locator("#rejected-sum")).to_contain_text("in 1 rejected")

        page.reload()
        page.wait_for_selector("body[data-ready=true]")
        expect(page.locator("#progress")).to_contain_text("3 of")
        page.keyboard.press("n")
        expect(page.locator("#patch-status")).to_have_text("accepted")
        # The largest patch has been gone to: it is in the middle of the map.
        page.keyboard.press("z")
        look(page, tmp_path)
        expect(page.locator("#saved")).to_have_text("")
    note = "<img src=x onerror=alert(1)>"
    with closing(sqlite3.connect(folder / "changes.gpkg")) as connection:
        rows = connection.execute(
            "SELECT fid, status, reviewed_from, reviewed_to, note FROM reviews"
        )
        by_fid = {fid: fields for fid, *fields in rows}
    label = frame.loc[order[0], ["from", "to"]].tolist()
    assert by_fid == {
        order[0]: ["accepted", *label, ""],
        order[1]: ["rejected", None, None, ""],
        order[2]: ["relabelled", "tree", "water", ""],
        order[3]: ["unreviewed", None, None, note],
    }


@pytest.mark.slow
def test_a_page_outlives_its_server(browser, folder):
    """A review made while the server is away is kept until its next page is opened, and sent."""
    context = browser.new_context()
    with serve(folder, token="first") as port:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://127.0.0.1:{port}/#token=first")
        page.wait_for_selector("body[data-ready=true]")
        page.keyboard.press("n")
        page.uncheck("#advance")
    page.keyboard.press("r")
    expect(page.locator("#saved")).to_contain_text("1 unsaved")
    with serve(folder, port, token="second"):
        expect(page.locator("#saved")).to_contain_text("1 unsaved. Read only")
        other = context.new_page()
        other.goto(f"http://127.0.0.1:{port}/#token=second")
        expect(page.locator("#saved")).to_have_text("rejected: saved")
        expect(page.locator("#patch-status")).to_have_text("rejected")
        context.close()


@pytest.mark.slow
def test_without_the_token_the_page_only_looks(browser, port, folder):
    was = (folder / "changes.gpkg").read_bytes()
    with open_page(browser, port, token=None) as page:
        expect(page.locator("#read-only")).to_contain_text("open the address that")
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^1 of"))
        for button in ("accept", "reject", "undo", "relabel-button", "note"):
            expect(page.locator(f"#{button}")).to_be_disabled()
        page.keyboard.press("a")
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^2 of"))
        assert (folder / "changes.gpkg").read_bytes() == was
        # The address that `view` has printed, typed into the tab that is open.
        page.evaluate(f"location.hash = 'token={TOKEN}'")
        expect(page.locator("#accept")).to_be_enabled()
        page.keyboard.press("a")
        expect(page.locator("#saved")).to_have_text("accepted: saved")
        expect(page.locator("#read-only")).to_be_hidden()


@pytest.mark.slow
def test_a_click_picks_a_patch(browser, port, folder, tmp_path):
    with open_page(browser, port) as page:
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^1 of"))
        label = page.locator("#patch-label").text_content()
        look(page, tmp_path)
        shot = look(page, tmp_path)
        page.evaluate("document.getElementById('show-all').click()")
        look(page, tmp_path)
        page.keyboard.press("z")
        assert differ(look(page, tmp_path), shot) < 0.01
        # Its outline is yellow; inside of it is the patch.
        is_yellow = np.abs(shot - (253, 224, 71)).max(axis=-1) < 12
        rows, columns = np.nonzero(is_yellow)
        inside = None
        for row in range(rows.min(), rows.max(), 4):
            crossed = columns[rows == row]
            if len(crossed) > 1 and np.diff(crossed).max() > 24:
                gap = int(np.diff(crossed).argmax())
                inside = (crossed[gap] + crossed[gap + 1]) // 2, row
                break
        assert inside is not None
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^2 of"))
        page.keyboard.press("p")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^1 of"))
        look(page, tmp_path)
        page.locator("#map").click(position={"x": int(inside[0]), "y": int(inside[1])})
        expect(page.locator("#patch-label")).to_have_text(label or "")
        corner = {"x": 3, "y": 200}
        page.keyboard.press("0")
        look(page, tmp_path)
        page.locator("#map").click(position=corner)
        expect(page.locator("#patch")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_map_and_one_panel_without_sideways_scrolling(browser, port, scheme):
    with open_page(browser, port, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for tab, shown, hidden in (
            ("Filter", "#from-chips", "#show-change"),
            ("Review", "#next", "#from-chips"),
            ("Layers", "#show-change", "#next"),
        ):
            page.locator("nav button", has_text=tab).click()
            expect(page.locator(shown)).to_be_visible()
            expect(page.locator(hidden)).to_be_hidden()
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_be_visible()
        box = page.locator("#map").bounding_box()
        assert box is not None
        assert box["width"] == 390
        assert box["height"] > 300


def test_cautions_stand_above_the_map_and_can_be_folded(browser, folder):
    edit_run(folder, dates={"before": {"text": "2009", "origin": "flag"}, "after": None})
    add_cautions(folder, 0)
    with serve(folder) as port, open_page(browser, port) as page:
        expect(page.get_by_role("note")).to_have_count(0)
        expect(page.locator("#name-before")).to_have_text("before · before.tif (2009)")
        expect(page.locator("#name-after")).to_have_text("after · after.tif")
    add_cautions(folder, 2)
    with serve(folder) as port, open_page(browser, port) as page:
        note = page.get_by_role("region", name="Reasons to doubt this map").get_by_role("note")
        expect(note).to_contain_text("2 reasons to doubt this map: scale0, scale1")
        expect(note).to_contain_text("pixels of 1 m. What helps: --grid <0.5>.")
        open_px, map_box = note.bounding_box(), page.locator("#map").bounding_box()
        assert open_px is not None
        assert map_box is not None
        # A border between them.
        assert open_px["y"] + open_px["height"] <= map_box["y"]
        page.locator("#cautions-summary").click()
        expect(page.locator("#cautions-list")).to_be_hidden()


def test_where_nothing_was_found_the_headline_says_so(browser, folder):
    path = folder / "summary.json"
    none = {"changed_pixels": 0, "changed_ha": 0.0, "changed_percent": 0.0, "transitions": []}
    path.write_text(json.dumps({**json.loads(path.read_text()), **none}))
    with serve(folder) as port, open_page(browser, port) as page:
        expect(page.locator("#headline")).to_contain_text("predicted: no change found in")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1080])
def test_axe_finds_nothing_serious(browser, folder, scheme, width):
    add_cautions(folder, 9)
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    with serve(folder) as port, open_page(browser, port, color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 844})
        page.keyboard.press("n")
        expect(page.locator("#patch-rank")).to_have_text(re.compile("^1 of"))
        found = axe.Axe().run(page).response["violations"]
        assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found] == []


@pytest.mark.slow
def test_all_of_it_by_keyboard_and_named_for_screen_readers(browser, port):
    with open_page(browser, port) as page:
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#help")).to_be_hidden()
        page.keyboard.press("d")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, textarea")]
              .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.title
                || e.textContent.trim())).map((e) => e.outerHTML)"""
        )
        assert unnamed == []
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.value"))
        assert {"show-change", "change-opacity", "min-area", "swipe-position", "next"} <= reached
