from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.layouts import CHANGE_FOLDERS, IMAGE_FOLDERS, LABEL_FOLDERS, find_pairs
from terradelta.errors import ArgumentError, DataError

LEVIR = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "levir_eval10"


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def make(root, folders, names):
    for folder in folders:
        touch(root / folder, *names)
    return root


def names_of(*args, **kwargs):
    return [pair.name for pair in find_pairs(*args, **kwargs).pairs]


def test_senseearth_layout_finds_all_four_files(tmp_path):
    make(tmp_path, ["im1", "im2", "label1", "label2"], ["b.png", "a.png"])
    found = find_pairs(tmp_path)
    assert (found.root, found.layout, found.classes) == (tmp_path, "senseearth", SENSEEARTH)
    assert [pair.name for pair in found.pairs] == ["a", "b"]
    pair = found.pairs[0]
    assert (pair.before, pair.after) == (tmp_path / "im1/a.png", tmp_path / "im2/a.png")
    assert pair.before_label == tmp_path / "label1/a.png"
    assert pair.after_label == tmp_path / "label2/a.png"
    assert not pair.is_change_mask


@pytest.mark.parametrize(
    "folders",
    [
        # As the releases, or the loaders of Bi-SRNet, SCanNet (Landsat-SCD), ChangeMamba, GSTM-SCD,
        # STNR and UFCD, name them.
        "im1 im2 label1 label2",
        "im1 im2 label1_rgb label2_rgb",
        "A B labelA labelB",
        "T1 T2 GT_T1 GT_T2",
        "im1 im2 labelA labelB",
        "A B label1 label2",
        "A B A_label B_label",
        "IM1 IM2 Label_1 Label_2",
        "time1 time2 label_time1 label_time2",
        "before after before_label after_label",
        "Image1 Image2 label1 label2",
    ],
)
def test_spellings_found_in_the_wild(tmp_path, folders):
    names = folders.split()
    make(tmp_path, names, ["x.png"])
    (pair,) = find_pairs(tmp_path).pairs
    files = (pair.before, pair.after, pair.before_label, pair.after_label)
    assert files == tuple(tmp_path / name / "x.png" for name in names)


@pytest.mark.parametrize("images", IMAGE_FOLDERS, ids="-".join)
@pytest.mark.parametrize("labels", LABEL_FOLDERS, ids="-".join)
@pytest.mark.parametrize("spell", [str.upper, str.lower], ids=["upper", "lower"])
def test_any_image_and_label_spelling_go_together(tmp_path, images, labels, spell):
    names = [spell(name) for name in (*images, *labels)]
    make(tmp_path, names, ["x.png"])
    (pair,) = find_pairs(tmp_path).pairs
    files = (pair.before, pair.after, pair.before_label, pair.after_label)
    assert files == tuple(tmp_path / name / "x.png" for name in names)


@pytest.mark.parametrize("images", IMAGE_FOLDERS, ids="-".join)
@pytest.mark.parametrize("label", CHANGE_FOLDERS)
def test_one_label_folder_is_a_change_mask_of_both_dates(tmp_path, images, label):
    make(tmp_path, [*images, label], ["x.png"])
    found = find_pairs(tmp_path)
    assert (found.layout, found.classes) == ("binary", BINARY)
    (pair,) = found.pairs
    assert pair.before_label == pair.after_label == tmp_path / label / "x.png"
    assert pair.is_change_mask


def test_land_cover_masks_win_over_change_masks_and_ids_over_colours(tmp_path):
    make(
        tmp_path,
        ["im1", "im2", "label", "label1_rgb", "label2_rgb", "label1", "label2"],
        ["x.png"],
    )
    found = find_pairs(tmp_path)
    assert found.layout == "senseearth"
    assert found.pairs[0].before_label == tmp_path / "label1" / "x.png"


def test_pairs_without_labels_are_found_too(tmp_path):
    make(tmp_path, ["im1", "im2"], ["x.png"])
    (pair,) = find_pairs(tmp_path).pairs
    assert pair.before_label is None
    assert pair.after_label is None
    assert not pair.is_change_mask


def test_endings_may_differ_and_other_files_are_left_out(tmp_path):
    touch(tmp_path / "A", "x.jpg", "x.jpg.aux.xml", "Thumbs.db", "._x.jpg", "notes.txt")
    touch(tmp_path / "B", "x.TIF", "x.tfw")
    touch(tmp_path / "label", "x.png")
    (tmp_path / "A" / "deeper.png").mkdir()
    with pytest.raises(DataError, match=r"deeper\.png"):
        find_pairs(tmp_path)
    (tmp_path / "A" / "deeper.png").rmdir()
    (pair,) = find_pairs(tmp_path).pairs
    assert [pair.before.name, pair.after.name] == ["x.jpg", "x.TIF"]


def test_a_given_class_table_is_kept_unless_it_cannot_be(tmp_path):
    table = ClassTable(("nothing", "farm", "desert"), ((0, 0, 0), (0, 155, 0), (255, 165, 0)))
    make(tmp_path / "scd", ["A", "B", "labelA", "labelB"], ["x.png"])
    assert find_pairs(tmp_path / "scd", classes=table).classes is table
    make(tmp_path / "bcd", ["A", "B", "label"], ["x.png"])
    with pytest.raises(ArgumentError, match="one class, but the class table has 2"):
        find_pairs(tmp_path / "bcd", classes=table)


# ---------------------------------------------------------------- splits

NAMES = [f"{i:02d}.png" for i in range(25)]


def test_without_splits_every_tenth_pair_is_validation_as_in_the_reference(tmp_path):
    make(tmp_path, ["im1", "im2", "label1", "label2"], NAMES)
    assert names_of(tmp_path) == [f"{i:02d}" for i in range(25)]
    assert names_of(tmp_path, "val") == ["00", "10", "20"]
    assert names_of(tmp_path, "train") == [f"{i:02d}" for i in range(25) if i % 10]
    assert names_of(tmp_path, "val", val_every=12) == ["00", "12", "24"]
    with pytest.raises(DataError, match=r"no pairs for the split test; .* train 22, val 3"):
        find_pairs(tmp_path, "test")


def test_the_tenth_is_counted_by_file_name_and_not_by_stem(tmp_path):
    # "-" sorts before the dot of the ending, and the reference sorts names with their endings.
    make(tmp_path, ["im1", "im2"], ["a.png", "a-1.png", "b.png"])
    assert names_of(tmp_path) == ["a-1", "a", "b"]


def test_split_folders_are_taken_and_train_lends_a_missing_val(tmp_path):
    make(tmp_path / "Train", ["A", "B", "label"], NAMES)
    make(tmp_path / "test", ["A", "B", "label"], ["t1.png", "t0.png"])
    assert names_of(tmp_path, "test") == ["t0", "t1"]
    assert names_of(tmp_path, "val") == ["00", "10", "20"]
    assert len(names_of(tmp_path, "train")) == 22
    assert len(names_of(tmp_path)) == 27
    make(tmp_path / "val", ["A", "B", "label"], ["v.png"])
    assert names_of(tmp_path, "val") == ["v"]
    assert len(names_of(tmp_path, "train")) == 25


def test_a_test_folder_without_labels_stands_beside_a_labelled_train_folder(tmp_path):
    make(tmp_path / "train", ["im1", "im2", "label1", "label2"], ["a.png"])
    make(tmp_path / "test", ["im1", "im2"], ["b.png"])
    assert [pair.before_label is None for pair in find_pairs(tmp_path).pairs] == [False, True]


def test_split_folders_may_not_share_names_or_mix_kinds(tmp_path):
    make(tmp_path / "train", ["A", "B", "label"], ["x.png"])
    make(tmp_path / "test", ["A", "B", "label1", "label2"], ["x.png"])
    with pytest.raises(DataError, match="two pairs named x") as caught:
        find_pairs(tmp_path)
    for split in ("train", "test"):
        assert str(tmp_path / split / "A" / "x.png") in str(caught.value)
    for folder in (tmp_path / "test").iterdir():
        (folder / "x.png").rename(folder / "y.png")
    with pytest.raises(DataError, match="change masks for some pairs and land-cover"):
        find_pairs(tmp_path)
    assert find_pairs(tmp_path, "test").layout == "senseearth"


def test_a_split_folder_without_pairs_beside_one_with_pairs_is_an_error(tmp_path):
    make(tmp_path / "train", ["A", "B", "label"], NAMES)
    touch(tmp_path / "val" / "pictures", "x.png")
    with pytest.raises(DataError, match=r"no image pairs in .*val, which holds pictures/"):
        find_pairs(tmp_path, "train")


@pytest.mark.parametrize("form", ["{}.txt", "{}_list.txt", "list/{}.txt", "list/{}_LIST.txt"])
def test_lists_split_a_folder(tmp_path, form):
    make(tmp_path, ["A", "B", "labelA", "labelB"], NAMES)
    (tmp_path / "list").mkdir()
    (tmp_path / form.format("train")).write_text("03.png\n01\n\n/elsewhere/ST/im1/02.png\r\n")
    (tmp_path / form.format("val")).write_text("04.png A/04.png 1\nC:\\data\\05.png\n")
    assert names_of(tmp_path, "train") == ["01", "02", "03"]
    assert names_of(tmp_path, "val") == ["04", "05"]
    assert len(names_of(tmp_path)) == 25
    with pytest.raises(DataError, match="train 3, val 2, unlisted 20"):
        find_pairs(tmp_path, "test")


def test_a_train_list_lends_a_missing_val(tmp_path):
    make(tmp_path, ["A", "B", "label"], NAMES)
    (tmp_path / "train.txt").write_text("\n".join(NAMES[:20]))
    (tmp_path / "test.txt").write_text("\n".join(NAMES[20:]))
    assert names_of(tmp_path, "val") == ["00", "10"]
    assert len(names_of(tmp_path, "train")) == 18
    assert names_of(tmp_path, "test") == ["20", "21", "22", "23", "24"]


def test_names_with_dots_and_spaces_are_found_in_lists(tmp_path):
    make(tmp_path, ["A", "B"], ["site 1.v2.png", "site 2.v2.png"])
    (tmp_path / "train.txt").write_text("site 1.v2\n")
    (tmp_path / "val.txt").write_text("site 2.v2.png\n")
    assert names_of(tmp_path, "train") == ["site 1.v2"]
    assert names_of(tmp_path, "val") == ["site 2.v2"]


def test_lists_that_leak_or_name_unknown_pairs_are_errors(tmp_path):
    make(tmp_path, ["A", "B"], NAMES)
    (tmp_path / "train.txt").write_text("01\n02\n")
    (tmp_path / "val.txt").write_text("02\n")
    with pytest.raises(DataError, match=r"val\.txt and .*train\.txt both list 02"):
        find_pairs(tmp_path)
    (tmp_path / "val.txt").write_text("03\n\nnowhere.png\n")
    with pytest.raises(DataError, match=r"val\.txt, line 3: .*nowhere\.png"):
        find_pairs(tmp_path)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize("folder", ["im1", "im2", "label1", "label2"])
def test_a_missing_counterpart_names_the_file_and_the_folder(tmp_path, folder):
    make(tmp_path, ["im1", "im2", "label1", "label2"], ["a.png", "b.png"])
    (tmp_path / folder / "b.png").unlink()
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path)
    assert "b.png has no counterpart in" in caught.value.problem
    assert str(tmp_path / folder) in caught.value.problem


def test_an_extra_label_is_a_missing_image(tmp_path):
    make(tmp_path, ["A", "B", "label"], ["a.png"])
    touch(tmp_path / "label", "b.png")
    with pytest.raises(DataError, match=r"label.b\.png has no counterpart in .*A "):
        find_pairs(tmp_path)


def test_two_files_of_one_stem_are_an_error(tmp_path):
    make(tmp_path, ["A", "B"], ["a.png"])
    touch(tmp_path / "B", "a.tif")
    with pytest.raises(DataError, match=r"B has two files for one pair: a\.png and a\.tif"):
        find_pairs(tmp_path)


def test_half_a_pair_of_folders_is_an_error(tmp_path):
    make(tmp_path, ["im1", "im2", "label1"], ["a.png"])
    with pytest.raises(DataError, match="has a folder label1, but none named label2"):
        find_pairs(tmp_path)
    make(tmp_path / "half", ["T1"], ["a.png"])
    with pytest.raises(DataError, match="has a folder T1, but none named T2"):
        find_pairs(tmp_path / "half")


def test_two_spellings_of_one_folder_are_an_error(tmp_path):
    make(tmp_path, ["A", "B", "label_A", "labelA", "labelB"], ["a.png"])
    with pytest.raises(DataError, match="two spellings"):
        find_pairs(tmp_path)


def test_an_empty_or_foreign_folder_says_what_is_known_and_what_was_found(tmp_path):
    with pytest.raises(DataError, match="holds nothing") as caught:
        find_pairs(tmp_path)
    for layout in ("im1 and im2", "A and B", "label1 and label2", "CSV"):
        assert layout in caught.value.fix
    touch(tmp_path / "pictures")
    touch(tmp_path, "readme.md")
    with pytest.raises(DataError, match=r"holds pictures/, readme\.md"):
        find_pairs(tmp_path)
    make(tmp_path, ["im1", "im2"], [])
    with pytest.raises(DataError, match="no image pairs"):
        find_pairs(tmp_path)


def test_one_pair_leaves_nothing_to_train_on(tmp_path):
    make(tmp_path, ["im1", "im2"], ["a.png"])
    with pytest.raises(DataError, match="train 0, val 1"):
        find_pairs(tmp_path, "train")


def test_bad_arguments(tmp_path):
    make(tmp_path, ["im1", "im2"], NAMES)
    with pytest.raises(ArgumentError, match="'dev'"):
        find_pairs(tmp_path, "dev")
    with pytest.raises(ArgumentError, match="val_every is 1"):
        find_pairs(tmp_path, "val", val_every=1)
    with pytest.raises(DataError, match="gone does not exist"):
        find_pairs(tmp_path / "gone")
    with pytest.raises(DataError, match="is not a CSV"):
        find_pairs(tmp_path / "im1" / "00.png")


def test_listing_and_reading_load_no_torch():
    code = (
        "import sys, terradelta.data.images, terradelta.data.layouts; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


# ---------------------------------------------------------------- CSV


def write_csv(root, text, encoding="utf-8"):
    for site in ("x", "y", "z"):
        touch(root / site, "2016.png", "2020.png", "l1.png", "l2.png")
    (root / "pairs.csv").write_text(text, encoding=encoding)
    return root / "pairs.csv"


def test_csv_with_land_cover_labels_splits_and_names(tmp_path):
    path = write_csv(
        tmp_path,
        "name, Before,after,before_label,after_label,split,site\n"
        "z,z/2016.png,z/2020.png,z/l1.png,z/l2.png,train,here\n"
        "\n"
        "x,x/2016.png,x/2020.png,x/l1.png,x/l2.png,val,there\n"
        "y,y/2016.png,y/2020.png,,,,\n",
        encoding="utf-8-sig",
    )
    found = find_pairs(path)
    assert (found.layout, found.classes) == ("csv", SENSEEARTH)
    assert [pair.name for pair in found.pairs] == ["z", "x", "y"]
    assert found.pairs[0].after_label == tmp_path / "z" / "l2.png"
    assert found.pairs[2].before_label is None
    assert names_of(path, "train") == ["z"]
    assert names_of(path, "val") == ["x"]


def test_csv_with_change_masks_and_the_rule_of_the_tenth(tmp_path):
    lines = [f"{s}/2016.png,{s}/2020.png,{s}/l1.png,{s}" for s in "zxy"]
    path = write_csv(tmp_path, "before,after,label,name\n" + "\n".join(lines))
    found = find_pairs(path)
    assert (found.layout, found.classes) == ("csv", BINARY)
    assert all(pair.is_change_mask for pair in found.pairs)
    assert names_of(path, "val") == ["z"]
    assert names_of(path, "train") == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("before,after_label\n", "line 1: the columns are before, after_label"),
        ("", r"line 1: the columns are \(none\)"),
        ("before,after\n", "no lines below"),
        ("before,after\nx/2016.png,x/gone.png\n", "line 2: the after file .*gone.png"),
        ("before,after\nx/2016.png,x/2020.png\n\nx/2016.png,\n", "line 4: no value for after"),
        ("before,after\nx/2016.png\n", "line 2: no value for after"),
        ("before,after\nx/2016.png,x/2020.png,more\n", "line 2: more values than columns"),
        ("before,after,split\nx/2016.png,x/2020.png,dev\n", "line 2: unknown split 'dev'"),
        ("before,after,name\nx/2016.png,x/2020.png,../x\n", "line 2: the name '../x'"),
        (
            "before,after\nx/2016.png,x/2020.png\ny/2016.png,y/2020.png\n",
            "two pairs named 2016: .*x.2016.png and .*y.2016.png",
        ),
    ],
)
def test_csv_errors_name_the_line(tmp_path, text, problem):
    path = write_csv(tmp_path, text)
    with pytest.raises(DataError, match=problem) as caught:
        find_pairs(path)
    assert "pairs.csv" in str(caught.value)


def test_a_csv_that_is_not_utf_8_is_a_data_error(tmp_path):
    (tmp_path / "pairs.csv").write_bytes(b"before,after\n\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        find_pairs(tmp_path / "pairs.csv")


@pytest.mark.skipif(not LEVIR.is_dir(), reason="../shared/data/levir_eval10 is absent")
def test_levir_is_a_binary_data_set():
    found = find_pairs(LEVIR)
    assert (found.layout, len(found.pairs)) == ("binary", 10)
    assert [pair.name for pair in found.pairs][:2] == ["test_1", "test_10"]
    assert names_of(LEVIR, "val") == ["test_1"]
    for pair in found.pairs:
        assert pair.before.parent.name == "A"
        with Image.open(pair.before_label) as image:
            assert set(np.unique(np.asarray(image))) == {0, 255}
