"""Reads files of weights: sizes are checked before unpacking, and no code in them is run."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from terradelta.errors import ModelError
from terradelta.fields import show

MAX_RATIO = 32
"""Largest ratio of unpacked to packed size of an archive; trained weights hardly compress."""
SPARED_BYTES = 16 * 2**20
"""Archives that unpack to less are accepted with any ratio: zeros compress well."""
MAX_HEADER_BYTES = 16 * 2**20
"""Largest header of a safetensors file, with names and shapes; 10,000 tensors need 1 MB."""
MAX_KEYS_LISTED = 10
_GROWING = ("builtins bytearray", "__builtin__ bytearray")
"""Functions that a pickle may call under torch's rules and that allocate memory of a given size."""
LEGACY_PICKLES = 5
"""Pickles before the numbers of a file that is not an archive: magic, version, system, state,
storages."""
_DAMAGED = "fetch the file again"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .pth, .safetensors or .npz file; nothing in the file is run.

    An enclosing `{"state_dict": ...}` and a prefix `module.` of every key are removed.

    Raises:
        ModelError: If the file is missing, damaged or unpacks to far more than its size, or holds
            more than dense tensors of real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"the weight file {path} does not exist", fix="check the path")
    state = _READERS.get(path.suffix, _read_pickle)(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(
            f"{path} holds {_describe(state)}, not a state dict of tensors",
            fix="save only the weights: torch.save(network.state_dict(), path)",
        )
    _require_plain(path, state)
    storages = {value.untyped_storage().data_ptr(): value for value in state.values()}
    _require_size(path, sum(value.untyped_storage().nbytes() for value in storages.values()))
    prefix = "module."
    if state and all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _require_plain(path: Path, state: Mapping[Any, Tensor]):
    """Raise unless all are dense tensors of real numbers whose numbers are all in the file.

    Raises:
        ModelError: Naming the first ten that are not.
    """
    problems = [
        f"{show(key)} ({problem})"
        for key, value in state.items()
        if (problem := _find_problem(key, value)) is not None
    ]
    if problems:
        more = ", ..." if len(problems) > MAX_KEYS_LISTED else ""
        raise ModelError(
            f"{path} holds {len(problems)} entries that are not weights: "
            f"{', '.join(problems[:MAX_KEYS_LISTED])}{more}",
            fix="save plain tensors under their names: torch.save({name: tensor.to_dense()"
            ".contiguous().clone() for name, tensor in network.state_dict().items()}, path)",
        )


def _find_problem(key: Any, value: Tensor) -> str | None:
    """Return why a tensor is not a weight of a network; or None."""
    if not isinstance(key, str):
        return f"its name is of the type {type(key).__name__}"
    if value.is_meta:
        return "a meta tensor, without numbers"
    if value.layout != torch.strided:
        return f"a sparse tensor, {value.layout}"
    if value.is_quantized:
        return f"quantized, {value.dtype}"
    if value.is_complex():
        return f"complex, {value.dtype}"
    stated, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if stated > stored:
        return f"{list(value.shape)}, {stated:,} bytes of which the file holds {stored:,}"
    return None


def _read_safetensors(path: Path) -> Any:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ModelError(
            f"{path} is damaged: its header would take {header_bytes:,} bytes", fix=_DAMAGED
        )
    try:
        return load_file(path)
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise ModelError(f"{path} is damaged: {error}", fix=_DAMAGED) from error


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        if is_archive:
            _require_honest_size(path)
        _require_bounded(path, is_archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is not a file of tensors only; a pickle with other objects can run any code, "
            f"so it is not opened ({str(error).splitlines()[0]})",
            fix="if you trust it, save only its weights: torch.save(network.state_dict(), path)",
        ) from error
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise ModelError(f"{path} is damaged or not a torch file: {error}", fix=_DAMAGED) from error


def _read_npz(path: Path) -> Any:
    try:
        _require_honest_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except ModelError:
        raise
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise ModelError(
            f"{path} is damaged or holds more than arrays of numbers: {error}", fix=_DAMAGED
        ) from error


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}


def _require_honest_size(path: Path):
    """Raise if an archive's list of contents gives far more bytes than its size.

    Readers unpack no more than this list gives.

    Raises:
        ModelError: With both sizes.
    """
    with zipfile.ZipFile(path) as archive:
        _require_size(path, sum(entry.file_size for entry in archive.infolist()))


def _require_size(path: Path, unpacked: int):
    packed = path.stat().st_size
    if unpacked > MAX_RATIO * packed + SPARED_BYTES:
        raise ModelError(
            f"{path} has {packed:,} bytes and would unpack to {unpacked:,}, as no weights do",
            fix="save it uncompressed: torch.save(state, path) or numpy.savez(path, **state)",
        )


def _require_bounded(path: Path, is_archive: bool):
    """Raise if a pickle could allocate any amount of memory, however small the file is.

    Raises:
        pickle.UnpicklingError: Naming the function that it would call.
    """
    for name in _list_globals(path, is_archive):
        if name in _GROWING:
            raise pickle.UnpicklingError(f"it calls {name.replace(' ', '.')}")


def _list_globals(path: Path, is_archive: bool) -> Iterator[str]:
    """Yield the Python names in a pickle, module and name, which it may call."""
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl"):
                    yield from _list_names(archive.read(entry))
        return
    # Before torch wrote archives, files held several pickles and then the numbers.
    with path.open("rb") as file, suppress(ValueError):
        for _ in range(LEGACY_PICKLES):
            yield from _list_names(file)


def _list_names(content: Any) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            yield str(argument)


def _describe(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    others = [show(key) for key, value in state.items() if not isinstance(value, Tensor)]
    return f"other things among its tensors ({', '.join(others[:MAX_KEYS_LISTED])})"
