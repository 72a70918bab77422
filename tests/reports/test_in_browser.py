"""The page as a reader meets it: in a browser, offline."""

import io
import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from terradelta.classes import ClassTable

from .conftest import SCREENS, save_eager_model


@pytest.fixture
def report(prediction):
    return prediction.folder / "report.html"


def clip_of(page):
    return page.locator(".pane.after").evaluate("pane => getComputedStyle(pane).clipPath")


def wait_for_clip(page, clip):
    """A busy browser hands events to the page late."""
    script = "clip => getComputedStyle(document.querySelector('.pane.after')).clipPath === clip"
    page.wait_for_function(script, arg=clip)


def photograph(page):
    """The swipe picture as it is seen, (H, W, 3)."""
    picture = Image.open(io.BytesIO(page.locator("#swipe").screenshot()))
    return np.asarray(picture.convert("RGB"), dtype=np.float64)


def shrink(path, shape):
    with rasterio.open(path) as dataset:
        image = Image.fromarray(np.moveaxis(dataset.read(), 0, -1))
    return np.asarray(image.resize((shape[1], shape[0])), dtype=np.float64)


def test_dragging_shows_after_on_the_right_of_the_pointer_and_before_on_the_left(
    visit, report, scene
):
    page = visit(report)
    page.get_by_role("button", name="Hide all").click()
    page.locator("#swipe").scroll_into_view_if_needed()
    frame = page.locator("#swipe").bounding_box()
    middle = frame["y"] + frame["height"] / 2
    page.mouse.move(frame["x"] + 0.5 * frame["width"], middle)
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.3 * frame["width"], middle)
    page.mouse.up()
    page.mouse.move(frame["x"] + 0.9 * frame["width"], middle)
    wait_for_clip(page, "inset(0px 0px 0px 30%)")
    seen = photograph(page)
    dates = [shrink(scene / f"{date}.tif", seen.shape) for date in ("before", "after")]
    differing = np.abs(dates[0] - dates[1]).max(axis=-1) > 40
    columns = np.arange(seen.shape[1]) / seen.shape[1]
    for side, expected, other in ((columns < 0.28, *dates), (columns > 0.32, *dates[::-1])):
        # Where the dates differ, the picture is that of its side; the grip hides some of it.
        chosen = differing & side
        assert chosen.sum() > 200
        errors = [np.abs(seen - date).max(axis=-1)[chosen] for date in (expected, other)]
        assert (errors[0] < errors[1]).mean() > 0.85


def test_the_swipe_goes_by_keyboard_and_says_where_it_is(visit, report):
    page = visit(report)
    slide = page.get_by_role("slider", name="Swipe between before and after")
    for _ in range(10):
        page.keyboard.press("Tab")
        if slide.evaluate("slide => slide === document.activeElement"):
            break
    page.keyboard.press("ArrowRight")
    assert clip_of(page) == "inset(0px 0px 0px 51%)"
    assert slide.get_attribute("aria-valuetext") == "51 % before, 49 % after"
    page.keyboard.press("Home")
    assert clip_of(page) == "inset(0px 0px 0px 0%)"


def test_classes_are_toggled_one_by_one_and_all_at_once(visit, report, prediction):
    page = visit(report)
    became = {row.to_class for row in prediction.summary.transitions}
    boxes = page.locator("fieldset").get_by_role("checkbox")
    layers = page.locator(".layer")
    assert boxes.count() == layers.count() == len(became) > 1
    boxes.first.focus()
    page.keyboard.press("Space")
    assert [layer.is_visible() for layer in layers.all()] == [False] + [True] * (len(became) - 1)
    page.get_by_role("button", name="Hide all").click()
    assert not any(layer.is_visible() for layer in layers.all())
    assert not any(box.is_checked() for box in boxes.all())
    page.get_by_role("button", name="Show all").click()
    assert all(layer.is_visible() for layer in layers.all())
    before = photograph(page)
    page.get_by_label("Strength of the colours").fill("0")
    assert np.abs(before - photograph(page)).max() > 20, "the overlay was to be seen"


def test_an_overlay_marks_the_pixels_of_its_class(visit, report, prediction):
    page = visit(report)
    name = prediction.summary.transitions[0].to_class
    image = page.get_by_alt_text(f"Where it became {name}")
    marked = image.evaluate(
        """image => {
            const canvas = document.createElement("canvas");
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [canvas.height, canvas.width, ...data.filter((_, i) => i % 4 == 3)];
        }"""
    )
    height, width, *alpha = marked
    with rasterio.open(prediction.folder / "after_class.tif") as dataset:
        classes = dataset.read(1)
        value = next(k for k, v in dataset.tags(1).items() if v == name).removeprefix("class_")
    assert ((np.reshape(alpha, (height, width)) > 0) == (classes == int(value))).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", ["mapped", "surveyed", "doubtful"])
def test_axe_finds_nothing_serious_and_nothing_sticks_out(
    examine, report, surveyed, doubtful, screen, scheme, kind
):
    folders = {"mapped": report.parent, "surveyed": surveyed, "doubtful": doubtful}
    examine(folders[kind] / "report.html", screen, scheme)


@pytest.mark.parametrize("medium", ["screen", "print"])
def test_cautions_stand_above_the_headline(visit, doubtful, medium):
    page = visit(doubtful / "report.html")
    page.emulate_media(media=medium)
    note = page.get_by_role("note", name="2 reasons to doubt this map")
    assert "Scale: pixels of <b>5</b> m. What helps: --grid 0.5." in note.inner_text()
    frame = note.bounding_box()
    assert frame["y"] + frame["height"] <= page.locator("h1").bounding_box()["y"]
    assert page.locator("[role=note] ~ .overline ~ h1").count() == 1


def test_in_print_before_and_after_lie_side_by_side(visit, report):
    page = visit(report)
    page.emulate_media(media="print")
    before, after, layers = (
        page.locator(name).bounding_box() for name in (".pane.before", ".pane.after", ".layers")
    )
    assert before["x"] + before["width"] <= after["x"]
    assert before["y"] == after["y"]
    assert layers == after
    assert clip_of(page) == "none"
    assert page.pdf(format="A4")[:4] == b"%PDF"


def test_a_zone_carries_the_number_of_its_row(visit, surveyed):
    page = visit(surveyed / "report.html")
    rows = page.locator("table:has(#zones-caption) tbody tr").all()
    numbers = page.locator(".zone-number").all()
    assert len(numbers) == len(rows) - 1 == 3, "one zone lies away from the map"
    for number in numbers:
        number.scroll_into_view_if_needed()
        title = number.evaluate(
            """number => {
                const frame = number.getBoundingClientRect();
                const [x, y] = [frame.x + frame.width / 2, frame.y + frame.height / 2];
                return document.elementFromPoint(x, y).querySelector("title").textContent;
            }"""
        )
        row = rows[int(number.text_content()) - 1]
        assert title.startswith(row.locator("th").text_content() + ":")


def test_intervals_lie_on_the_scale_below_them(visit, surveyed):
    page = visit(surveyed / "report.html")
    changed = json.loads((surveyed / "area_estimates.json").read_text())["change"]["classes"][-1]
    ticks = page.locator(".tick-text").evaluate_all(
        """ticks => ticks.map(tick => {
            const frame = tick.getBoundingClientRect();
            return [frame.x + frame.width / 2, Number(tick.textContent.replace(",", ""))];
        })"""
    )
    scale, origin = np.polyfit(*np.transpose(ticks), 1)
    first = page.locator(".interval.first")
    mapped, span, dot = (
        first.locator(name).bounding_box() for name in (".mapped", ".span", ".estimated")
    )
    low, high = changed["area_ha"]["interval_95_percent"]
    for x, expected in (
        (mapped["x"] + mapped["width"], changed["mapped_ha"]),
        (dot["x"] + dot["width"] / 2, changed["area_ha"]["value"]),
        (span["x"], low),
        (span["x"] + span["width"], high),
    ):
        assert origin + scale * x == pytest.approx(expected, abs=1.5 * scale)


def test_hostile_names_of_classes_and_files_stay_text(visit, mapper):
    hostile = (
        "<img src=x onerror='window.hacked=1'>",
        '"></style><script>window.hacked=1</script>',
        "{{ 7 * 7 }}' onmouseover='window.hacked=1",
    )
    classes = ClassTable(
        ("unchanged", *hostile), ((255, 255, 255), (200, 0, 0), (0, 200, 0), (0, 0, 200))
    )
    names = ("<b onclick=x>before&amp;.tif", "'after\".tif")
    model = save_eager_model(classes, mapper.folder / "model")
    result = mapper.predict(names=names, model=model)
    occurring = {row.to_class for row in result.summary.transitions}
    page = visit(result.folder / "report.html")
    for name in names:
        assert page.get_by_text(name).count() > 0
    for name in occurring:
        assert page.locator("fieldset .name").get_by_text(name, exact=True).count() == 1
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1
    assert page.locator("style").count() == 1
