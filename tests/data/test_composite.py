"""Composed pairs against sources whose pixels say what they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.composite import Composition, LabelledScene, compose_pair
from terradelta.data.composite import compose as compose_pairs
from terradelta.data.dataset import ChangeDataset
from terradelta.data.images import read_image, read_mask
from terradelta.data.layouts import find_pairs
from terradelta.errors import ArgumentError, DataError, OutputExistsError

PLAIN = Composition(
    light=0, season=0, blur_px=0, noise=0, largest_shift_px=0, seam_px=0, harmony=0, unchanged=0
)
OWN = ClassTable(
    names=("unchanged", "sand", "roof", "lake"),
    colours=((155, 155, 155), (200, 180, 90), (150, 20, 20), (20, 60, 200)),
)
DUBAI = ClassTable(
    names=("unchanged", "building", "land", "road", "vegetation", "water"),
    colours=(
        (155, 155, 155),
        (60, 16, 152),
        (132, 41, 246),
        (110, 193, 228),
        (254, 221, 58),
        (226, 169, 41),
    ),
)


def make_scene(seed: int, size: tuple[int, int] = (150, 170)) -> LabelledScene:
    """Boxes of classes 1 to 3 and of unlabelled ground: red tells the class, green the scene."""
    rng = np.random.default_rng(seed)
    classes_HW = np.full(size, 1, np.uint8)
    for _ in range(60):
        top, left = (int(rng.integers(side - 4)) for side in size)
        height, width = rng.integers(4, 30, 2)
        classes_HW[top : top + height, left : left + width] = rng.integers(4)
    image_CHW = np.stack(
        [classes_HW * 50 + 30, np.full(size, 40 + seed), rng.integers(0, 256, size)]
    )
    return LabelledScene(image_CHW.astype(np.uint8), classes_HW)


def compose(seed: int, options: Composition, size_px: int = 96):
    rng = np.random.default_rng(seed)
    return compose_pair(rng, make_scene(1), make_scene(2), size_px, options)


def write_sources(folder, count: int = 3, size: tuple[int, int] = (90, 100)):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        scene = make_scene(number, size)
        picture_HWC = np.moveaxis(scene.image_CHW, 0, -1)
        Image.fromarray(picture_HWC).save(folder / "images" / f"{number}.png")
        colours_HWC = np.array(OWN.colours, np.uint8)[scene.classes_HW]
        Image.fromarray(colours_HWC).save(folder / "masks" / f"{number}.png")
    return folder / "images", folder / "masks"


def read_bytes(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("seed", range(8))
def test_the_land_cover_of_both_dates_is_what_their_pixels_say(seed):
    pair = compose(seed, replace(PLAIN, decoys=0))
    assert pair.change_HW.any()
    for image_CHW, classes_HW in (
        (pair.before_CHW, pair.before_class_HW),
        (pair.after_CHW, pair.after_class_HW),
    ):
        assert (image_CHW[0] == classes_HW * 50 + 30).all()


@pytest.mark.parametrize("decoys", [0, 20])
def test_outside_of_pastes_the_dates_are_equal_and_changes_are_pastes(decoys):
    for seed in range(8):
        pair = compose(seed, replace(PLAIN, decoys=decoys, seam_px=1.5, harmony=0.5))
        differs_HW = (pair.before_CHW != pair.after_CHW).any(axis=0)
        before_HW, after_HW = pair.labels
        assert ((before_HW != 0) == pair.change_HW).all()
        assert ((after_HW != 0) == pair.change_HW).all()
        assert (differs_HW[pair.change_HW]).all()
        assert not (differs_HW & ~pair.pasted_HW).any()
        if decoys == 0:
            assert (differs_HW == pair.change_HW).all()
            assert (pair.pasted_HW == pair.change_HW).all()


def test_decoys_are_seams_without_change():
    both = relit = 0
    for seed in range(20):
        pair = compose(seed, replace(PLAIN, unchanged=1, decoys=6, smallest_px=10))
        assert not pair.change_HW.any()
        differs_HW = (pair.before_CHW != pair.after_CHW).any(axis=0)
        foreign_HW = (pair.before_CHW[1] == 42) & (pair.after_CHW[1] == 42)
        both += foreign_HW.sum()
        relit += differs_HW.sum()
        assert not (foreign_HW & ~pair.pasted_HW).any()
    assert both > 1000
    assert relit > 1000


def test_what_is_not_labelled_is_neither_pasted_nor_pasted_over():
    for seed in range(8):
        pair = compose(seed, replace(PLAIN, decoys=20, seam_px=2.0))
        unlabelled_HW = pair.before_class_HW == 0
        assert unlabelled_HW.any()
        assert (unlabelled_HW == (pair.after_class_HW == 0)).all()
        assert not (unlabelled_HW & pair.pasted_HW).any()
        hard = compose(seed, replace(PLAIN, decoys=0))
        for image_CHW in (hard.before_CHW, hard.after_CHW):
            assert (image_CHW[1, image_CHW[0] == 30] == 41).all()  # of the scene itself


def test_a_real_other_date_lies_below_what_is_pasted_in_either_order():
    """Of the other date the third band is the negative, so a sum tells which dates are which."""
    scene = make_scene(1)
    negative_CHW = scene.image_CHW.copy()
    negative_CHW[2] = 255 - negative_CHW[2]
    negative_CHW[1] = 200
    scene = scene._replace(other_date_CHW=negative_CHW)
    firsts = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pair = compose_pair(rng, scene, make_scene(2), 96, replace(PLAIN, decoys=0))
        assert pair.change_HW.any()
        below_HW = ~pair.pasted_HW
        assert (pair.before_CHW[0] == pair.after_CHW[0])[below_HW].all()
        sums_HW = pair.before_CHW[2].astype(int) + pair.after_CHW[2]
        assert (sums_HW[below_HW] == 255).all()
        firsts |= set(np.unique(pair.before_CHW[1][below_HW]).tolist())
        assert ((pair.before_class_HW != pair.after_class_HW) == pair.change_HW).all()
    assert firsts == {41, 200}
    with pytest.raises(DataError, match="other date"):
        compose_pair(
            np.random.default_rng(0),
            scene._replace(other_date_CHW=negative_CHW[:, :-1]),
            make_scene(2),
            96,
            PLAIN,
        )


def test_objects_keep_their_own_outline_and_come_at_either_date():
    """Crosses on plain ground: what changes are whole crosses, half of them at each date."""
    classes_HW = np.ones((64, 64), np.uint8)
    classes_HW[20:35, 25:28] = classes_HW[26:29, 20:33] = 2
    cross = LabelledScene(np.stack([classes_HW * 100] * 3), classes_HW)
    plain = LabelledScene(np.full((3, 64, 64), 100, np.uint8), np.ones((64, 64), np.uint8))
    size_px = int((classes_HW == 2).sum())
    options = replace(PLAIN, objects=1, regions=0, decoys=0)
    dates = []
    for seed in range(200):
        pair = compose_pair(np.random.default_rng(seed), plain, cross, 64, options)
        counts = [int((c == 2).sum()) for c in (pair.before_class_HW, pair.after_class_HW)]
        assert sorted(counts) in ([0, size_px], [0, 0])
        dates += [date for date in (0, 1) if counts[date]]
    assert len(dates) > 100  # a third of the draws takes the plain scene, which has no objects
    assert 0.4 < np.mean(dates) < 0.6


def test_appearing_is_as_frequent_as_vanishing():
    counts = np.zeros((4, 4))
    for seed in range(120):
        pair = compose(seed, PLAIN, 64)
        np.add.at(counts, pair.labels, 1)
    counts[0, 0] = 0
    for one in range(1, 4):
        for other in range(1, one):
            there, back = counts[one, other], counts[other, one]
            assert min(there, back) > 1000
            assert 0.7 < there / back < 1.4


def test_labels_fit_both_dates_to_half_the_largest_shift():
    """On a ramp every grey level is a column, and the class changes at column 50."""
    ramp_HW = np.tile(2 * np.arange(100, dtype=np.uint8), (100, 1))
    scene = LabelledScene(np.stack([ramp_HW] * 3), 1 + (ramp_HW >= 100).astype(np.uint8))
    options = replace(PLAIN, unchanged=1, decoys=0, largest_shift_px=3.0)
    shifts_px = []
    for seed in range(20):
        pair = compose_pair(np.random.default_rng(seed), scene, scene, 80, options)
        left = 50 - int((pair.before_class_HW[0] == 1).sum())
        truth_HW = np.tile(np.arange(left, left + 80), (80, 1))
        columns = [image_CHW[0] / 2.0 for image_CHW in (pair.before_CHW, pair.after_CHW)]
        for column_HW in columns:
            assert np.abs(column_HW - truth_HW).max() <= 1.5 + 0.25  # rounding of grey levels
        shifts_px.append((columns[0] - columns[1]).mean())
    assert max(map(abs, shifts_px)) > 2
    assert min(shifts_px) < 0 < max(shifts_px)


def test_light_season_blur_and_noise_differ_between_the_dates_and_leave_the_classes():
    still = replace(PLAIN, unchanged=1, decoys=0)
    bare = compose(3, still)
    for field in ("light", "season", "blur_px", "noise"):
        pair = compose(3, replace(still, **{field: 0.5}))
        assert (pair.before_class_HW == bare.before_class_HW).all()
        assert (pair.before_CHW != bare.before_CHW).any(), field
        assert (pair.before_CHW != pair.after_CHW).any(), field


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    sources = write_sources(tmp_path)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        compose_pairs(*sources, tmp_path / name, pairs=3, seed=seed, size_px=64, classes=OWN)
    first, again, other = (read_bytes(tmp_path / name) for name in "abc")
    # Six files a pair, the class table, and the list of what is terradelta's.
    assert len(first) == 3 * 6 + 2
    assert first == again
    assert all(first[path] != other[path] for path in first if path.parts[0] in ("im1", "im2"))
    # The first pairs stay what they are however many are asked for.
    compose_pairs(*sources, tmp_path / "d", pairs=1, seed=5, size_px=64, classes=OWN)
    fewer = read_bytes(tmp_path / "d")
    assert fewer.keys() - first.keys() == set()
    # The list of the folder's files is shorter too.
    assert {path for path in fewer if fewer[path] != first[path]} == {Path(".terradelta.json")}


def test_a_composed_folder_is_a_data_set_with_classes_of_its_own(tmp_path):
    compose_pairs(
        *write_sources(tmp_path), tmp_path / "set", pairs=4, seed=1, size_px=64, classes=OWN
    )
    found = find_pairs(tmp_path / "set")
    assert found.classes == OWN
    assert len(ChangeDataset(found)[0].before_CHW) == 3
    for pair in found.pairs:
        full = [read_mask(tmp_path / "set" / f / f"{pair.name}.png", OWN) for f in FULL]
        for label, full_HW in zip((pair.before_label, pair.after_label), full, strict=True):
            expected_HW = np.where(full[0] != full[1], full_HW, 0)
            assert (read_mask(label, found.classes) == expected_HW).all()
        assert read_image(pair.before).shape == (3, 64, 64)


FULL = ("full1", "full2")


def test_a_class_table_lies_with_the_splits_too_and_must_be_one(tmp_path):
    sources = write_sources(tmp_path)
    for split in ("train", "val"):
        compose_pairs(*sources, tmp_path / "set" / split, pairs=2, seed=1, size_px=64, classes=OWN)
    assert find_pairs(tmp_path / "set", "val").classes == OWN
    assert find_pairs(tmp_path / "set", "train", classes=SENSEEARTH).classes == SENSEEARTH
    table = tmp_path / "set" / "val" / "classes.json"
    table.write_text(table.read_text().replace("lake", "sea"))
    with pytest.raises(DataError, match=r"class tables .* differ"):
        find_pairs(tmp_path / "set", "train")
    table.write_text('{"names": ["a"]}')
    with pytest.raises(DataError, match="holds no class table"):
        find_pairs(tmp_path / "set", "train")


def test_sources_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path):
    images, masks = write_sources(tmp_path / "sources", 1)
    out = tmp_path / "set"

    def compose_here(**changes):
        settings = {"pairs": 1, "seed": 0, "size_px": 64, "classes": OWN, **changes}
        compose_pairs(images, masks, out, **settings)

    with pytest.raises(DataError, match="90 x 100 pixels, and the pair with its margin needs 98"):
        compose_here(size_px=96)
    with pytest.raises(ArgumentError, match="0 pairs"):
        compose_here(pairs=0)
    with pytest.raises(ArgumentError, match="8 px"):
        compose_here(size_px=8)
    with pytest.raises(DataError, match="200, 180, 90"):
        compose_here(classes=SENSEEARTH)
    Image.new("RGB", (100, 80), OWN.colours[1]).save(masks / "0.png")
    with pytest.raises(DataError, match="90 x 100 pixels, but its mask is 80 x 100"):
        compose_here()
    Image.new("RGB", (100, 90), OWN.colours[0]).save(masks / "0.png")
    with pytest.raises(DataError, match="labels no pixel"):
        compose_here()
    (masks / "0.png").unlink()
    with pytest.raises(DataError):
        compose_here()
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_an_existing_folder_is_kept_without_overwrite(tmp_path):
    sources = write_sources(tmp_path)
    settings = {"pairs": 1, "seed": 0, "size_px": 64, "classes": OWN}
    compose_pairs(*sources, tmp_path / "set", **settings)
    with pytest.raises(OutputExistsError):
        compose_pairs(*sources, tmp_path / "set", **settings)
    compose_pairs(*sources, tmp_path / "set", overwrite=True, **settings)


@pytest.mark.parametrize("field", ["objects", "unchanged", "light", "largest_shift_px"])
def test_options_out_of_range_are_refused(field):
    with pytest.raises(ArgumentError, match=f"{field} is -1"):
        Composition(**{field: -1})


def test_real_scenes_in_colours_and_palettes(tmp_path, shared):
    """Masks of area 1 are RGB, those of area 2 palette images."""
    for name, ending in (("images", "jpg"), ("masks", "png")):
        (tmp_path / name).mkdir()
        for scene in ("t1_image_part_003", "t2_image_part_003"):
            file = f"{scene}.{ending}"
            (tmp_path / name / file).symlink_to(shared / "data" / "dubai72" / name / file)
    folders = tmp_path / "images", tmp_path / "masks"
    compose_pairs(*folders, tmp_path / "set", pairs=6, seed=0, size_px=128, classes=DUBAI)
    found = find_pairs(tmp_path / "set")
    labels = np.stack([read_mask(pair.before_label, found.classes) for pair in found.pairs])
    assert 0.02 < (labels != 0).mean() < 0.6
    assert len(np.unique(labels)) >= 4
