"""Finds the files of a data set: folders of image pairs in known layouts, or a CSV.

The folder names are those of the releases and loaders of SECOND, SenseEarth2020, Landsat-SCD,
LEVIR-CD, CDD and others; without a validation split, the reference implementation's rule
makes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.class_file import CLASSES_FILE, read_classes
from terradelta.data.images import IMAGE_SUFFIXES
from terradelta.data.pair_csv import read_csv
from terradelta.data.pairs import (
    UNLISTED,
    PairFiles,
    PairFolder,
    Problems,
    Split,
    read_text,
    report_problem,
)
from terradelta.data.spellings import (
    CHANGE_FOLDERS,
    IMAGE_FOLDERS,
    KNOWN_CHANGE_FOLDERS,
    LABEL_FOLDERS,
    SPLIT_NAMES,
)
from terradelta.errors import ArgumentError, DataError

_KNOWN_LAYOUTS = (
    "a data set is a folder with im1 and im2 (or A and B, T1 and T2, time1 and time2, before and"
    " after), with label1 and label2 for land cover or label for change masks, optionally inside"
    " train, val and test; or a CSV file with the columns before, after, before_label, after_label"
)


def find_pairs(
    root: str | Path,
    split: Split = "all",
    classes: ClassTable | None = None,
    val_every: int = 10,
) -> PairFolder:
    """List the image pairs of a folder or CSV file, in the order of their file names.

    A split is a sub-folder (train, val, test), or else named by a list (train.txt or
    train_list.txt, in the root or in list/) or by the CSV's split column. Without a val split,
    every `val_every`-th training pair, the first included, is val and the others are train: the
    rule of the reference implementation.

    Args:
        root: Folder, or CSV file whose paths are relative to it.
        split: Split to list.
        classes: Classes of the ids; by default those of the data set's classes.json, or
            without one SENSEEARTH, and BINARY for change masks.
        val_every: Step of the rule that makes a validation split, 2 or more.

    Raises:
        ArgumentError: If an argument is out of its range or `classes` does not fit change masks.
        DataError: If no pairs are found, files do not match, a name occurs twice, or classes.json
            cannot be read.
    """
    root = Path(root)
    if split not in get_args(Split):
        raise ArgumentError(
            f"unknown split {split!r}", fix=f"use one of {', '.join(get_args(Split))}"
        )
    if val_every < 2:
        raise ArgumentError(f"val_every is {val_every}, and it must be 2 or more", fix="use 10")
    pairs = _select(root, list_parts(root), split, val_every)
    _refuse_duplicates(root, pairs)
    change_masks = {pair.is_change_mask for pair in pairs if pair.before_label is not None}
    if len(change_masks) == 2:
        raise DataError(
            f"{root} has change masks for some pairs and land-cover masks for others",
            fix="choose a split, or keep the two kinds in two folders",
        )
    is_binary = change_masks == {True}
    classes = classes or read_classes(list_class_folders(root))
    if is_binary and classes is not None and classes.num_classes != 1:
        raise ArgumentError(
            f"{root} has change masks, one class, but the class table has {classes.num_classes}",
            fix=f"leave the class table or {CLASSES_FILE} out, or add masks of both dates"
            " (label1 and label2)",
        )
    layout = "csv" if root.is_file() else "binary" if is_binary else "senseearth"
    return PairFolder(root, layout, pairs, classes or (BINARY if is_binary else SENSEEARTH))


def list_named_splits(root: str | Path) -> list[str]:
    """Return the splits that a data set names, by folder, list or CSV column.

    Raises:
        DataError: If it cannot be read.
    """
    return sorted(set(list_parts(root)) & set(SPLIT_NAMES))


def list_parts(root: str | Path, problems: Problems | None = None) -> dict[str, list[PairFiles]]:
    """List the pairs of each named split; UNLISTED are those without a split.

    Args:
        root: Same as in `find_pairs`.
        problems: Collects files that do not match and lines that cannot be used, instead of
            raising; their pairs are left out.

    Raises:
        DataError: If no pairs are found or, without `problems`, files do not match.
    """
    root = Path(root)
    if root.is_file() and root.suffix.lower() == ".csv":
        return read_csv(root, problems)
    if root.is_dir():
        return _read_folder(root, problems)
    what = "is not a CSV file" if root.exists() else "does not exist"
    raise DataError(f"{root} {what}", fix=_KNOWN_LAYOUTS)


def list_inputs(root: str | Path) -> list[Path]:
    """Return the files that a data set is read from: its folder, or the CSV and its files."""
    root = Path(root)
    files: dict[Path, None] = {root: None}
    # Files that cannot be read are refused later, when they are read.
    with suppress(DataError, OSError):
        parts = list_parts(root, []) if root.is_file() else {}
        files |= {file: None for part in parts.values() for pair in part for file in pair.files}
    return list(files)


def list_class_folders(root: Path) -> list[Path]:
    """Return the folders that may hold the class table: in the root or with the splits."""
    if root.is_file():
        return [root.parent]
    names = {name for spellings in SPLIT_NAMES.values() for name in spellings}
    return [root, *(folder for key, folder in _subfolders(root).items() if key in names)]


def add_validation(parts: dict[str, list[PairFiles]], val_every: int) -> dict[str, list[PairFiles]]:
    """Return the parts, with every `val_every`-th training pair as val if val is missing.

    Without named splits, all pairs are the training part.
    """
    parts = dict(parts)
    if set(parts) == {UNLISTED}:
        parts["train"] = parts.pop(UNLISTED)
    if "val" not in parts and "train" in parts:
        pool = parts["train"]
        parts["val"] = pool[::val_every]
        parts["train"] = [pair for i, pair in enumerate(pool) if i % val_every]
    return parts


def match_folders(before: Path, after: Path) -> tuple[PairFiles, ...]:
    """Pair the images of two folders by name, in the order of their file names.

    Raises:
        DataError: If a folder holds no images or an image has no counterpart in the other.
    """
    images = {folder: _list_images(folder) for folder in (before, after)}
    for folder, listed in images.items():
        if not listed:
            raise DataError(
                f"no images in {folder}, which holds {_describe(folder)}",
                fix=f"give folders of {', '.join(sorted(IMAGE_SUFFIXES))} files",
            )
    _require_counterparts(before, images[before], after, images[after])
    ordered = sorted(images[before].items(), key=lambda item: item[1].name)
    return tuple(PairFiles(stem, path, images[after][stem], None, None) for stem, path in ordered)


def find_masks(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the masks of both dates by name, in a folder of labels or of predictions.

    Label folders (label1, label2 and their spellings) are searched before image folders, whose
    names (im1, im2; before, after) are those of predictions.

    Raises:
        DataError: If the folders are missing or a mask has no counterpart.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", fix="give the folder of label1/ and label2/")
    folders = _choose(root, _subfolders(root), (*LABEL_FOLDERS, *IMAGE_FOLDERS), refuse_half=False)
    if folders is None:
        raise DataError(
            f"no masks of two dates in {root}, which holds {_describe(root)}",
            fix="give a folder with before/ and after/, im1/ and im2/, or label1/ and label2/",
        )
    return {pair.name: (pair.before, pair.after) for pair in match_folders(*folders)}


def _select(
    root: Path, parts: dict[str, list[PairFiles]], split: Split, val_every: int
) -> tuple[PairFiles, ...]:
    """Pick a split's pairs."""
    if split == "all":
        return tuple(dict.fromkeys(pair for part in parts.values() for pair in part))
    parts = add_validation(parts, val_every)
    if not parts.get(split):
        found = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        raise DataError(
            f"{root} has no pairs for the split {split}; pairs by split: {found}",
            fix=f"choose another split, or add a {split} folder, list or CSV value",
        )
    return tuple(parts[split])


def _refuse_duplicates(root: Path, pairs: Iterable[PairFiles]) -> None:
    seen: dict[str, PairFiles] = {}
    for pair in pairs:
        other = seen.setdefault(pair.name, pair)
        if other is not pair:
            raise DataError(
                f"{root} has two pairs named {pair.name}: {other.before} and {pair.before}",
                fix="rename one (in a CSV: give a name column), or choose one split",
            )


def _key(name: str) -> str:
    """Reduce a folder or column name to the common form of its spellings."""
    return name.lower().translate(str.maketrans("", "", "_- "))


def _read_folder(root: Path, problems: Problems | None) -> dict[str, list[PairFiles]]:
    """Return the pairs by split, from sub-folders or else from lists."""
    folders = _subfolders(root)
    split_folders = {
        split: folders[name]
        for split, names in SPLIT_NAMES.items()
        for name in reversed(names)  # the first spelling wins
        if name in folders
    }
    parts = {split: _list_pairs(folder, problems) for split, folder in split_folders.items()}
    if any(parts.values()):
        for split, folder in split_folders.items():
            if not parts[split]:
                raise _no_pairs(folder)
        return parts
    pairs = _list_pairs(root, problems)
    if not pairs:
        raise _no_pairs(root)
    lists = _find_lists(root)
    return _split_by_lists(pairs, lists, problems) if lists else {UNLISTED: pairs}


def _subfolders(root: Path) -> dict[str, Path]:
    """Return the sub-folders by the key of their name."""
    folders: dict[str, Path] = {}
    known = {_key(name) for pair in (*IMAGE_FOLDERS, *LABEL_FOLDERS) for name in pair}
    known |= {_key(name) for name in CHANGE_FOLDERS}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        other = folders.setdefault(_key(folder.name), folder)
        if other is not folder and _key(folder.name) in known:
            raise DataError(
                f"{root} has the folders {other.name} and {folder.name}, two spellings of one name",
                fix="move one of them away",
            )
    return folders


def _choose(
    root: Path,
    folders: dict[str, Path],
    names: tuple[tuple[str, str], ...],
    refuse_half: bool = True,
) -> tuple[Path, Path] | None:
    """Return the first complete pair of folders, None if there is none."""
    half = None
    for pair in names:
        found = [name for name in pair if _key(name) in folders]
        if len(found) == 2:
            return folders[_key(pair[0])], folders[_key(pair[1])]
        if found and half is None:
            half = found[0], pair[1 - pair.index(found[0])]
    if half and refuse_half:
        raise DataError(
            f"{root} has a folder {folders[_key(half[0])].name}, but none named {half[1]}",
            fix="a pair needs a folder for each of its two dates",
        )
    return None


def _list_pairs(root: Path, problems: Problems | None) -> list[PairFiles]:
    """Return the pairs of one folder, sorted by file name as the reference does; [] if none."""
    folders = _subfolders(root)
    images = _choose(root, folders, IMAGE_FOLDERS)
    if images is None:
        return []
    change = next((folders[_key(n)] for n in CHANGE_FOLDERS if _key(n) in folders), None)
    labels = _choose(root, folders, LABEL_FOLDERS, refuse_half=change is None)
    if labels is None and change is not None:
        labels = change, change
    beside = None
    if labels is not None and change not in labels:
        beside = next((folders[_key(n)] for n in KNOWN_CHANGE_FOLDERS if _key(n) in folders), None)
    before = _list_images(images[0])
    others = [images[1], *dict.fromkeys(labels or ()), *([beside] if beside else [])]
    files = {folder: _list_images(folder) for folder in others}
    for folder, listed in files.items():
        _require_counterparts(images[0], before, folder, listed, problems)
    pairs = []
    complete = [stem for stem in before if all(stem in listed for listed in files.values())]
    for stem in sorted(complete, key=lambda stem: before[stem].name):
        before_label, after_label, change_label = (
            files[folder][stem] if folder else None
            for folder in (*(labels or (None, None)), beside)
        )
        after = files[images[1]][stem]
        pairs.append(PairFiles(stem, before[stem], after, before_label, after_label, change_label))
    return pairs


def _list_images(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, leaving out hidden and other files."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}", fix="give a folder of images"
        ) from error
    images: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        other = images.setdefault(path.stem, path)
        if other is not path:
            raise DataError(
                f"{folder} has two files for one pair: {other.name} and {path.name}",
                fix="keep one of them: files of a pair are matched by name without its ending",
            )
    return images


def _require_counterparts(
    folder: Path,
    images: dict[str, Path],
    other: Path,
    others: dict[str, Path],
    problems: Problems | None = None,
) -> None:
    for here, there, missing in (
        (images, other, sorted(set(images) - set(others))),
        (others, folder, sorted(set(others) - set(images))),
    ):
        for name in missing:
            error = DataError(
                f"{here[name]} has no counterpart in {there}"
                f" ({len(missing)} such files, {len(images)} in {folder.name},"
                f" {len(others)} in {other.name})",
                fix="add the missing files or move the extra ones away (endings may differ)",
            )
            report_problem(problems, here[name], error)


def _describe(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    shown = ", ".join(names[:8]) or "nothing"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _no_pairs(root: Path) -> DataError:
    return DataError(f"no image pairs in {root}, which holds {_describe(root)}", fix=_KNOWN_LAYOUTS)


def _find_lists(root: Path) -> dict[str, Path]:
    """Return the list file of each split, from the first folder that has one."""
    folders = _subfolders(root)
    for folder in (
        root,
        *(folders[name] for name in ("list", "lists", "splits") if name in folders),
    ):
        texts = {_key(path.stem): path for path in sorted(folder.glob("*.txt"))}
        lists = {
            split: texts[key]
            for split, names in SPLIT_NAMES.items()
            for key in reversed([*names, *(f"{name}list" for name in names)])
            if key in texts
        }
        if lists:
            return lists
    return {}


def _split_by_lists(
    pairs: list[PairFiles], lists: dict[str, Path], problems: Problems | None
) -> dict[str, list[PairFiles]]:
    """Divide the pairs by list files; those in no list are kept for the split `all` only."""
    listed: dict[str, set[str]] = {}
    for split, path in lists.items():
        listed[split] = set(_read_list(path, {pair.name for pair in pairs}, problems))
        if shared := sorted(listed[split] & listed.get("train", set())) if split != "train" else []:
            error = DataError(
                f"{path} and {lists['train']} both list {shared[0]} ({len(shared)} shared names)",
                fix=f"training pairs give no valid scores in {split}: list it once",
            )
            report_problem(problems, path, error)
            listed["train"] -= set(shared)
    parts = {split: [p for p in pairs if p.name in names] for split, names in listed.items()}
    parts[UNLISTED] = [p for p in pairs if not any(p.name in names for names in listed.values())]
    return parts


def _read_list(path: Path, names: set[str], problems: Problems | None) -> Iterator[str]:
    """Yield the pair named on each line: its first column, without folders and ending."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        for text in (line.strip(), line.split()[0]):
            file_name = text.replace("\\", "/").rsplit("/", 1)[-1]
            if name := next((n for n in (file_name, Path(file_name).stem) if n in names), None):
                yield name
                break
        else:
            error = DataError(
                f"{path}, line {number}: no pair is named {line.strip()}",
                fix="one name of an image file a line, its ending optional",
            )
            report_problem(problems, path, error)
