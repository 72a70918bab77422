"""Files of weights that are damaged, or whole and odd."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .damage import HOSTILE_INTEGERS, mutate_bytes, mutate_value


def damage_safetensors(random: Random, path: Path):
    """Damage the bytes or the header of a file, or change its tensors."""
    content = path.read_bytes()
    match random.randrange(3):
        case 0:
            path.write_bytes(mutate_bytes(random, content))
        case 1:
            path.write_bytes(_damage_header(random, content))
        case 2:
            tensors = load_file(path)
            key = random.choice(sorted(tensors))
            _change_tensors(random, tensors, key)
            save_file({name: each.contiguous() for name, each in tensors.items()}, path)


def _damage_header(random: Random, content: bytes) -> bytes:
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    key = random.choice(sorted(header))
    if random.random() < 0.5:
        header[key] = mutate_value(random, header[key])
    else:
        field = random.choice(("shape", "dtype", "data_offsets"))
        odd = {
            "shape": [random.choice(HOSTILE_INTEGERS) for _ in range(random.randrange(5))],
            "dtype": random.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "C64")),
            "data_offsets": [random.choice(HOSTILE_INTEGERS), random.choice(HOSTILE_INTEGERS)],
        }
        header[key] = {**header[key], field: odd[field]}
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def _change_tensors(random: Random, tensors: dict[str, Tensor], key: str):
    """Change one tensor, its name, or what there is of them."""
    tensor = tensors[key]
    match random.randrange(9):
        case 0:
            tensors.pop(key)
        case 1:
            tensors[f"{key}.more"] = tensor.clone()
        case 2:
            tensors.clear()
        case 3:
            tensors[key] = torch.full_like(tensor, _draw_odd(random, tensor))
        case 4 if tensor.numel():
            damaged = tensor.clone()
            damaged.view(-1)[random.randrange(tensor.numel())] = _draw_odd(random, tensor)
            tensors[key] = damaged
        case 5:
            tensors[key] = tensor.to(
                random.choice((torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8))
            )
        case 6:
            tensors[key] = tensor[None]
        case 7 if tensor.ndim:
            tensors[key] = tensor[: len(tensor) // 2]
        case _:
            tensors[key] = torch.zeros(0)


def _draw_odd(random: Random, tensor: Tensor) -> float:
    odd = (float("nan"), float("inf"), float("-inf"), 1e30, -1.0, 0.0)
    return random.choice(odd) if tensor.is_floating_point() else random.choice((-1, 0, 2**31))


def damage_pickle(random: Random, path: Path):
    """Damage the bytes of a .pth, or save something odd in its place."""
    if random.random() < 0.3:
        path.write_bytes(mutate_bytes(random, path.read_bytes()))
        return
    if random.random() < 0.2:
        path.write_bytes(_damage_archive(random, path.read_bytes()))
        return
    state: Any = torch.load(path, weights_only=True)
    # The last layers say how many classes there are.
    keys = sorted(state) if random.random() < 0.6 else list(state)[-4:]
    key = random.choice(keys)
    if random.random() < 0.4:
        _change_tensors(random, state, key)
    else:
        state = _save_oddly(random, state, key)
    torch.save(state, path)


def _save_oddly(random: Random, state: dict[str, Tensor], key: str) -> Any:
    """Return a state dict that is one in name only, or with a tensor of another kind."""
    tensor = state[key]
    flat = tensor.reshape(-1).float()
    odd = {
        "sparse": lambda: flat.to_sparse(),
        "meta": lambda: flat.to("meta"),
        "quantized": lambda: torch.quantize_per_tensor(flat, 0.1, 0, torch.qint8),
        "complex": lambda: tensor.to(torch.complex64),
        "expanded": lambda: torch.zeros(1).expand(100_000_000, *tensor.shape[1:]),
        "enormous": lambda: torch.zeros(1).expand(2**40),
        "parameter": lambda: torch.nn.Parameter(flat),
        "number": lambda: 3.5,
        "nothing": lambda: None,
        "text": lambda: "x",
        "list": lambda: [tensor],
        "dict": lambda: {"x": tensor},
        "transposed": lambda: tensor.transpose(0, -1) if tensor.ndim > 1 else tensor,
    }
    whole = {
        "keys": lambda: dict(enumerate(state.values())),
        "list": lambda: list(state.values()),
        "one tensor": lambda: tensor,
        "number": lambda: 7,
        "empty": lambda: {},
        "nested": lambda: {"state_dict": {"state_dict": state}},
        "odd nest": lambda: {"state_dict": [1, 2], "epoch": 3},
        "more": lambda: {"epoch": 3, "optimizer": {"lr": [1]}, **state},
        "tuple keys": lambda: {("a", 1): tensor, None: tensor},
    }
    if random.random() < 0.7:
        return {**state, key: odd[random.choice(sorted(odd))]()}
    return whole[random.choice(sorted(whole))]()


def _damage_archive(random: Random, content: bytes) -> bytes:
    """Pack a .pth again: with a member damaged, missing, deflated or very large."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        chosen = random.choice(source.namelist())
        way = random.choice(("damage", "drop", "grow", "deflate"))
        for name in source.namelist():
            member = source.read(name)
            if name == chosen and way == "drop":
                continue
            if name == chosen and way == "damage":
                member = mutate_bytes(random, member)
            if name == chosen and way == "grow":
                member = bytes(1024**3)
            is_packed = way == "deflate" or (name == chosen and way == "grow")
            method = zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
            target.writestr(name, member, method, 1)
    return packed.getvalue()
