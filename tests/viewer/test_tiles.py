"""Tiles against the raster, read by rasterio at the same place."""

import io
import json

import numpy as np
import pytest
import rasterio
from morecantile import Tile
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window
from rio_tiler.reader import part

from terradelta.errors import DataError, OutputError, RasterError
from terradelta.fields import write_fields
from terradelta.geo.cog import read_classes
from terradelta.viewer import reduction
from terradelta.viewer.result import Result
from terradelta.viewer.tiles import MERCATOR_TILES, TILE_SIZE_PX, ChangeTiles, ImageTiles

from .conftest import add_cautions, connect, edit_run


def find_tile(bounds, zoom):
    west, south, east, north = bounds
    tile = MERCATOR_TILES.tile((west + east) / 2, (south + north) / 2, zoom)
    return tile.z, tile.x, tile.y


def locate(tile, crs, count=400, seed=0):
    """Return rows and columns of random pixels of a tile, and where in `crs` their centres lie."""
    zoom, column, row = tile
    left, bottom, right, top = MERCATOR_TILES.xy_bounds(Tile(column, row, zoom))
    rows, columns = np.random.default_rng(seed).integers(0, TILE_SIZE_PX, (2, count))
    xs = left + (columns + 0.5) * (right - left) / TILE_SIZE_PX
    ys = top - (rows + 0.5) * (top - bottom) / TILE_SIZE_PX
    return rows, columns, list(zip(*transform("EPSG:3857", crs, xs, ys), strict=True))


def fetch(client, layer, tile, **query):
    answer = client.get(f"/tiles/{layer}/{'/'.join(map(str, tile))}", params=query)
    assert answer.status_code == 200
    image = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == f"image/{(image.format or '').lower()}"
    return np.array(image.convert("RGBA"))


def compare(tile_HW4, dataset, tile, colour_of):
    """Return which share of random pixels has the colour of the raster's value there.

    Centres that lie within a tenth of a pixel of an edge may fall to either side.
    """
    rows, columns, places = locate(tile, dataset.crs)
    same = []
    for row, column, (x, y) in zip(rows, columns, places, strict=True):
        at_column, at_row = ~dataset.transform @ (x, y)
        if min(at_column % 1, at_row % 1, -at_column % 1, -at_row % 1) < 0.1:
            continue
        is_inside = 0 <= at_column < dataset.width and 0 <= at_row < dataset.height
        value = int(next(dataset.sample([(x, y)]))[0]) if is_inside else None
        same.append(tuple(tile_HW4[row, column]) == colour_of(value))
    assert len(same) > 100
    return np.mean(same)


@pytest.mark.parametrize("further_out", [0, -1])
def test_change_tiles_show_the_map_pixel_by_pixel(client, folder, further_out):
    classes = read_classes(folder / "before_class.tif")
    session = client.get("/api/session").json()
    layer = session["layers"]["change"]
    tile = find_tile(layer["bounds"], layer["max_zoom"] - further_out)

    def colour_of(value):
        if value in (None, 0, 255):
            return None
        return (*classes.colour_transition(value), 255)

    shown = fetch(client, "change", tile)
    assert (shown[..., 3] > 0).any()
    shown[shown[..., 3] == 0] = 0
    with rasterio.open(folder / "change.tif") as dataset:
        assert compare(shown, dataset, tile, lambda v: colour_of(v) or (0, 0, 0, 0)) == 1


def test_tiles_of_the_map_are_those_of_rio_tiler(folder):
    """Also where the raster covers but a part of the tile."""
    change = ChangeTiles(Result.load(folder))
    for zoom in (change.max_zoom, change.max_zoom + 1):
        for tile in MERCATOR_TILES.tiles(*change.bounds, zooms=zoom):
            (values_HW,), shown_HW = change.read((tile.z, tile.x, tile.y))
            with rasterio.open(folder / "change.tif") as dataset:
                expected = part(
                    dataset,
                    tuple(MERCATOR_TILES.xy_bounds(tile)),
                    bounds_crs=CRS.from_epsg(3857),
                    dst_crs=CRS.from_epsg(3857),
                    width=TILE_SIZE_PX,
                    height=TILE_SIZE_PX,
                )
            valid_HW = expected.mask > 0
            assert (shown_HW == valid_HW).mean() > 0.995
            both_HW = valid_HW & shown_HW
            same_HW = values_HW == expected.array.data[0]
            assert same_HW[both_HW].mean() > 0.995 or both_HW.sum() < 1000


def test_change_tiles_show_the_transitions_that_are_asked_for(client, folder):
    layer = client.get("/api/session").json()["layers"]["change"]
    tile = find_tile(layer["bounds"], layer["max_zoom"])
    everything = fetch(client, "change", tile)
    classes = read_classes(folder / "before_class.tif")
    colours, counts = np.unique(
        everything[everything[..., 3] > 0][:, :3], axis=0, return_counts=True
    )
    wanted = tuple(colours[counts.argmax()])
    (transition,) = [
        t for t in range(1, classes.num_transitions) if classes.colour_transition(t) == wanted
    ]
    some = fetch(client, "change", tile, transitions=transition)
    expected = (everything[..., :3] == wanted).all(axis=-1) & (everything[..., 3] > 0)
    assert ((some[..., 3] > 0) == expected).all()
    assert not fetch(client, "change", tile, transitions=0)[..., 3].any()


def test_image_tiles_are_the_rasters_warped_and_clear_without_data(client, scene):
    session = client.get("/api/session").json()
    for date in ("before", "after"):
        layer = session["layers"][date]
        tile = find_tile(layer["bounds"], layer["max_zoom"] - 2)
        left, bottom, right, top = MERCATOR_TILES.xy_bounds(Tile(*tile[1:], tile[0]))
        size = TILE_SIZE_PX
        with (
            rasterio.open(scene / f"{date}.tif") as dataset,
            WarpedVRT(
                dataset,
                crs="EPSG:3857",
                transform=rasterio.transform.from_bounds(left, bottom, right, top, size, size),
                width=size,
                height=size,
                resampling=Resampling.nearest,
                add_alpha=dataset.nodata is None,
            ) as warped,
        ):
            expected = np.moveaxis(warped.read([1, 2, 3]), 0, -1).astype(int)
            valid = warped.dataset_mask() > 0
        shown = fetch(client, date, tile)
        assert ((shown[..., 3] > 0) == valid).mean() > 0.999
        assert 0.02 < valid.mean() < 1
        both = valid & (shown[..., 3] > 0)
        # Compressed with losses and thinned before it is warped, so nearly; elsewhere not at all.
        error = np.abs(shown[..., :3] - expected)[both].mean()
        elsewhere = np.abs(shown[..., :3] - np.roll(expected, 8, axis=1))[both].mean()
        assert error < 7
        assert error < elsewhere / 3


def test_the_whole_world_is_a_tile_too(client):
    for layer in ("before", "change", "confidence"):
        assert client.get(f"/tiles/{layer}/0/0/0").status_code == 200


def test_confidence_tiles_grow_brighter_with_confidence(client, folder):
    layer = client.get("/api/session").json()["layers"]["change"]
    tile = find_tile(layer["bounds"], layer["max_zoom"])
    shown = fetch(client, "confidence", tile)
    with rasterio.open(folder / "confidence.tif") as dataset:
        rows, columns, places = locate(tile, dataset.crs)
        values = np.array([value[0] for value in dataset.sample(places)])
    seen = (values != 255) & (shown[rows, columns, 3] > 0)
    green = shown[rows, columns, 1][seen].astype(int)
    assert seen.sum() > 100
    # The green of viridis rises from its first step to its last.
    assert np.corrcoef(values[seen], green)[0, 1] > 0.9


def test_other_depths_are_stretched_by_the_recorded_range_or_their_own(scene, folder, tmp_path):
    paths = {}
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as source:
            profile = {**source.profile, "dtype": "uint16"}
            paths[date] = tmp_path / f"{date}.tif"
            with rasterio.open(paths[date], "w", **profile) as target:
                target.write(source.read().astype(np.uint16) * 10)
    result = Result.load(folder, **paths)
    assert result.rasters["after"] == paths["after"]
    low, high = ImageTiles(result, "after").value_range
    assert 0 < low < high < 2550
    plain = ImageTiles(Result.load(folder), "after")
    edit_run(folder, parameters={**write_fields(result.run.parameters), "value_range": [0, 2550]})
    scaled = ImageTiles(Result.load(folder, **paths), "after")
    tile = find_tile(plain.bounds, plain.max_zoom)
    images = [
        np.array(Image.open(io.BytesIO((tiles.draw(tile) or (b"", ""))[0])).convert("RGB"))
        for tiles in (scaled, plain)
    ]
    assert np.abs(images[0].astype(int) - images[1]).mean() < 1.5


def test_a_registered_shift_is_undone_in_the_after_image(folder):
    plain = ImageTiles(Result.load(folder), "after")
    edit_run(folder, shift_px=[8.0, 4.0])
    shifted = ImageTiles(Result.load(folder), "after")
    tile = find_tile(plain.bounds, plain.max_zoom - 1)
    first, second = (
        np.array(Image.open(io.BytesIO(tiles.draw(tile)[0])).convert("L")).astype(float)
        for tiles in (plain, shifted)
    )
    # What lay 8 columns to the right and 4 rows below is now here.
    zoom, column, row = tile
    left, _, right, _ = MERCATOR_TILES.xy_bounds(Tile(column, row, zoom))
    pixel_m = (right - left) / TILE_SIZE_PX * np.cos(np.radians(plain.bounds[1]))
    columns, rows = 8 * 0.5 / pixel_m, 4 * 0.5 / pixel_m
    best = min(
        ((dx, dy) for dx in range(60) for dy in range(40)),
        key=lambda d: np.abs(
            first[d[1] + 150 : d[1] + 300, d[0] + 150 : d[0] + 300] - second[150:300, 150:300]
        ).mean(),
    )
    assert best == pytest.approx((columns, rows), abs=1)


def _cut_in_four(path, folder):
    """Write the quarters of a raster and a list of them, and return the list."""
    with rasterio.open(path) as source:
        half = source.width // 2
        for number in range(4):
            window = Window(number % 2 * half, number // 2 * half, half, half)
            profile = {
                **source.profile,
                "width": half,
                "height": half,
                "transform": source.window_transform(window),
            }
            with rasterio.open(folder / f"{number}.tif", "w", **profile) as target:
                target.write(source.read(window=window))
    listing = folder / "quarters.txt"
    listing.write_text("".join(f"{number}.tif\n" for number in range(4)))
    return listing


@pytest.mark.parametrize("zooms_out", [0, 1, 3])
def test_a_mosaic_looks_like_the_raster_it_was_cut_from(scene, folder, tmp_path, zooms_out):
    mosaic = _cut_in_four(scene / "before.tif", tmp_path)
    whole = ImageTiles(Result.load(folder), "before")
    parts = ImageTiles(Result.load(folder, before=mosaic), "before")
    assert parts.bounds == pytest.approx(whole.bounds)
    assert parts.max_zoom == whole.max_zoom
    tile = find_tile(whole.bounds, whole.max_zoom - zooms_out)
    images = [
        np.array(Image.open(io.BytesIO(tiles.draw(tile)[0])).convert("RGBA")).astype(int)
        for tiles in (whole, parts)
    ]
    opaque = [image[..., 3] > 0 for image in images]
    assert (opaque[0] == opaque[1]).mean() > 0.99
    both = opaque[0] & opaque[1]
    assert both.mean() > 0.003
    # The one takes the nearest pixel, the other blends, and both are compressed with losses.
    error = np.abs(images[0] - images[1])[both].mean()
    elsewhere = np.abs(images[0] - np.roll(images[1], 8, axis=1))[both].mean()
    assert error < elsewhere / 2


def test_a_mosaic_is_served_to_the_page(scene, folder, tmp_path):
    mosaic = _cut_in_four(scene / "before.tif", tmp_path)
    edit_run(folder, before={"path": str(mosaic), "header_sha256": "of another"})
    with connect(folder) as client:
        layer = client.get("/api/session").json()["layers"]["before"]
        assert layer["name"] == "quarters.txt"
        tiles = [find_tile(layer["bounds"], layer["max_zoom"] - out) for out in (0, 1, 2, 3)]
        for tile in tiles:
            assert fetch(client, "before", tile)[..., 3].any()


def test_an_image_without_overviews_is_read_once_for_far_zooms(folder, monkeypatch):
    monkeypatch.setattr(reduction, "LARGE_PX", 200)
    direct = ImageTiles(Result.load(folder), "before")
    assert direct.reduction is not None
    direct.reduction.join()
    assert direct.reduction.is_done
    tile = find_tile(direct.bounds, direct.max_zoom - reduction.ZOOMS)
    from_copy = np.array(Image.open(io.BytesIO(direct.draw(tile)[0])).convert("RGBA")).astype(int)
    direct.reduction = None
    from_image = np.array(Image.open(io.BytesIO(direct.draw(tile)[0])).convert("RGBA")).astype(int)
    both = (from_copy[..., 3] > 0) & (from_image[..., 3] > 0)
    assert (from_copy[..., 3] > 0).sum() == pytest.approx((from_image[..., 3] > 0).sum(), rel=0.1)
    assert np.abs(from_copy - from_image)[both].mean() < 12


def test_while_the_copy_is_made_far_tiles_are_empty_and_near_ones_drawn(folder, monkeypatch):
    monkeypatch.setattr(reduction, "LARGE_PX", 200)
    monkeypatch.setattr(reduction.Reduction, "start", lambda self: None)
    with connect(folder) as client:
        layer = client.get("/api/session").json()["layers"]["before"]
        assert client.get("/api/preparation").json()["before"]["is_done"] is False
        for zoom, status in ((layer["max_zoom"] - 2, 204), (layer["max_zoom"], 200)):
            z, x, y = find_tile(layer["bounds"], zoom)
            assert client.get(f"/tiles/before/{z}/{x}/{y}").status_code == status


def test_what_cannot_be_shown_says_what_to_do(folder, tmp_path):
    with pytest.raises(OutputError, match=r"run\.json cannot be read"):
        Result.load(tmp_path / "nothing")
    run = json.loads((folder / "run.json").read_text())
    edit_run(folder, before={**run["before"], "path": str(tmp_path / "moved.tif")})
    with pytest.raises(RasterError, match=r"moved\.tif") as caught:
        Result.load(folder)
    assert "--before FILE" in caught.value.fix
    assert Result.load(folder, before=run["before"]["path"])
    edit_run(folder, grid={**run["grid"], "crs": None})
    with pytest.raises(RasterError, match="no coordinate reference system") as caught:
        Result.load(folder)
    assert "picture.png" in caught.value.fix
    (folder / "change.tif").unlink()
    with pytest.raises(DataError, match="no map of changes"):
        Result.load(folder)


def test_scaled_rasters_look_like_the_plain_ones(scene, folder, tmp_path):
    """Stored numbers are values by their tags, in the file itself and in a mosaic."""
    path = tmp_path / "after.tif"
    with rasterio.open(scene / "after.tif") as source:
        profile = {**source.profile, "dtype": "uint16"}
        with rasterio.open(path, "w", **profile) as target:
            target.write(source.read().astype(np.uint16) * 16 + 1000)
            target.scales, target.offsets = (1e-4,) * 3, (-0.1,) * 3
    parameters = write_fields(Result.load(folder).run.parameters)
    plain = ImageTiles(Result.load(folder), "after")
    tile = find_tile(plain.bounds, plain.max_zoom)
    ranges = {"value_range": [0, 255], "after_value_range": [0, 0.408]}
    edit_run(folder, parameters={**parameters, **ranges})
    listing = tmp_path / "after.txt"
    listing.write_text("after.tif\n")
    pictures = [plain] + [
        ImageTiles(Result.load(folder, after=source), "after") for source in (path, listing)
    ]
    images = [
        np.array(Image.open(io.BytesIO((tiles.draw(tile) or (b"", ""))[0])).convert("RGB"))
        for tiles in pictures
    ]
    for image in images[1:]:
        assert np.abs(images[0].astype(int) - image).mean() < 1.5


def test_the_session_says_cautions_and_dates(folder):
    add_cautions(folder, 1)
    edit_run(folder, dates={"before": {"text": "2009-07", "origin": "tag"}, "after": None})
    with connect(folder) as client:
        session = client.get("/api/session").json()
    assert [caution["name"] for caution in session["cautions"]] == ["scale0"]
    names = [session["layers"][date]["name"] for date in ("before", "after")]
    assert names == ["before.tif (2009-07)", "after.tif"]
