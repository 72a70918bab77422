from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from torch.utils.data import DataLoader

from terradelta.classes import SENSEEARTH
from terradelta.data.augment import Augmentation
from terradelta.data.dataset import ChangeDataset
from terradelta.data.images import write_change_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.sampler import PairBatchSampler
from terradelta.errors import ArgumentError, DataError

LEVIR = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "levir_eval10"
SIZE = 12


@pytest.fixture
def senseearth(tmp_path):
    """A folder of seven small pairs and the arrays it holds."""
    random = np.random.default_rng(0)
    arrays = []
    for folder in ("im1", "im2", "label1", "label2"):
        (tmp_path / folder).mkdir()
    for i in range(7):
        before_HWC, after_HWC = random.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
        before_ids, after_ids = random.integers(0, 7, (2, SIZE, SIZE))
        Image.fromarray(before_HWC).save(tmp_path / "im1" / f"{i}.png")
        Image.fromarray(after_HWC).save(tmp_path / "im2" / f"{i}.png")
        write_mask(tmp_path / "label1" / f"{i}.png", before_ids, SENSEEARTH)
        write_mask(tmp_path / "label2" / f"{i}.png", after_ids, SENSEEARTH)
        arrays.append((before_HWC, after_HWC, before_ids, after_ids))
    return tmp_path, arrays


def test_samples_are_what_the_files_hold(senseearth):
    root, arrays = senseearth
    dataset = ChangeDataset(find_pairs(root))
    assert len(dataset) == 7
    for index, (before_HWC, after_HWC, before_ids, after_ids) in enumerate(arrays):
        sample = dataset[index]
        assert sample.before_CHW.dtype == torch.uint8
        np.testing.assert_array_equal(sample.before_CHW, before_HWC.transpose(2, 0, 1))
        np.testing.assert_array_equal(sample.after_CHW, after_HWC.transpose(2, 0, 1))
        assert sample.before_labels_HW.dtype == sample.after_labels_HW.dtype == torch.int64
        np.testing.assert_array_equal(sample.before_labels_HW, before_ids)
        np.testing.assert_array_equal(sample.after_labels_HW, after_ids)
        np.testing.assert_array_equal(sample.change_HW, (before_ids > 0) | (after_ids > 0))
        assert sample.index == index
    assert dataset[-1].index == 6
    with pytest.raises(IndexError):
        dataset[7]


def test_a_change_mask_gives_class_1_at_both_dates(tmp_path):
    change_HW = np.eye(SIZE, dtype=np.uint8)
    for folder in ("A", "B", "label"):
        (tmp_path / folder).mkdir()
    for folder in ("A", "B"):
        Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / folder / "x.png")
    write_change_mask(tmp_path / "label" / "x.png", change_HW)
    sample = ChangeDataset(find_pairs(tmp_path))[0]
    np.testing.assert_array_equal(sample.before_labels_HW, change_HW)
    np.testing.assert_array_equal(sample.after_labels_HW, change_HW)
    sample.before_labels_HW[:] = 0
    np.testing.assert_array_equal(sample.after_labels_HW, change_HW)  # not one tensor twice


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        (("before_label",), "unknown"),
        (("after_label",), "unknown"),
        (("before_label", "after_label"), "labelled"),
        (("before_label", "after_label", "label"), "mask"),
        (("after_label", "label"), "mask"),
        (("label",), "mask"),
    ],
)
def test_labels_that_are_there_are_used_and_the_rest_is_not_known(senseearth, columns, change):
    root, arrays = senseearth
    (root / "change").mkdir()
    change_HW = np.eye(SIZE, dtype=np.int64)
    write_change_mask(root / "change" / "0.png", change_HW)
    cells = {
        "before_label": "label1/0.png",
        "after_label": "label2/0.png",
        "label": "change/0.png",
    }
    # The second line makes it a set of classes, whatever the first has.
    (root / "pairs.csv").write_text(
        "before,after,before_label,after_label,label\n"
        f"im1/0.png,im2/0.png,{','.join(cells[c] if c in columns else '' for c in cells)}\n"
        "im1/1.png,im2/1.png,label1/1.png,label2/1.png,\n"
    )
    pairs = find_pairs(root / "pairs.csv")
    sample = ChangeDataset(pairs, allow_partial=True)[0]
    _, _, before_ids, after_ids = arrays[0]
    nothing_HW = np.zeros((SIZE, SIZE))
    expected = {
        "unknown": nothing_HW - 1,
        "labelled": (before_ids > 0) | (after_ids > 0),
        "mask": change_HW,
    }[change]
    np.testing.assert_array_equal(sample.change_HW, expected)
    for column, labels_HW, ids in (
        ("before_label", sample.before_labels_HW, before_ids),
        ("after_label", sample.after_labels_HW, after_ids),
    ):
        np.testing.assert_array_equal(labels_HW, ids if column in columns else nothing_HW)
    if {"before_label", "after_label"} <= set(columns):
        ChangeDataset(pairs)
    else:
        with pytest.raises(DataError, match=r"1 of 2 pairs in .* not labelled at both dates, 0"):
            ChangeDataset(pairs)


def test_a_change_mask_beside_the_masks_of_the_dates_says_what_changed(senseearth):
    """So that land cover can be labelled where nothing changed."""
    root, _ = senseearth
    (root / "change_mask").mkdir()
    for number in range(7):
        change_HW = np.zeros((SIZE, SIZE), np.int64)
        change_HW[number] = 1
        write_change_mask(root / "change_mask" / f"{number}.png", change_HW)
    for number, sample in enumerate(ChangeDataset(find_pairs(root))):
        assert np.flatnonzero(sample.change_HW.any(dim=1)).tolist() == [number]
        assert (sample.before_labels_HW > 0).sum() > 2 * SIZE


def test_other_data_types_become_float32_in_stored_units(tmp_path):
    (tmp_path / "pairs.csv").write_text("before,after,label\nbefore.tif,after.tif,label.png\n")
    image_CHW = np.arange(13 * 6, dtype=np.uint16).reshape(13, 2, 3) * 500
    for name in ("before.tif", "after.tif"):
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            file = rasterio.open(
                tmp_path / name, "w", driver="GTiff", width=3, height=2, count=13, dtype="uint16"
            )
        with file:
            file.write(image_CHW)
    write_change_mask(tmp_path / "label.png", np.zeros((2, 3), int))
    sample = ChangeDataset(find_pairs(tmp_path / "pairs.csv"))[0]
    assert sample.before_CHW.dtype == torch.float32
    np.testing.assert_array_equal(sample.before_CHW, image_CHW.astype(np.float32))


def test_missing_labels_are_refused_at_once(senseearth):
    root, _ = senseearth
    for folder in ("label1", "label2"):
        (root / folder).rename(root / f"elsewhere_{folder}")
    with pytest.raises(DataError, match=r"7 of 7 pairs in .* have no labels, 0 first"):
        ChangeDataset(find_pairs(root))


def test_a_negative_seed_is_refused(senseearth):
    with pytest.raises(ArgumentError, match="-1"):
        ChangeDataset(find_pairs(senseearth[0]), seed=-1)


@pytest.mark.parametrize(
    ("folder", "array", "words"),
    [
        (
            "im2",
            np.zeros((5, SIZE, 3), np.uint8),
            ["12 x 12 pixels with 3", "5 x 12 pixels with 3"],
        ),
        ("im2", np.zeros((SIZE, SIZE), np.uint8), ["3 bands", "1 bands", "im1"]),
        ("label1", np.zeros((5, 6), np.uint8), ["5 x 6", "12 x 12", "label2"]),
        ("label2", np.zeros((5, 6), np.uint8), ["5 x 6", "12 x 12", "label1"]),
        ("label2", np.full((SIZE, SIZE), 9, np.uint8), ["values 9", "0 to 6"]),
    ],
)
def test_files_that_do_not_fit_name_themselves_and_both_values(senseearth, folder, array, words):
    root, _ = senseearth
    Image.fromarray(array).save(root / folder / "3.png")
    dataset = ChangeDataset(find_pairs(root))
    dataset[2]
    with pytest.raises(DataError) as caught:
        dataset[3]
    for word in (*words, str(root / folder / "3.png")):
        assert word in caught.value.problem


def test_labels_of_another_size_than_the_images_are_refused(senseearth):
    root, _ = senseearth
    for folder in ("label1", "label2"):
        Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / folder / "3.png")
    with pytest.raises(DataError, match=r"label1.3.png is 5 x 6 .* .*im1.3.png is 12 x 12"):
        ChangeDataset(find_pairs(root))[3]


def test_dates_of_two_data_types_are_refused(tmp_path):
    for name, dtype in (("before.tif", np.uint8), ("after.tif", np.uint16)):
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            file = rasterio.open(
                tmp_path / name, "w", driver="GTiff", width=2, height=2, count=1, dtype=dtype
            )
        with file:
            file.write(np.zeros((1, 2, 2), dtype))
    write_change_mask(tmp_path / "label.png", np.zeros((2, 2), int))
    (tmp_path / "pairs.csv").write_text("before,after,label\nbefore.tif,after.tif,label.png\n")
    with pytest.raises(DataError, match=r"before\.tif is .*uint8, but .*after\.tif is .*uint16"):
        ChangeDataset(find_pairs(tmp_path / "pairs.csv"))[0]


def test_a_crop_that_does_not_fit_names_the_file(senseearth):
    dataset = ChangeDataset(find_pairs(senseearth[0]), Augmentation(crop_size_px=13))
    with pytest.raises(DataError, match=r"0\.png: the image is 12 x 12 .* crop 13 x 13"):
        dataset[0]


def test_augmentation_is_a_function_of_seed_epoch_and_index(senseearth):
    pairs = find_pairs(senseearth[0])
    augmentation = Augmentation(crop_size_px=6, brightness=0.3)

    def read(seed, epoch, index):
        dataset = ChangeDataset(pairs, augmentation, seed)
        dataset.epoch = epoch
        return dataset[index]

    def same(first, second):
        return all(torch.equal(a, b) for a, b in zip(first[:4], second[:4], strict=True))

    assert same(read(1, 2, 3), read(1, 2, 3))
    assert not same(read(1, 2, 3), read(1, 3, 3))
    assert not same(read(1, 2, 3), read(2, 2, 3))
    running = ChangeDataset(pairs, augmentation, 1)
    for index in (5, 3, 0):  # what was read before makes no difference
        running[index]
    running.epoch = 2
    assert same(running[3], read(1, 2, 3))


def test_each_seed_epoch_and_index_draws_its_own_numbers(senseearth):
    def draw(sample, generator):
        return sample._replace(index=float(torch.rand((), generator=generator)))

    pairs = find_pairs(senseearth[0])
    draws = set()
    for seed in range(3):
        dataset = ChangeDataset(pairs, draw, seed)
        for epoch in range(3):
            dataset.epoch = epoch
            draws.update(sample.index for sample in dataset)
    assert len(draws) == 3 * 3 * 7


@pytest.mark.parametrize(("num_workers", "persistent"), [(1, False), (2, True)])
def test_workers_draw_the_same_as_no_workers(senseearth, num_workers, persistent):
    pairs = find_pairs(senseearth[0])

    def load(num_workers, persistent=False):
        dataset = ChangeDataset(pairs, Augmentation(crop_size_px=5, contrast=0.5), seed=4)
        sampler = PairBatchSampler(len(dataset), 3, seed=4)
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            persistent_workers=persistent,
        )
        for epoch in range(3):
            sampler.epoch = dataset.epoch = epoch
            yield from loader

    expected = list(load(0))
    assert len(expected) == 3 * 2  # seven pairs in batches of three: the lone last one is joined
    loaded = list(load(num_workers, persistent))
    assert len(loaded) == len(expected)
    for batch, other in zip(loaded, expected, strict=True):
        for tensor, other_tensor in zip(batch, other, strict=True):
            assert torch.equal(tensor, other_tensor)
    assert expected[0].before_CHW.shape == (3, 3, 5, 5)
    assert expected[0].index.shape == (3,)
    assert not torch.equal(expected[0].index, expected[2].index)


@pytest.mark.skipif(not LEVIR.is_dir(), reason="../shared/data/levir_eval10 is absent")
def test_levir_reads_as_a_binary_data_set():
    dataset = ChangeDataset(find_pairs(LEVIR))
    num_read = 0
    for sample in dataset:
        assert sample.before_CHW.shape == sample.after_CHW.shape == (3, 1024, 1024)
        assert torch.equal(sample.before_labels_HW, sample.after_labels_HW)
        assert set(sample.before_labels_HW.unique().tolist()) == {0, 1}
        with Image.open(LEVIR / "label" / f"{dataset.pairs.pairs[sample.index].name}.png") as image:
            np.testing.assert_array_equal(sample.before_labels_HW, np.asarray(image) == 255)
        num_read += 1
    assert num_read == 10
