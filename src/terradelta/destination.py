"""Checks the place of an output: inputs and files that others made are never replaced.

Every verb that writes calls these checks before it does any work.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from terradelta.errors import OutputError, OutputExistsError
from terradelta.ownership import find_foreign, is_made, name_unfinished
from terradelta.review_copies import COPY_ENDING, GEOPACKAGE, holds_reviews

_ELSEWHERE = "choose another output"
Inputs = Iterable[str | Path]
"""Files and folders that a command reads; those that are not there are passed over."""
Identity = tuple[int, int]
"""Device and inode: the same for all names of a file."""


def follow_link(path: str | Path) -> Path:
    """Return the target of a link, existing or not, and any other path as it is."""
    path = Path(path)
    if path.is_symlink() or path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return path


def claim_folder(
    path: str | Path,
    inputs: Inputs = (),
    *,
    overwrite: bool = False,
    beside: Sequence[str] = (),
    discard_reviews: bool = False,
) -> Path:
    """Return where a folder will be made or replaced, links followed, once nothing forbids it.

    An empty folder is not an output.

    Args:
        path: The requested folder.
        inputs: What the command reads.
        overwrite: Whether an output of terradelta that is there may be replaced.
        beside: Endings of the names that are made beside it, ".partial" for example.
        discard_reviews: Whether reviews in it need not be kept.

    Raises:
        OutputExistsError: If there is something that may not be replaced.
        OutputError: If it is, holds or lies in an input, is or holds the working or the home
            directory, or cannot be written.
    """
    with _guard(path):
        folder = follow_link(path)
        _refuse_places(path, folder)
        _require_names(folder, beside)
        _refuse_inputs(path, folder, inputs)
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{path} is a file, and the output is a folder", fix=_ELSEWHERE)
        if folder.exists() and any(folder.iterdir()):
            _require_own_folder(path, folder, overwrite)
            if not discard_reviews and holds_reviews(folder / GEOPACKAGE):
                _require_names(folder, [COPY_ENDING.format(999)])
        _require_writable(path, folder.parent)
    return folder


def claim_file(
    path: str | Path,
    inputs: Inputs = (),
    *,
    overwrite: bool = False,
    is_own: Callable[[Path], bool] = lambda path: True,
) -> Path:
    """Return where a file will be made or replaced, links followed, once nothing forbids it.

    Args:
        path: The requested file.
        inputs: What the command reads.
        overwrite: Whether a file that is there may be replaced.
        is_own: A test of a file that is there: whether this command writes such files.

    Raises:
        OutputExistsError: If there is something that may not be replaced.
        OutputError: If it is an input or lies in one, or cannot be written.
    """
    with _guard(path):
        file = follow_link(path)
        _require_names(file)
        _refuse_inputs(path, file, inputs)
        if file.exists():
            if not stat.S_ISREG(file.stat().st_mode):
                what = "a folder" if file.is_dir() else "not a regular file"
                raise OutputExistsError(f"{path} is {what}, and the output is a file", _ELSEWHERE)
            if not is_own(file):
                raise OutputExistsError(
                    f"{path} exists already, and this command does not write such files",
                    fix=f"{_ELSEWHERE}, or move it away",
                )
            if not overwrite:
                raise _refuse_existing(path)
        _require_writable(path, file.parent)
    return file


def _refuse_existing(path: str | Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path} exists already", fix=f"{_ELSEWHERE}, or replace it with --overwrite"
    )


def _require_own_folder(path: str | Path, folder: Path, overwrite: bool):
    foreign = find_foreign(folder)
    if foreign is None and overwrite:
        return
    if foreign is None:
        raise _refuse_existing(path)
    if not overwrite and is_made(folder):
        problem = f"{path} exists already, and holds {foreign}, which terradelta did not make"
    elif is_made(folder):
        problem = f"{path} holds {foreign}, which terradelta did not make"
    else:
        problem = f"{path} exists already, and terradelta did not make it: it holds {foreign}"
    raise OutputExistsError(
        problem, fix=f"{_ELSEWHERE}, or move that away; --overwrite replaces outputs only"
    )


def _require_names(path: Path, beside: Sequence[str] = ()):
    """Raise if the system or an output format does not allow a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            f"{path} has bytes that are not UTF-8 text in its name", fix=_ELSEWHERE
        ) from error
    if any(unicodedata.category(letter) == "Cc" for letter in str(path)):
        raise OutputError(f"{str(path)!r} has control characters in its name", fix=_ELSEWHERE)
    for ending in ("", *beside):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).stat()


def _refuse_places(path: str | Path, folder: Path):
    own = _identify(folder)
    if own is None:
        return
    if folder.is_mount() or folder.parent == folder:
        raise OutputError(
            f"{path} is where a file system begins, and cannot be replaced as a whole",
            fix="choose a folder in it",
        )
    places = {"working": Path.cwd()}
    with suppress(RuntimeError):
        places["home"] = Path.home()
    for name, place in places.items():
        if own in _list_identities(place):
            is_it = own == _identify(place)
            raise OutputError(
                f"{path} {'is' if is_it else 'holds'} the {name} directory, {place}",
                fix=f"{_ELSEWHERE}, for example a folder in it",
            )


def _refuse_inputs(path: str | Path, output: Path, inputs: Inputs):
    own, around = _identify(output), set(_list_identities(output))
    lineages: dict[Path, tuple[Identity, ...]] = {}
    for source in _expand(inputs):
        identity = _identify(source)
        if identity is None:
            continue
        parent = Path(os.path.realpath(source)).parent
        if parent not in lineages:
            lineages[parent] = tuple(_list_identities(parent))
        if identity == own:
            raise OutputError(f"{path} is {source}, an input", fix=_ELSEWHERE)
        if own in lineages[parent]:
            raise OutputError(f"{path} holds the input {source}", fix=_ELSEWHERE)
        if identity in around:
            raise OutputError(f"{path} lies in the input {source}", fix=_ELSEWHERE)


def _expand(inputs: Inputs) -> Iterator[Path]:
    """Yield inputs, and the targets of the links in their folders."""
    for source in map(Path, inputs):
        yield source
        if source.is_dir():
            for folder, folders, files in os.walk(source):
                links = (Path(folder, name) for name in (*folders, *files))
                yield from (Path(os.path.realpath(link)) for link in links if link.is_symlink())


def _identify(path: Path) -> Identity | None:
    """Return the target of a path, None if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _list_identities(path: Path) -> Iterator[Identity]:
    """Yield the identities of a path and of all folders around it that exist."""
    real = Path(os.path.realpath(path))
    for place in (real, *real.parents):
        identity = _identify(place)
        if identity is not None:
            yield identity


def _require_writable(path: str | Path, folder: Path):
    """Raise unless a folder can be made, and files in it."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"{path} lies below {folder}, which is a file", fix=_ELSEWHERE)
    probe = name_unfinished(folder)
    probe.mkdir()
    probe.rmdir()


@contextmanager
def _guard(path: str | Path) -> Iterator[None]:
    """Turn an error of the system about a path into an error for the user."""
    try:
        yield
    except NotADirectoryError as error:
        raise OutputError(f"{path} lies below a file", fix=_ELSEWHERE) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(
            f"{path} cannot be written: {reason}", fix=f"{_ELSEWHERE}, or allow writing there"
        ) from error
