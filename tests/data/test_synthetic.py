from dataclasses import replace

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.features import shapes
from shapely import Polygon
from shapely.geometry import shape as read_geometry

from terradelta.classes import SENSEEARTH
from terradelta.data.images import read_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import draw_pair, write_folders, write_geotiff_pair
from terradelta.data.synthetic.materials import Palette
from terradelta.data.synthetic.place import Place
from terradelta.data.synthetic.render import Light, cast_shadow, shift_picture
from terradelta.data.synthetic.scene import Scenery
from terradelta.data.synthetic.shapes import (
    CROWN,
    GROUND,
    MARKING,
    PATH,
    RIVER,
    ROOF,
    ROOF_DETAIL,
    WATER,
    Frame,
)
from terradelta.errors import ArgumentError, OutputExistsError

SEEDS = range(40)


@pytest.fixture(scope="module")
def scenes():
    return [draw_pair(seed, 192) for seed in SEEDS]


def test_a_seed_draws_the_same_bytes_and_others_draw_others(scenes):
    again = draw_pair(3, 192)
    assert all((a == b).all() for a, b in zip(again, scenes[3], strict=True))
    assert not (scenes[4].before_CHW == scenes[3].before_CHW).all()
    assert not (draw_pair((3, 1), 192).before_CHW == scenes[3].before_CHW).all()


def test_shapes_and_types():
    scene = draw_pair(1, (100, 140))
    assert scene.before_CHW.shape == scene.after_CHW.shape == (3, 100, 140)
    assert scene.before_class_HW.shape == (100, 140)
    assert {layer.dtype for layer in scene} == {np.dtype(np.uint8)}


def test_labels_are_the_land_cover_where_it_differs_and_0_elsewhere(scenes):
    for scene in scenes:
        before, after = scene.labels
        assert ((before == 0) == (after == 0)).all()
        assert ((before != after) == scene.change_HW).all()
        assert (before[scene.change_HW] == scene.before_class_HW[scene.change_HW]).all()
        assert set(np.unique(scene.before_class_HW)) <= set(range(1, 7))


def test_all_classes_and_the_changes_of_a_real_place_occur(scenes):
    for classes in ("before_class_HW", "after_class_HW"):
        seen = np.unique(np.concatenate([getattr(s, classes).ravel() for s in scenes]))
        assert list(seen) == [1, 2, 3, 4, 5, 6]
    ids = {name: number for number, name in enumerate(SENSEEARTH.names)}
    pixels = sum(
        np.bincount(SENSEEARTH.encode_transition(*s.labels).ravel(), minlength=49) for s in scenes
    )
    for was, became in (
        ("ground", "building"),
        ("low vegetation", "building"),
        ("building", "ground"),
        ("tree", "ground"),
        ("tree", "low vegetation"),
        ("low vegetation", "tree"),
        ("low vegetation", "water"),
        ("water", "low vegetation"),
        ("low vegetation", "ground"),
        ("low vegetation", "playground"),
    ):
        assert pixels[SENSEEARTH.encode_transition(ids[was], ids[became])] > 100, (was, became)


def test_bare_lots_are_ragged_where_roofs_are_rectangles():
    rectangularity = {"ground": [], "building": []}
    for seed in SEEDS:
        scene = draw_pair(seed, 256, change_rate=0.4)
        for name, shares in rectangularity.items():
            is_new_HW = scene.change_HW & (scene.after_class_HW == SENSEEARTH.names.index(name))
            for outline, _ in shapes(is_new_HW.astype(np.uint8), mask=is_new_HW):
                # Of the size of a lot or a house, at 0.5 m: parking lots have corners.
                patch = Polygon(read_geometry(outline).exterior)
                if 400 < patch.area < 2000:
                    shares.append(patch.area / patch.minimum_rotated_rectangle.area)
    assert min(map(len, rectangularity.values())) > 30
    assert np.median(rectangularity["building"]) > 0.85
    assert np.percentile(rectangularity["ground"], 90) < 0.85


def test_the_share_of_change_varies_from_none_to_much(scenes):
    shares = [scene.change_HW.mean() for scene in scenes]
    assert 0.03 < np.mean(shares) < 0.25
    assert max(shares) > 0.2
    for seed in SEEDS:
        assert not draw_pair(seed, 96, change_rate=0.0).change_HW.any()


def test_unchanged_ground_looks_different_but_stays_registered():
    for seed in range(8):
        scene = draw_pair(seed, 256, change_rate=0.0)
        before = scene.before_CHW.mean(axis=0)
        after = scene.after_CHW.mean(axis=0)
        assert np.abs(before - after).mean() > 4
        assert max(map(abs, find_shift(before, after))) <= 2


def find_shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Whole-pixel shift between two pictures by phase correlation of their edges."""
    edges = [np.hypot(*np.gradient(picture)) for picture in (before, after)]
    spectra = [np.fft.fft2(edge - edge.mean()) for edge in edges]
    product = spectra[0] * spectra[1].conj()
    surface = np.fft.ifft2(product / (np.abs(product) + 1e-9)).real
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    height, width = surface.shape
    return (row + height // 2) % height - height // 2, (column + width // 2) % width - width // 2


def test_colour_differences_alone_do_not_give_the_change_away(scenes):
    """The best single threshold on the colour distance stays far below a useful map."""
    distance = np.concatenate(
        [np.abs(s.before_CHW.astype(int) - s.after_CHW).sum(axis=0).ravel() for s in scenes]
    )
    change = np.concatenate([s.change_HW.ravel() for s in scenes])
    ious = []
    for threshold in np.percentile(distance, np.arange(5, 100, 5)):
        flagged = distance > threshold
        ious.append((flagged & change).sum() / (flagged | change).sum())
    assert max(ious) < 0.5


def test_a_shifted_picture_is_interpolated():
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (3, 20, 1))
    assert (shift_picture(ramp, (0.5, 0.0))[:, :, 1:] == ramp[:, :, 1:] - 5).all()
    whole = shift_picture(np.moveaxis(ramp, 1, 2), (0.0, 2.0))
    assert (whole[:, 2:] == np.moveaxis(ramp, 1, 2)[:, :-2]).all()


def make_light(azimuth: float, shadow_length: float) -> Light:
    drawn = Light.draw(np.random.default_rng(0), largest_shift_px=0.0)
    return replace(drawn, azimuth=azimuth, shadow_length=shadow_length)


def test_shadows_fall_away_from_the_sun_as_long_as_what_casts_them_is_high():
    height_px = np.zeros((60, 60), np.float32)
    height_px[20:30, 20:30] = 8.0
    shadow = cast_shadow(height_px, 10, make_light(azimuth=0.0, shadow_length=0.5))
    expected = np.zeros((40, 40), bool)
    # 8 px high makes 4 px, less the half pixel of height that a roof forgives itself.
    expected[10:20, 20:23] = True
    assert (shadow == expected).all()
    outside = np.zeros((60, 60), np.float32)
    outside[:, :9] = 8.0
    assert cast_shadow(outside, 10, make_light(azimuth=0.0, shadow_length=1.0))[:, 0].all()


def test_a_roof_takes_the_shadow_of_what_is_higher():
    height_px = np.zeros((40, 40), np.float32)
    height_px[10:30, 10:20] = 12.0
    height_px[10:30, 20:30] = 5.0
    shadow = cast_shadow(height_px, 5, make_light(azimuth=0.0, shadow_length=1.0))
    assert shadow[5:25, 15:20].all()
    assert not shadow[5:25, 5:15].any()


def test_rivers_are_bridged_by_streets_and_nothing_else_stands_in_them():
    standing, rivers = {PATH, MARKING, ROOF, ROOF_DETAIL, CROWN}, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        frame = Frame(0.5, 0.3, (128.0, 128.0))
        place = Place(rng, Palette(np.random.default_rng(0)), frame, 96.0, 0.3)
        water = [
            Polygon(s.outline) for s in place.shapes if (s.layer, s.class_id) == (RIVER, WATER)
        ]
        rivers += bool(water)
        for shape in place.shapes:
            if shape.layer in standing:
                assert not any(bed.intersects(Polygon(shape.outline)) for bed in water)
    assert rivers > 2


def test_a_fenced_place_has_a_street_of_one_colour_along_its_edge():
    for seed in range(6):
        scene = Scenery((seed,)).draw((seed, 0), (192, 192), 0.5, fenced=True)
        for classes in (scene.before_class_HW, scene.after_class_HW):
            edge = np.concatenate([classes[0], classes[-1], classes[:, 0], classes[:, -1]])
            assert (edge == GROUND).mean() > 0.9  # the rest are crowns


def test_folders_are_a_data_set(tmp_path):
    write_folders(tmp_path / "drawn", 3, seed=7, size_px=64)
    pairs = find_pairs(tmp_path / "drawn").pairs
    assert [pair.name for pair in pairs] == ["00000", "00001", "00002"]
    for number, pair in enumerate(pairs):
        scene = draw_pair((7, number), 64)
        image = np.moveaxis(np.asarray(Image.open(pair.before)), -1, 0)
        assert (image == scene.before_CHW).all()
        assert (read_mask(pair.after_label, SENSEEARTH) == scene.labels[1]).all()
    with pytest.raises(OutputExistsError):
        write_folders(tmp_path / "drawn", 3, seed=7, size_px=64)


def test_a_geotiff_pair_holds_its_truth_at_any_size(tmp_path):
    write_geotiff_pair(tmp_path / "a", 11, (400, 500), gsd_m=0.5)
    layers = {}
    for name in ("before", "after", "before_class", "after_class", "change"):
        with rasterio.open(tmp_path / "a" / f"{name}.tif") as dataset:
            assert (dataset.height, dataset.width) == (400, 500)
            assert dataset.crs.to_epsg() == 32632
            assert dataset.res == (0.5, 0.5)
            layers[name] = dataset.read().squeeze()
    before, after = layers["before_class"], layers["after_class"]
    expected = np.where(before != after, SENSEEARTH.encode_transition(before, after), 0)
    assert (layers["change"] == expected).all()
    assert layers["before"].any(axis=0).all()

    write_geotiff_pair(tmp_path / "b", 11, (390, 384), gsd_m=0.5)
    with rasterio.open(tmp_path / "b" / "after.tif") as dataset:
        assert (dataset.read() == layers["after"][:, :390, :384]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size_px": 8}, "8 px is smaller"), ({"size_px": 64, "gsd_m": 30}, "30 m were requested")],
)
def test_scenes_that_cannot_be_drawn_are_refused(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        write_folders(tmp_path / "x", 1, 0, **options)
    with pytest.raises(ArgumentError, match="not a coordinate reference system"):
        write_geotiff_pair(tmp_path / "y", 0, 64, crs="EPSG:banana")
    assert not list(tmp_path.iterdir())
