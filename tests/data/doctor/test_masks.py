"""Every finding is planted in a drawn set that has none, and is all that is found there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tests.data.doctor.planting import (
    assert_fixed,
    assert_found,
    colours_of,
    ids_of,
    names_in,
    save,
    save_indexed,
)

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.doctor import examine, repair
from terradelta.data.doctor.evidence import rate_change
from terradelta.data.images import read_change_mask, read_mask, write_mask
from terradelta.errors import DataError


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
    copy = assert_fixed(flat, tmp_path, code)
    for path, ids_HW in truth.items():
        assert (read_mask(copy / path.relative_to(flat), SENSEEARTH) == ids_HW).all()


def test_bgr_masks_are_identified_by_the_whole_set_where_one_alone_fits_both_orders(flat):
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
    fixed = next(f for f in examine(flat, classes=one).findings if f.code == "mask-0-255")
    assert fixed.action == "fixed"
    copy = repair(flat, tmp_path / "copy", examine(flat, classes=one))
    assert set(np.unique(read_mask(copy / "label1/00002.png", one))) == {0, 1}


def test_a_single_0_255_mask_is_named_and_its_255_ignored(flat):
    path = flat / "label1/00003.png"
    save(path, (ids_of(path) > 0) * 255)
    finding = assert_found(flat, "mask-no-class", ["label1/00003.png"])
    assert (finding.level, finding.action) == ("WARN", "kept")


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
    assert "00002" not in names_in(assert_fixed(flat, tmp_path, "mask-lossy"))


def test_a_change_mask_damaged_by_jpeg_is_cut_at_128(binary, tmp_path):
    path = binary / "label/00002.png"
    truth_HW = ids_of(path).copy()
    lossy = path.with_suffix(".jpg")
    save(lossy, truth_HW * 255, quality=90)
    path.unlink()
    assert_found(binary, "mask-lossy", ["label/00002.jpg"])
    copy = assert_fixed(binary, tmp_path, "mask-lossy")
    assert (read_change_mask(copy / "label/00002.png") != truth_HW).mean() < 0.01


@pytest.mark.parametrize("planted", ["id", "colour"])
def test_values_of_no_class_are_named_and_left_out(flat, tmp_path, planted):
    path = flat / "label2/00001.png"
    if planted == "id":
        save(path, ids_of(path) + 6)
    else:
        save(path, np.roll(colours_of(path), 40, axis=2) ^ 90)
    assert_found(flat, "mask-values", ["label2/00001.png"])
    assert "00001" not in names_in(assert_fixed(flat, tmp_path, "mask-values"))


def test_a_change_mask_of_classes_is_named(binary):
    path = binary / "label/00001.png"
    save(path, ids_of(path) * 4)
    assert_found(binary, "mask-values", ["label/00001.png"])


def test_a_change_mask_in_three_channels_is_named_and_fixed(binary, tmp_path):
    path = binary / "label/00001.png"
    truth_HW = ids_of(path).copy()
    save(path, np.repeat(truth_HW[..., None] * 255, 3, axis=2))
    assert assert_found(binary, "mask-channels", ["label/00001.png"]).level == "WARN"
    copy = assert_fixed(binary, tmp_path, "mask-channels")
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
    copy = assert_fixed(flat, tmp_path, "half-labelled")
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


def test_exchanged_polarity_is_identified_by_the_images(binary, tmp_path):
    paths = [binary / f"label/{number:05d}.png" for number in range(8)]
    truth = [ids_of(path).copy() for path in paths]
    for path, change_HW in zip(paths, truth, strict=True):
        write_mask(path, 1 - change_HW, BINARY)
    assert_found(binary, "polarity", [f"A/{path.name}" for path in paths])
    copy = assert_fixed(binary, tmp_path, "polarity")
    for path, change_HW in zip(paths, truth, strict=True):
        assert (read_change_mask(copy / "label" / path.name) == change_HW).all()


def test_a_single_pair_of_exchanged_polarity_is_pointed_out_and_left(binary, tmp_path):
    path = binary / "label" / "00006.png"
    turned_HW = 1 - ids_of(path)
    write_mask(path, turned_HW, BINARY)
    finding = assert_found(binary, "polarity-pair", ["A/00006.png"])
    assert finding.level == "WARN"
    copy = repair(binary, tmp_path / "copy")
    assert (read_change_mask(copy / "label" / path.name) == turned_HW).all()


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


def scatter(path, values_HW, stray, count):
    """Save a mask in which some unlabelled pixels hold another value."""
    values_HW = values_HW.copy()
    rows, columns = np.nonzero(values_HW == 0)
    chosen = np.random.default_rng(0).choice(len(rows), count, replace=False)
    values_HW[rows[chosen], columns[chosen]] = stray
    save(path, values_HW)
    return rows[chosen], columns[chosen]


def test_a_few_stray_pixels_of_a_change_mask_are_read_as_the_nearer_value(binary, tmp_path):
    path = binary / "label/00001.png"
    truth_HW = ids_of(path).copy()
    assert truth_HW.size > 5000
    places = scatter(path, truth_HW * 255, 254, 5)
    expected_HW = truth_HW.copy()
    expected_HW[places] = 1
    assert (read_change_mask(path) == expected_HW).all()
    assert assert_found(binary, "change-stray", ["label/00001.png"]).level == "WARN"
    copy = assert_fixed(binary, tmp_path, "change-stray")
    assert (ids_of(copy / "label/00001.png") == expected_HW).all()


@pytest.mark.parametrize("stray", [7, 254])
def test_a_few_stray_pixels_of_a_class_mask_are_not_labelled_in_the_copy(flat, tmp_path, stray):
    path = flat / "label1/00003.png"
    truth_HW = ids_of(path).copy()
    scatter(path, truth_HW, stray, 5)
    with pytest.raises(DataError, match="terradelta doctor DATA"):
        read_mask(path, SENSEEARTH)
    assert assert_found(flat, "mask-stray", ["label1/00003.png"]).level == "FAIL"
    copy = assert_fixed(flat, tmp_path, "mask-stray")
    assert (read_mask(copy / "label1/00003.png", SENSEEARTH) == truth_HW).all()
