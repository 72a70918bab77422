"""The names of folders and splits that known data sets use."""

from __future__ import annotations

IMAGE_FOLDERS = (
    ("im1", "im2"),
    ("A", "B"),
    ("T1", "T2"),
    ("time1", "time2"),
    ("before", "after"),
    ("image1", "image2"),
    ("img1", "img2"),
    ("pre", "post"),
)
"""Folder names of the before and after images. Case, `_`, `-` and spaces are ignored."""

LABEL_FOLDERS = (
    ("label1", "label2"),
    ("labelA", "labelB"),
    ("A_label", "B_label"),
    ("GT_T1", "GT_T2"),
    ("label_T1", "label_T2"),
    ("T1_label", "T2_label"),
    ("label_time1", "label_time2"),
    ("time1_label", "time2_label"),
    ("before_label", "after_label"),
    ("label_before", "label_after"),
    ("mask1", "mask2"),
    ("gt1", "gt2"),
    ("label1_rgb", "label2_rgb"),
    ("labelA_rgb", "labelB_rgb"),
)
"""Folder names of the land-cover masks of both dates, the first complete pair is used."""

CHANGE_FOLDERS = (
    "label",
    "labels",
    "mask",
    "masks",
    "gt",
    "OUT",
    "GT_CD",
    "CD_label",
    "label_CD",
    "change_label",
    "change_mask",
)
"""Folder names of change masks, used without land-cover masks."""

KNOWN_CHANGE_FOLDERS = ("change_mask", "change_label")
"""Folder names of change masks beside land-cover masks that may also label unchanged ground."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Names of the sub-folders, and of the lists `NAME.txt` or `NAME_list.txt`, of each split."""
