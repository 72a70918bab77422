"""Every finding is planted in a drawn set that has none, and is all that is found there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.doctor.planting import (
    FOLDERS,
    assert_fixed,
    assert_found,
    colours_of,
    ids_of,
    names_in,
    save,
)

from terradelta.classes import BINARY, SENSEEARTH
from terradelta.data.doctor import examine, repair
from terradelta.data.doctor.evidence import find_shift, sign
from terradelta.data.images import read_image, read_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.errors import DataError


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
    names = sorted(path.name for path in copy.iterdir() if not path.name.startswith("."))
    assert names == ["CHANGES.txt", "im1", "im2"]


# Masks


def test_unreadable_images_and_masks_do_not_end_it(flat, tmp_path):
    (flat / "im2/00001.png").write_bytes(b"not a picture")
    assert_found(flat, "unreadable", ["im1/00001.png"])
    shutil.copy(flat / "im1/00001.png", flat / "im2/00001.png")
    Image.open(flat / "im1/00001.png").rotate(90).save(flat / "im2/00001.png")
    (flat / "label1/00002.png").write_bytes((flat / "label1/00002.png").read_bytes()[:80])
    assert_found(flat, "mask-unreadable", ["label1/00002.png"])
    assert_fixed(flat, tmp_path, "mask-unreadable")


@pytest.mark.parametrize("folder", FOLDERS)
def test_missing_counterparts_are_named(flat, tmp_path, folder):
    (flat / folder / "00002.png").unlink()
    found = assert_found(flat, "layout", None)
    assert "00002" in found.message
    assert found.files
    assert all("00002" in file for file in found.files)
    assert "00002" not in names_in(assert_fixed(flat, tmp_path, "layout"))


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
    assert "00002" not in names_in(assert_fixed(flat, tmp_path, code))


def test_constant_images_and_identical_dates(flat, tmp_path):
    save(flat / "im2/00001.png", np.full((128, 128, 3), 7))
    assert_found(flat, "constant-image", ["im1/00001.png"])
    shutil.copy(flat / "im1/00001.png", flat / "im2/00001.png")
    assert_found(flat, "identical-dates", ["im1/00001.png"])
    assert "00001" not in names_in(assert_fixed(flat, tmp_path, "identical-dates"))


def test_pairs_without_change_are_reported_and_too_many_are_a_warning(binary):
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


def test_a_pair_that_is_there_twice_is_dropped_even_if_saved_again(flat, tmp_path):
    add_pair(flat, flat, "00002")
    Image.open(flat / "im1/00002.png").save(flat / "im1/00099.png", compress_level=0)
    assert (flat / "im1/00002.png").read_bytes() != (flat / "im1/00099.png").read_bytes()
    found = assert_found(flat, "duplicate-pair", ["im1/00099.png"])
    assert found.values["copies"] == {"im1/00099.png": "im1/00002.png"}
    copy = assert_fixed(flat, tmp_path, "duplicate-pair")
    assert names_in(copy) == [f"{number:05d}" for number in range(8)]


def test_an_exact_leak_stays_in_validation_only(split, tmp_path):
    add_pair(split / "val", split / "train", "00006")
    assert_found(split, "leak-exact", ["train/im1/00099.png"])
    copy = assert_fixed(split, tmp_path, "leak-exact")
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
    copy = assert_fixed(split, tmp_path, "same-name")
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


def test_small_images_have_no_shift_to_speak_of():
    image_CHW = np.random.default_rng(0).integers(0, 255, (3, 100, 100)).astype(np.uint8)
    assert not find_shift(image_CHW, image_CHW).reliable


# The report and the copy


def label_everything(flat):
    """Land cover everywhere and a change mask: as pseudo-labels give it."""
    (flat / "change_mask").mkdir()
    for path in sorted((flat / "label1").iterdir()):
        changed_HW = read_mask(path, SENSEEARTH) > 0
        write_mask(flat / "change_mask" / path.name, changed_HW.astype(np.uint8), BINARY)
        for label in ("label1", "label2"):
            ids_HW = read_mask(flat / label / path.name, SENSEEARTH)
            write_mask(flat / label / path.name, np.where(changed_HW, ids_HW, 2), SENSEEARTH)


def test_land_cover_where_nothing_changed_is_right_beside_a_change_mask(flat, tmp_path):
    label_everything(flat)
    report = examine(flat)
    assert not {"same-class", "half-labelled", "change-mask"} & set(report.codes)
    copy = repair(flat, tmp_path / "copy")
    assert len(list((copy / "change_mask").iterdir())) == 8
    shutil.rmtree(flat / "change_mask")
    assert "same-class" in examine(flat).codes


def test_a_change_mask_beside_that_does_not_fit_is_a_fault(flat, tmp_path):
    label_everything(flat)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(flat / "change_mask" / "00001.png")
    (finding,) = [f for f in examine(flat).findings if f.code == "change-mask"]
    assert "00001.png is 5 x 6 px, its image 128 x 128" in finding.message
    assert len(find_pairs(repair(flat, tmp_path / "copy")).pairs) == 7


def test_pairs_labelled_in_part_are_named_and_not_copied(flat, tmp_path):
    lines = ["before,after,before_label,after_label"]
    for path in sorted((flat / "im1").iterdir()):
        name = path.name
        after = f"label2/{name}" if name != "00003.png" else ""
        lines.append(f"im1/{name},im2/{name},label1/{name},{after}")
    (flat / "pairs.csv").write_text("\n".join(lines))
    (finding,) = [f for f in examine(flat / "pairs.csv").findings if f.code == "partly-labelled"]
    assert finding.message.startswith("1 pair ")
    assert "00003" in finding.files[0]
    assert len(find_pairs(repair(flat / "pairs.csv", tmp_path / "copy")).pairs) == 7
