import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from PIL import Image

import terradelta as td
from terradelta.classes import BINARY, ClassTable
from terradelta.errors import ArgumentError, OutputError, OutputExistsError
from terradelta.geo.grid import Grid
from terradelta.models.bundle import Model, load_card, save_model
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.reports import flow
from terradelta.reports.imagery import place_chip
from terradelta.reports.patch_list import find_share_of_largest, sort_by_size

from .conftest import save_eager_model

MAX_BYTES = 5_000_000


def read_transitions(folder):
    """Hectares (pixels without a CRS) by transition, from the CSV."""
    with (folder / "transitions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:-3]
    return {(row["from"], row["to"]): float(row["area_ha"] or row["pixels"]) for row in rows}


def test_the_matrix_is_that_of_the_csv(prediction, read_page):
    page = read_page(prediction.folder / "report.html")
    head, *rows, foot = page.tables[0]
    expected = read_transitions(prediction.folder)
    assert len(expected) > 5
    shown = 0
    for name, *cells in rows:
        for to, cell in zip(head[1:-1], cells[:-1], strict=True):
            area_ha = expected.get((name, to), 0)
            if area_ha == 0:
                assert cell == "·none"
            elif cell.startswith("<"):
                assert area_ha < float(cell.removeprefix("<")) / 2
            else:
                assert float(cell) == pytest.approx(area_ha, abs=0.0005)
            shown += area_ha > 0
        of_row = sum(area for (start, _), area in expected.items() if start == name)
        assert float(cells[-1].removeprefix("<")) == pytest.approx(of_row, abs=0.001)
    assert shown == len(expected)
    assert float(foot[-1]) == pytest.approx(sum(expected.values()), abs=0.0005)


def test_the_headline_names_area_share_and_the_largest_transition(prediction, read_page):
    text = read_page(prediction.folder / "report.html").text
    summary, largest = prediction.summary, prediction.summary.transitions[0]
    assert f"{summary.changed_percent:.1f} % of the" in text
    assert f"largest change is from {largest.from_class} to {largest.to_class}" in text
    assert f"{largest.area_ha:.3f} ha" in text


def test_patches_shown_are_the_largest_and_the_distribution_counts_all(prediction, read_page):
    page = read_page(prediction.folder / "report.html")
    frame = geopandas.read_file(prediction.folder / "changes.gpkg", layer="changes")
    largest = frame.sort_values("area_m2", ascending=False).iloc[:3]
    for patch in largest.itertuples():
        assert f"{patch.area_m2:,.0f} m²" in page.text
        point = geopandas.GeoSeries([patch.geometry.representative_point()], crs=frame.crs)
        place = point.to_crs(4326).iloc[0]
        assert f"{place.y:.5f}° N, {place.x:.5f}° E" in page.text
    for table in page.tables[1:3]:
        counted = sum(int(row[1].replace(",", "")) for row in table[1:])
        assert counted == len(frame)
    # Two pictures, one overlay for each class something became, two chips for each of the patches.
    became = {row.to_class for row in prediction.summary.transitions}
    assert len(page.pictures) == 2 + len(became) + 2 * 12
    assert all(picture.startswith("data:image/") for picture in page.pictures)
    assert (prediction.folder / "report.html").stat().st_size < MAX_BYTES


def decode(uri):
    content = base64.b64decode(uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float64)


def test_pictures_show_the_ground_of_the_map_also_of_an_area_of_interest(
    mapper, read_page, tmp_path
):
    with rasterio.open(mapper.scene / "before.tif") as dataset:
        left, top = dataset.transform @ (30, 20)
        right, bottom = dataset.transform @ (110, 90)
        crs = dataset.crs
    area = geopandas.GeoSeries([shapely.box(left, bottom, right, top)], crs=crs)
    area.to_file(tmp_path / "area.gpkg")
    result = mapper.predict(aoi=tmp_path / "area.gpkg")
    page = read_page(result.folder / "report.html")
    for date, uri in zip(("before", "after"), page.pictures[:2], strict=True):
        with rasterio.open(mapper.folder / f"{date}.tif") as dataset:
            expected = np.moveaxis(dataset.read()[:, 20:90, 30:110], 0, -1)
        assert np.abs(decode(uri) - expected).mean() < 8, "apart from what compression takes"

    # The first chip: the surroundings of the largest patch, before.
    frame = geopandas.read_file(result.folder / "changes.gpkg", layer="changes")
    patch = frame.sort_values("area_m2", ascending=False, kind="stable").geometry.iloc[0]
    with rasterio.open(result.folder / "change.tif") as dataset:
        grid = Grid.of(dataset)
    window = place_chip(patch, grid).window
    rows = slice(20 + window.row_off, 20 + window.row_off + window.height)
    columns = slice(30 + window.col_off, 30 + window.col_off + window.width)
    with rasterio.open(mapper.folder / "before.tif") as dataset:
        expected = np.moveaxis(dataset.read()[:, rows, columns], 0, -1)
    became = {row.to_class for row in result.summary.transitions}
    chip = decode(page.pictures[2 + len(became)])
    resized = Image.fromarray(expected).resize(chip.shape[1::-1], Image.Resampling.BICUBIC)
    assert np.abs(chip - np.asarray(resized)).mean() < 8


def test_the_check_and_the_provenance_are_there(prediction, read_page):
    text = read_page(prediction.folder / "report.html").text
    run = json.loads((prediction.folder / "run.json").read_text())
    assert run["models"][0]["sha256"] in text
    assert f"terradelta {td.__version__}" in text
    assert "both EPSG:32632" in text
    limits = load_card(DEFAULT_MODEL).limits
    assert limits
    assert all(limit in text for limit in limits)


def test_the_check_is_that_of_the_run_also_where_the_images_are_gone(mapper, read_page):
    result = mapper.predict(before_date="2009", after_date="2019-06")
    run = json.loads((result.folder / "run.json").read_text())
    messages = [finding["message"] for finding in run["findings"]]
    assert any("before is dated 2009 (flag), after 2019-06 (flag)" in text for text in messages)
    for name in ("before.tif", "after.tif"):
        (mapper.folder / name).unlink()
    td.report(result.folder, overwrite=True)
    text = read_page(result.folder / "report.html").text
    assert all(" ".join(message.split()) in text for message in messages)
    assert "before.tif (2009)" in text
    assert "taken 2019-06 (as given)" in text
    assert "There are no pictures here, because" in text


def test_a_prediction_of_an_earlier_version_has_no_findings_and_is_looked_over_again(
    mapper, read_page
):
    result = mapper.predict()
    path = result.folder / "run.json"
    run = json.loads(path.read_text())
    for key in ("findings", "cautions", "dates"):
        del run[key]
    path.write_text(json.dumps(run))
    summary = json.loads((result.folder / "summary.json").read_text())
    (result.folder / "summary.json").write_text(
        json.dumps({key: summary[key] for key in summary if key not in ("cautions", "dates")})
    )
    td.report(result.folder, overwrite=True)
    text = read_page(result.folder / "report.html").text
    assert "both EPSG:32632" in text
    assert "to doubt this map" not in text


def test_findings_may_lack_what_other_versions_do_not_write(mapper, read_page):
    result = mapper.predict()
    path = result.folder / "run.json"
    run = json.loads(path.read_text())
    for finding in run["findings"]:
        for key in ("fix", "is_doubt"):
            del finding[key]
    path.write_text(json.dumps(run))
    td.report(result.folder, overwrite=True)
    assert "both EPSG:32632" in read_page(result.folder / "report.html").text


def test_without_a_crs_it_shows_pixels(mapper, read_page):
    for name in ("before.tif", "after.tif"):
        mapper.copy(mapper.scene / name, mapper.folder / name, crs=None, transform=None)
    result = mapper.predict()
    page = read_page(result.folder / "report.html")
    assert f"{result.summary.changed_pixels:,} pixels changed" in page.text
    assert int(page.tables[0][-1][-1].replace(",", "")) == result.summary.changed_pixels
    assert "column " in page.text
    assert not re.search(r"\d ha\b", page.text)


def replace_threshold(folder, threshold):
    model = td.load_model(folder)
    return Model(model.network, replace(model.card, change_threshold=threshold))


def test_where_nothing_changed_it_says_so(mapper, read_page):
    save_model(replace_threshold(mapper.model, 1 - 1e-9), mapper.folder / "model")
    result = mapper.predict(model=mapper.folder / "model")
    assert result.summary.changed_pixels == 0
    page = read_page(result.folder / "report.html")
    assert "No change found in the" in page.text
    assert page.tables == []
    assert len(page.pictures) == 2


def test_made_again_without_the_images_it_says_so_and_leaves_pictures_out(mapper, read_page):
    result = mapper.predict()
    path = result.folder / "report.html"
    with pytest.raises(OutputExistsError, match="--overwrite"):
        td.report(result.folder)
    first = path.read_bytes()
    assert td.report(result.folder, overwrite=True) == path
    assert path.read_bytes() == first, "the same folder makes the same bytes"
    (mapper.folder / "before.tif").rename(mapper.folder / "moved.tif")
    td.report(result.folder, overwrite=True)
    page = read_page(path)
    assert "before.tif" in page.text
    assert "could not be read" in page.text
    assert "The largest" in page.text
    # Overlays alone, no photograph.
    assert not any("webp" in picture for picture in page.pictures)


def test_a_raster_that_is_another_one_by_now_is_not_shown(mapper, read_page):
    result = mapper.predict()
    for name in ("before.tif", "after.tif"):
        with rasterio.open(mapper.scene / name) as dataset:
            image, profile = dataset.read(), dataset.profile
        with rasterio.open(mapper.folder / name, "w", **profile) as dataset:
            dataset.write(image)
    td.report(result.folder, overwrite=True)
    page = read_page(result.folder / "report.html")
    assert "other pixels now than when it was mapped" in page.text
    assert not any("webp" in picture for picture in page.pictures)


def test_16_bit_images_nodata_and_parquet(mapper, read_page):
    for name in ("before.tif", "after.tif"):
        with rasterio.open(mapper.scene / name) as dataset:
            image, profile = dataset.read()[:, :128, :160], dataset.profile
        image = np.maximum(image, 1).astype(np.uint16) * 10
        image[:, :40, :50] = 0
        profile.update(dtype="uint16", nodata=0, width=160, height=128)
        with rasterio.open(mapper.folder / name, "w", **profile) as dataset:
            dataset.write(image)
    result = mapper.predict(value_range=(0, 2550), vector="parquet")
    page = read_page(result.folder / "report.html")
    share = 100 * 2000 / (128 * 160)
    assert f"{share:.1f} % of the map has no data" in page.text
    assert sum(int(row[1]) for row in page.tables[1][1:]) == result.summary.patches


def predict_with_classes(mapper, classes):
    return mapper.predict(model=save_eager_model(classes, mapper.folder / "model"))


def test_change_masks_have_no_matrix(mapper, read_page):
    result = predict_with_classes(mapper, BINARY)
    page = read_page(result.folder / "report.html")
    assert "distinguishes changed from unchanged" in page.text
    assert "From what to what" not in page.text
    assert len(page.tables) == 2


def test_many_classes_are_summed_not_dropped(mapper, read_page, monkeypatch):
    monkeypatch.setattr(flow, "MAX_CLASSES", 5)
    result = predict_with_classes(mapper, ClassTable.numbered(40))
    changed_ha = result.summary.changed_ha
    path = result.folder / "report.html"
    head, *_, foot = read_page(path).tables[0]
    names = {name for row in result.summary.transitions for name in (row.from_class, row.to_class)}
    assert len(names) > 5, "a test with few classes tests nothing"
    assert len(head) == 5 + 2
    assert head[-2] == f"{len(names) - 4} others"
    assert float(foot[-1]) == pytest.approx(changed_ha, abs=0.0005)
    assert path.stat().st_size < MAX_BYTES


def test_what_is_no_prediction_of_rasters_is_refused(prediction, tmp_path):
    with pytest.raises(ArgumentError, match="not a prediction of two rasters"):
        td.report(tmp_path)
    (tmp_path / "change.tif").touch()
    with pytest.raises(OutputError, match=r"run\.json cannot be read"):
        td.report(tmp_path)
    for name in ("summary.json", "run.json"):
        shutil.copy(prediction.folder / name, tmp_path)
    with pytest.raises(OutputError, match=r"change\.tif cannot be read"):
        td.report(tmp_path)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 1e300])
def test_sizes_that_are_none_are_sorted_all_the_same(odd):
    table = pandas.DataFrame(
        {"area_m2": [12.0, odd, 430.0], "pixels": [12, 1, 430], "confidence": [0.9, 0.4, 0.6]}
    )
    sizes = sort_by_size(table, has_area=True)
    assert sum(part.patches for part in sizes.bins) == 3
    assert len(sizes.bins) < 25
    assert all(np.isfinite(part.amount) for part in sizes.bins)
    assert 0 <= find_share_of_largest(table, has_area=True) <= 1
    assert 0 <= find_share_of_largest(table.assign(area_m2=odd), has_area=True) <= 1
