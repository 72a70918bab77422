"""Every finding is planted in a drawn set that has none, and is all that is found there."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.dataset import ChangeDataset
from terradelta.data.doctor import DoctorReport, Finding, examine, repair
from terradelta.data.doctor.evidence import find_shift, rate_change, sign
from terradelta.data.doctor.findings import shorten_list
from terradelta.data.images import read_change_mask, read_image, read_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, DataError, OutputExistsError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
SEED = 186  # all six classes among the first five pairs and among the last three
FOLDERS = ("im1", "im2", "label1", "label2")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "drawn"
    write_folders(root, 8, SEED, size_px=128)
    return root


@pytest.fixture
def flat(drawn, tmp_path) -> Path:
    return shutil.copytree(drawn, tmp_path / "flat")


@pytest.fixture
def split(drawn, tmp_path) -> Path:
    """Five pairs of training, three of validation."""
    root = tmp_path / "split"
    for number in range(8):
        for folder in FOLDERS:
            target = root / ("train" if number < 5 else "val") / folder
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / folder / f"{number:05d}.png", target)
    return root


@pytest.fixture
def binary(drawn, tmp_path) -> Path:
    root = tmp_path / "binary"
    for old, new in (("im1", "A"), ("im2", "B")):
        shutil.copytree(drawn / old, root / new)
    (root / "label").mkdir()
    for path in (drawn / "label1").iterdir():
        changed_HW = read_mask(path, SENSEEARTH) > 0
        write_mask(root / "label" / path.name, changed_HW.astype(np.uint8), BINARY)
    return root


def ids_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def save(path: Path, array: np.ndarray, **options):
    Image.fromarray(array.astype(np.uint8)).save(path, **options)


def colours_of(path: Path, table: ClassTable = SENSEEARTH) -> np.ndarray:
    return np.array(table.colours, np.uint8)[ids_of(path)]


def save_indexed(path: Path, ids_HW: np.ndarray, colours):
    image = Image.fromarray(ids_HW.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)


def assert_found(root: Path, code: str, files: list[str] | None, **options) -> Finding:
    """The planted thing is found, where it was planted, and nothing else is."""
    report = examine(root, **options)
    assert report.codes == (code,), report.to_text()
    finding = next(finding for finding in report.findings if finding.code == code)
    if files is not None:
        assert sorted(finding.files) == sorted(files)
    return finding


def assert_mended(root: Path, tmp_path: Path, code: str, **options) -> Path:
    before = {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    copy = repair(root, tmp_path / "copy", examine(root, **options))
    report = examine(copy, **options)
    assert report.codes == (), report.to_text()
    assert code in (copy / "CHANGES.txt").read_text()
    assert {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()} == before
    return copy


def names_in(copy: Path) -> list[str]:
    return [pair.name for pair in find_pairs(copy).pairs]


# No false alarms


def test_a_drawn_set_is_healthy_flat_and_split(flat, split):
    for root in (flat, split):
        report = examine(root)
        assert report.codes == (), report.to_text()
        assert report.level == "OK"


@pytest.mark.parametrize("high", [1, 255])
def test_a_set_of_change_masks_is_healthy(binary, high):
    for path in (binary / "label").iterdir():
        save(path, ids_of(path) * high)
    report = examine(binary)
    assert report.codes == (), report.to_text()
    assert any(f.code == "mask-change-255" for f in report.findings) == (high == 255)


def test_lists_and_a_csv_and_colours_are_healthy(flat):
    names = [f"{number:05d}" for number in range(8)]
    (flat / "train.txt").write_text("\n".join(names[:5]))
    (flat / "val.txt").write_text("\n".join(names[5:]))
    for label in ("label1", "label2"):
        for path in (flat / label).iterdir():
            save(path, colours_of(path))
    report = examine(flat)
    assert report.codes == (), report.to_text()
    assert report.findings[0].values["splits"] == {"train": 5, "val": 3, "unlisted": 0} or (
        report.findings[0].values["splits"] == {"train": 5, "val": 3}
    )
    assert any(f.code == "mask-colours" and len(f.files) == 16 for f in report.findings)
    table = flat / "pairs.csv"
    rows = [",".join(f"{folder}/{name}.png" for folder in FOLDERS) for name in names]
    table.write_text("\n".join(["before,after,before_label,after_label", *rows]))
    report = examine(table)
    assert report.codes == (), report.to_text()


def test_images_without_any_labels_are_healthy(flat, tmp_path):
    shutil.rmtree(flat / "label1")
    shutil.rmtree(flat / "label2")
    assert examine(flat).codes == ()
    copy = repair(flat, tmp_path / "copy")
    assert sorted(path.name for path in copy.iterdir()) == ["CHANGES.txt", "im1", "im2"]


# Masks


def plant_bgr(path):
    save(path, colours_of(path)[..., ::-1])


def plant_palette_bgr(path):
    save_indexed(path, ids_of(path), [colour[::-1] for colour in SENSEEARTH.colours])


def plant_palette_order(path):
    order = np.array([3, 5, 0, 6, 1, 4, 2])
    colours = [SENSEEARTH.colours[i] for i in np.argsort(order)]
    save_indexed(path, order[ids_of(path)], colours)


def plant_three_channels(path):
    save(path, np.repeat(ids_of(path)[..., None], 3, axis=2))


def plant_ignore(path):
    save(path, np.where(ids_of(path) == 0, 255, ids_of(path)))


FORMS = {
    "mask-bgr": plant_bgr,
    "palette-bgr": plant_palette_bgr,
    "palette-order": plant_palette_order,
    "mask-channels": plant_three_channels,
    "mask-ignore": plant_ignore,
}


@pytest.mark.parametrize("code", FORMS)
@pytest.mark.parametrize("few", [False, True])
def test_masks_of_another_form_are_found_and_their_ids_restored(flat, tmp_path, code, few):
    labels = sorted(p for label in ("label1", "label2") for p in (flat / label).iterdir())
    truth = {path: ids_of(path).copy() for path in labels}
    planted = labels[2:3] if few else labels
    for path in planted:
        FORMS[code](path)
    assert_found(flat, code, [path.relative_to(flat).as_posix() for path in planted])
    copy = assert_mended(flat, tmp_path, code)
    for path, ids_HW in truth.items():
        assert (read_mask(copy / path.relative_to(flat), SENSEEARTH) == ids_HW).all()


def test_bgr_masks_are_told_by_the_whole_set_where_one_alone_fits_both_orders(flat):
    """Blue and red are both classes: a mask of water alone reads as playground."""
    for label in ("label1", "label2"):
        for number, path in enumerate(sorted((flat / label).iterdir())):
            if number == 0:
                write_mask(path, (ids_of(path) > 0).astype(np.uint8), SENSEEARTH)
            plant_bgr(path)
    assert set(ids_of(flat / "label1/00000.png").reshape(-1, 3).sum(axis=1)) == {255, 765}
    report = examine(flat)
    found = next(finding for finding in report.findings if finding.code == "mask-bgr")
    assert len(found.files) == 16
    never = [finding for finding in report.findings if finding.code == "class-never"]
    assert not never  # playground of other pairs; none of it from the water


def test_0_255_masks_need_a_table_of_one_class(flat, tmp_path):
    for label in ("label1", "label2"):
        for path in (flat / label).iterdir():
            save(path, (ids_of(path) > 0) * 255)
    report = examine(flat)
    (found,) = (finding for finding in report.findings if finding.level == "FAIL")
    assert (found.code, found.action, len(found.files)) == ("mask-0-255", "left out", 16)
    with pytest.raises(DataError, match="no pair"):
        repair(flat, tmp_path / "copy", report)
    one = ClassTable(("none", "building"), ((0, 0, 0), (255, 0, 0)))
    mended = next(f for f in examine(flat, classes=one).findings if f.code == "mask-0-255")
    assert mended.action == "mended"
    copy = repair(flat, tmp_path / "copy", examine(flat, classes=one))
    assert set(np.unique(read_mask(copy / "label1/00002.png", one))) == {0, 1}


def test_a_single_0_255_mask_is_left_out(flat, tmp_path):
    path = flat / "label1/00003.png"
    save(path, (ids_of(path) > 0) * 255)
    assert_found(flat, "mask-0-255", ["label1/00003.png"])
    assert "00003" not in names_in(assert_mended(flat, tmp_path, "mask-0-255"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_jpeg_damage_is_named_and_left_out(flat, tmp_path, suffix):
    path = flat / "label1/00002.png"
    lossy = tmp_path / "lossy.jpg"
    save(lossy, colours_of(path), quality=90)
    if suffix == ".png":
        Image.open(lossy).save(path)
    else:
        path.unlink()
        lossy.rename(path.with_suffix(".jpg"))
    assert_found(flat, "mask-lossy", [f"label1/00002{suffix}"])
    assert "00002" not in names_in(assert_mended(flat, tmp_path, "mask-lossy"))


def test_a_change_mask_damaged_by_jpeg_is_cut_at_128(binary, tmp_path):
    path = binary / "label/00002.png"
    truth_HW = ids_of(path).copy()
    lossy = path.with_suffix(".jpg")
    save(lossy, truth_HW * 255, quality=90)
    path.unlink()
    assert_found(binary, "mask-lossy", ["label/00002.jpg"])
    copy = assert_mended(binary, tmp_path, "mask-lossy")
    assert (read_change_mask(copy / "label/00002.png") != truth_HW).mean() < 0.01


@pytest.mark.parametrize("planted", ["id", "colour"])
def test_values_of_no_class_are_named_and_left_out(flat, tmp_path, planted):
    path = flat / "label2/00001.png"
    if planted == "id":
        save(path, ids_of(path) + 6)
    else:
        save(path, np.roll(colours_of(path), 40, axis=2) ^ 90)
    assert_found(flat, "mask-values", ["label2/00001.png"])
    assert "00001" not in names_in(assert_mended(flat, tmp_path, "mask-values"))


def test_a_change_mask_of_classes_is_named(binary):
    path = binary / "label/00001.png"
    save(path, ids_of(path) * 4)
    assert_found(binary, "mask-values", ["label/00001.png"])


def test_a_change_mask_in_three_channels_is_named_and_mended(binary, tmp_path):
    path = binary / "label/00001.png"
    truth_HW = ids_of(path).copy()
    save(path, np.repeat(truth_HW[..., None] * 255, 3, axis=2))
    assert assert_found(binary, "mask-channels", ["label/00001.png"]).level == "WARN"
    copy = assert_mended(binary, tmp_path, "mask-channels")
    assert (ids_of(copy / "label/00001.png") == truth_HW).all()


def test_pixels_labelled_at_one_date_only(flat, tmp_path):
    path = flat / "label1/00004.png"
    ids_HW = ids_of(path).copy()
    rows, columns = np.nonzero(ids_HW)
    ids_HW[rows[:300], columns[:300]] = 0
    write_mask(path, ids_HW, SENSEEARTH)
    labelled = sum((ids_of(p) > 0).sum() for p in (flat / "label2").iterdir())
    found = assert_found(flat, "half-labelled", ["im1/00004.png"])
    assert found.values["share"] == pytest.approx(300 / labelled)
    copy = assert_mended(flat, tmp_path, "half-labelled")
    assert ((ids_of(copy / "label2/00004.png") > 0) == (ids_HW > 0)).all()


def test_the_same_class_at_both_dates(flat, tmp_path):
    before, after = flat / "label1/00004.png", flat / "label2/00004.png"
    ids_HW = ids_of(before).copy()
    rows, columns = np.nonzero(ids_HW)
    ids_HW[rows[:300], columns[:300]] = ids_of(after)[rows[:300], columns[:300]]
    write_mask(before, ids_HW, SENSEEARTH)
    labelled = sum((ids_of(p) > 0).sum() for p in (flat / "label1").iterdir())
    found = assert_found(flat, "same-class", ["im1/00004.png"])
    assert (found.level, found.action) == ("WARN", "kept")
    assert found.values["share"] == pytest.approx(300 / labelled)
    assert examine(repair(flat, tmp_path / "copy")).codes == ("same-class",)


@pytest.mark.parametrize("planted", [range(8), [6]])
def test_exchanged_polarity_is_told_by_the_images(binary, tmp_path, planted):
    paths = [binary / f"label/{number:05d}.png" for number in planted]
    truth = [ids_of(path).copy() for path in paths]
    for path, change_HW in zip(paths, truth, strict=True):
        write_mask(path, 1 - change_HW, BINARY)
    assert_found(binary, "polarity", [f"A/{path.name}" for path in paths])
    copy = assert_mended(binary, tmp_path, "polarity")
    for path, change_HW in zip(paths, truth, strict=True):
        assert (read_change_mask(copy / "label" / path.name) == change_HW).all()


def test_much_change_alone_is_no_exchanged_polarity(drawn, tmp_path):
    """Cut to where most has changed: the share is above one half, and the masks are right."""
    for number, source in enumerate(sorted((drawn / "label1").iterdir())):
        labels_HW = read_mask(source, SENSEEARTH)
        shares = np.lib.stride_tricks.sliding_window_view(labels_HW > 0, (64, 64)).mean((2, 3))
        row, column = np.unravel_index(np.abs(shares - 0.7).argmin(), shares.shape)
        place = slice(row, row + 64), slice(column, column + 64)
        for folder, new in (("im1", "A"), ("im2", "B")):
            (tmp_path / new).mkdir(exist_ok=True)
            save(tmp_path / new / f"{number}.png", ids_of(drawn / folder / source.name)[place])
        changed_HW = (labels_HW[place] > 0).astype(np.uint8)
        write_mask(tmp_path / "label" / f"{number}.png", changed_HW, BINARY)
    shares = [ids_of(path).mean() for path in (tmp_path / "label").iterdir()]
    assert sum(share > 0.5 for share in shares) >= 3
    assert "polarity" not in examine(tmp_path).codes


def test_labels_where_nothing_changed_are_exchanged_polarity(flat, tmp_path):
    """Land cover labelled on unchanged ground and 0 on changed, at both dates alike."""
    for number in range(8):
        name = f"{number:05d}.png"
        changed_HW = ids_of(flat / "label1" / name) > 0
        for label in ("label1", "label2"):
            ids_HW = np.where(changed_HW, 0, 1 + np.indices(changed_HW.shape)[0] % 6)
            write_mask(flat / label / name, ids_HW.astype(np.uint8), SENSEEARTH)
    assert_found(flat, "polarity", [f"im1/{number:05d}.png" for number in range(8)])
    with pytest.raises(DataError, match="no pair"):
        repair(flat, tmp_path / "copy")


# Files


def test_unreadable_images_and_masks_do_not_end_it(flat, tmp_path):
    (flat / "im2/00001.png").write_bytes(b"not a picture")
    assert_found(flat, "unreadable", ["im1/00001.png"])
    shutil.copy(flat / "im1/00001.png", flat / "im2/00001.png")
    Image.open(flat / "im1/00001.png").rotate(90).save(flat / "im2/00001.png")
    (flat / "label1/00002.png").write_bytes((flat / "label1/00002.png").read_bytes()[:80])
    assert_found(flat, "mask-unreadable", ["label1/00002.png"])
    assert_mended(flat, tmp_path, "mask-unreadable")


@pytest.mark.parametrize("folder", FOLDERS)
def test_missing_counterparts_are_named(flat, tmp_path, folder):
    (flat / folder / "00002.png").unlink()
    found = assert_found(flat, "layout", None)
    assert "00002" in found.message
    assert found.files
    assert all("00002" in file for file in found.files)
    assert "00002" not in names_in(assert_mended(flat, tmp_path, "layout"))


def test_a_csv_and_lists_with_bad_lines_are_examined_all_the_same(flat):
    table = flat / "pairs.csv"
    rows = [",".join(f"{f}/{n:05d}.png" for f in FOLDERS) for n in range(8)]
    table.write_text(
        "\n".join(["before,after,before_label,after_label", *rows, rows[0].replace("im2", "im3")])
    )
    assert "line 10" in assert_found(table, "layout", ["pairs.csv"]).message
    (flat / "train.txt").write_text("\n".join(f"{number:05d}" for number in range(6)))
    (flat / "val.txt").write_text("00005\n00006\n00007\n")
    assert "00005" in assert_found(flat, "layout", ["val.txt"]).message
    (flat / "train.txt").write_text("\n".join(f"{number:05d}" for number in range(5)) + "\nnone")
    assert "none" in assert_found(flat, "layout", ["train.txt"]).message


def test_no_data_set_at_all_is_a_finding(tmp_path):
    report = examine(tmp_path)
    assert report.codes == ("layout",)
    with pytest.raises(DataError):
        repair(tmp_path, tmp_path.parent / "copy", report)


def crop(path: Path, height: int, width: int):
    Image.open(path).crop((0, 0, width, height)).save(path)


def test_images_of_other_sizes_and_bands(flat):
    for folder in FOLDERS:
        crop(flat / folder / "00002.png", 128, 120)
    assert "crop-size-px" in (assert_found(flat, "image-sizes", ["im1/00002.png"]).fix or "")
    for folder in FOLDERS[:2]:
        for path in (flat / folder).iterdir():
            crop(path, 128, 120)
            if path.stem == "00003":
                Image.open(path).convert("L").save(path)
    for folder in FOLDERS[2:]:
        for path in (flat / folder).iterdir():
            crop(path, 128, 120)
    assert_found(flat, "image-bands", ["im1/00003.png"])


@pytest.mark.parametrize(
    ("code", "folder"), [("date-mismatch", "im2"), ("mask-size", "label2"), ("mask-size", "label1")]
)
def test_files_of_a_pair_that_differ_in_size(flat, tmp_path, code, folder):
    crop(flat / folder / "00002.png", 120, 128)
    assert "120 x 128" in assert_found(flat, code, ["im1/00002.png"]).message
    assert "00002" not in names_in(assert_mended(flat, tmp_path, code))


def test_constant_images_and_identical_dates(flat, tmp_path):
    save(flat / "im2/00001.png", np.full((128, 128, 3), 7))
    assert_found(flat, "constant-image", ["im1/00001.png"])
    shutil.copy(flat / "im1/00001.png", flat / "im2/00001.png")
    assert_found(flat, "identical-dates", ["im1/00001.png"])
    assert "00001" not in names_in(assert_mended(flat, tmp_path, "identical-dates"))


def test_pairs_without_change_are_told_and_too_many_are_a_warning(binary):
    nothing = np.zeros((128, 128), np.uint8)
    write_mask(binary / "label/00003.png", nothing, BINARY)
    report = examine(binary)
    (found,) = (finding for finding in report.findings if finding.code == "no-change")
    assert (found.level, found.files) == ("OK", ("A/00003.png",))
    for number in range(5):
        write_mask(binary / f"label/{number:05d}.png", nothing, BINARY)
    assert_found(binary, "no-change", [f"A/{number:05d}.png" for number in range(5)])


def test_labels_missing_or_of_another_kind(flat, tmp_path):
    table = flat / "pairs.csv"
    rows = [",".join(f"{f}/{n:05d}.png" for f in FOLDERS) for n in range(8)]
    rows[2] = "im1/00002.png,im2/00002.png,,"
    header = "before,after,before_label,after_label"
    table.write_text("\n".join([header, *rows]))
    assert_found(table, "unlabelled", ["im1/00002.png"])
    rows[2] = "im1/00002.png,im2/00002.png,label1/00002.png,label1/00002.png"
    table.write_text("\n".join([header, *rows]))
    assert_found(table, "mixed-labels", ["im1/00002.png"])
    copy = repair(table, tmp_path / "copy")
    assert examine(copy).codes == ()
    assert len(names_in(copy)) == 7


# The set and its splits


def add_pair(source: Path, target: Path, name: str, new: str = "00099"):
    for folder in FOLDERS:
        shutil.copy(source / folder / f"{name}.png", target / folder / f"{new}.png")


def test_a_pair_that_is_there_twice_is_dropped_even_if_saved_anew(flat, tmp_path):
    add_pair(flat, flat, "00002")
    Image.open(flat / "im1/00002.png").save(flat / "im1/00099.png", compress_level=0)
    assert (flat / "im1/00002.png").read_bytes() != (flat / "im1/00099.png").read_bytes()
    found = assert_found(flat, "duplicate-pair", ["im1/00099.png"])
    assert found.values["copies"] == {"im1/00099.png": "im1/00002.png"}
    copy = assert_mended(flat, tmp_path, "duplicate-pair")
    assert names_in(copy) == [f"{number:05d}" for number in range(8)]


def test_an_exact_leak_stays_in_validation_only(split, tmp_path):
    add_pair(split / "val", split / "train", "00006")
    assert_found(split, "leak-exact", ["train/im1/00099.png"])
    copy = assert_mended(split, tmp_path, "leak-exact")
    assert not (copy / "train/im1/00099.png").exists()
    assert (copy / "val/im1/00006.png").exists()


@pytest.mark.parametrize(("noise", "brightness"), [(0, 1.2), (0, 0.7), (10, 1.1), (20, 1)])
def test_a_near_copy_in_another_split_is_found(split, noise, brightness):
    random = np.random.default_rng(0)
    add_pair(split / "val", split / "train", "00006")
    for folder in FOLDERS[:2]:
        path = split / "train" / folder / "00099.png"
        image = ids_of(path) * brightness + random.normal(0, noise, ids_of(path).shape)
        save(path, image.clip(0, 255))
    found = assert_found(split, "leak-near", ["train/im1/00099.png"])
    assert found.values["like"] == {"train/im1/00099.png": "val/im1/00006.png"}


def test_another_date_of_a_place_in_another_split_is_found(split):
    """The after image of a validation pair becomes, changed in light, the before of another."""
    add_pair(split / "val", split / "train", "00006")
    after = ids_of(split / "val/im2/00006.png").astype(float)
    save(split / "train/im1/00099.png", after.clip(30, 200))
    near = sign(read_image(split / "train/im1/00099.png")) @ sign(
        read_image(split / "val/im2/00006.png")
    )
    other = sign(read_image(split / "train/im1/00000.png")) @ sign(
        read_image(split / "val/im2/00006.png")
    )
    assert other < 0.3 < 0.5 < near


def test_the_rule_that_makes_a_validation_split_is_honoured(flat):
    """Of nine pairs the first is validation; a near copy of it is in training."""
    add_pair(flat, flat, "00000")
    path = flat / "im1/00099.png"
    save(path, (ids_of(path) * 0.9))
    save(flat / "im2/00099.png", ids_of(flat / "im2/00099.png") * 0.9)
    assert_found(flat, "leak-near", ["im1/00099.png"])


def test_one_name_in_two_splits_is_copied_under_two(split, tmp_path):
    for folder in FOLDERS:
        (split / "val" / folder / "00006.png").rename(split / "val" / folder / "00001.png")
    assert_found(split, "same-name", ["train/im1/00001.png", "val/im1/00001.png"])
    copy = assert_mended(split, tmp_path, "same-name")
    assert "val_00001" in names_in(copy)
    assert "-> val_00001" in (copy / "CHANGES.txt").read_text()


def replace_class(root: Path, splits, old: int, new: int):
    for part in splits:
        for label in ("label1", "label2"):
            for path in (root / part / label).iterdir():
                ids_HW = ids_of(path)
                write_mask(path, np.where(ids_HW == old, new, ids_HW).astype(np.uint8), SENSEEARTH)


def test_classes_that_never_occur_or_in_one_split_only(split):
    """Playground is relabelled 0, at both dates so that they agree."""

    def clear(parts):
        for part in parts:
            for path in (split / part / "label1").iterdir():
                other = split / part / "label2" / path.name
                gone_HW = (ids_of(path) == 6) | (ids_of(other) == 6)
                for mask in (path, other):
                    kept_HW = np.where(gone_HW, 0, ids_of(mask))
                    write_mask(mask, kept_HW.astype(np.uint8), SENSEEARTH)

    clear(["val"])
    assert assert_found(split, "class-split", []).values["lacking"]["val"] == ["playground"]
    clear(["train"])
    assert assert_found(split, "class-never", []).values["classes"] == ["playground"]


def test_a_shifted_after_image_is_found(flat):
    path = flat / "im2/00004.png"
    save(path, np.roll(ids_of(path), (5, -4), axis=(0, 1)))
    found = assert_found(flat, "shift", ["im1/00004.png"])
    columns_px, rows_px = found.values["im1/00004.png"]
    assert (columns_px, rows_px) == (pytest.approx(-4, abs=1.5), pytest.approx(5, abs=1.5))


# The evidence


def test_the_rating_of_change_is_the_area_under_the_roc_curve():
    """Of the correlation of windows, here one by one, and scikit-learn's curve."""
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    before_HW = random.normal(0, 1, (60, 60))
    after_HW = before_HW + random.normal(0, 1, (60, 60)) * np.linspace(0, 5, 60)
    changed_HW = np.indices((60, 60))[1] > 25
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.pad(image_HW, 8, mode="edge"), (17, 17))
        for image_HW in (before_HW, after_HW)
    ]
    similarity = [
        np.corrcoef(windows[0][place].ravel(), windows[1][place].ravel())[0, 1]
        for place in np.ndindex(60, 60)
    ]
    expected = metrics.roc_auc_score(changed_HW.ravel(), -np.array(similarity))
    rating = rate_change(before_HW[None], after_HW[None], changed_HW)
    assert rating == pytest.approx(expected, abs=0.003)
    turned = rate_change(before_HW[None], after_HW[None], ~changed_HW)
    assert rating + turned == pytest.approx(1, abs=1e-9)


def test_small_images_have_no_shift_to_speak_of():
    image_CHW = np.random.default_rng(0).integers(0, 255, (3, 100, 100)).astype(np.uint8)
    assert not find_shift(image_CHW, image_CHW).reliable


# The report and the copy


def test_reports_are_json_ready_and_readable(flat):
    (flat / "im2/00001.png").unlink()
    report = examine(flat)
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["level"] == "FAIL"
    assert [finding["code"] for finding in fields["findings"]][:2] == ["pairs", "layout"]
    text = report.to_text()
    assert re.search(r"^FAIL  layout  .*00001\.png has no counterpart", text, re.M)
    assert "fix: add the missing files" in text
    assert shorten_list(("a", "b", "c", "d", "e")) == "a, b, c and 2 more"


def test_a_healthy_set_is_copied_byte_for_byte_and_trains(split, tmp_path):
    copy = repair(split, tmp_path / "copy")
    for path in split.rglob("*.png"):
        assert (copy / path.relative_to(split)).read_bytes() == path.read_bytes()
    assert len(ChangeDataset(find_pairs(copy, "train"))) == 5
    assert ChangeDataset(find_pairs(copy, "val"))[0].before_CHW.shape == (3, 128, 128)


def test_copies_are_whole_or_not_there_and_never_in_the_data_set(flat, tmp_path):
    output = tmp_path / "copy"
    output.mkdir()
    (output / "mine.txt").touch()
    with pytest.raises(OutputExistsError):
        repair(flat, output)
    with pytest.raises(ArgumentError, match="in the data set"):
        repair(flat, flat / "copy")
    with pytest.raises(ArgumentError, match="the report is of"):
        repair(flat, tmp_path / "other", replace(examine(flat), root=tmp_path))
    report = examine(flat)
    (flat / "im2/00007.png").unlink()
    (flat / "label1/00003.png").write_bytes(b"")
    repair(flat, output, overwrite=True)
    assert not (output / "mine.txt").exists()
    assert names_in(output) == [f"{number:05d}" for number in (0, 1, 2, 4, 5, 6)]
    assert isinstance(report, DoctorReport)


def test_arguments_out_of_range(flat, binary):
    with pytest.raises(ArgumentError, match="val_every"):
        examine(flat, val_every=1)
    with pytest.raises(ArgumentError, match="change masks"):
        examine(binary, classes=SENSEEARTH)


def test_levir_is_found_healthy_and_its_turned_masks_are_not(shared, tmp_path):
    root = tmp_path / "levir"
    for folder in ("A", "B", "label"):
        (root / folder).mkdir(parents=True)
        for number in (1, 2, 3):
            image = Image.open(shared / f"data/levir_eval10/{folder}/test_{number}.png")
            image.crop((0, 0, 512, 512)).save(root / folder / f"{number}.png")
    assert set(examine(root).codes) <= {"shift", "no-change"}
    for path in (root / "label").iterdir():
        save(path, 255 - ids_of(path))
    assert "polarity" in examine(root).codes


def test_the_page_names_every_code():
    source = Path(examine.__code__.co_filename).parent
    text = "".join(
        (source / f"{name}.py").read_text() for name in ("examination", "labels", "leaks")
    )
    codes = set(
        re.findall(r'"((?:mask|palette|image|leak|class|date|half|same|no)-[a-z0-9-]+)"', text)
    )
    codes |= {"layout", "unreadable", "unlabelled", "polarity", "shift"}
    documented = set(re.findall(r"^\| `([a-z0-9-]+)`", DOCS.read_text(), re.M))
    assert codes <= documented
