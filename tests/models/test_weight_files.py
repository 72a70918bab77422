"""Files of weights that claim more than they hold, or hold what is not a weight."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.mutants import mutate_bytes

import terradelta as td
from terradelta.errors import ModelError
from terradelta.models.published import list_published_keys
from terradelta.models.registry import create_model
from terradelta.models.weight_files import MAX_HEADER_BYTES, SPARED_BYTES, read_checkpoint

TENSORS = {"a.weight": torch.rand(3, 4), "a.steps": torch.tensor(5)}


def test_plain_tensors_are_read_from_every_format(tmp_path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in TENSORS.items()}}, tmp_path / "a.pth")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(TENSORS, tmp_path / "a.safetensors")
    np.savez_compressed(tmp_path / "a.npz", **{k: v.numpy() for k, v in TENSORS.items()})
    torch.save({"b": TENSORS["a.weight"].half(), "c": TENSORS["a.weight"].T}, tmp_path / "b.pth")
    for name in ("a.pth", "old.pth", "a.safetensors", "a.npz"):
        read = read_checkpoint(tmp_path / name)
        assert read.keys() == TENSORS.keys()
        assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS), name
    assert torch.equal(read_checkpoint(tmp_path / "b.pth")["c"], TENSORS["a.weight"].T)


def quantized():
    return torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: {"a": torch.rand(3, 3).to_sparse()}, "sparse"),
        (lambda: {"a": torch.eye(3).to_sparse_csr()}, "sparse"),
        (lambda: {"a": torch.empty(3, device="meta")}, "meta tensor"),
        (lambda: {"a": quantized()}, "quantized"),
        (lambda: {"a": torch.rand(3, dtype=torch.complex64)}, "complex, torch.complex64"),
        (lambda: {3: torch.rand(3)}, "its name is of the type int"),
        (lambda: {("a", "b"): torch.rand(3)}, "its name is of the type tuple"),
        (lambda: {"a": torch.zeros(1, 1).expand(10**8, 512)}, "of which the file holds 4"),
        (
            lambda: {"a": torch.zeros(8).as_strided((4, 4), (1, 1))},
            "64 bytes of which the file holds 32",
        ),
    ],
)
# torch says of these layouts that they are young.
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_what_is_no_weight_is_named(tmp_path, make, words):
    state = make()
    for content, options in (
        (state, {}),
        ({"state_dict": state, "epoch": 3}, {}),
        (state, {"_use_new_zipfile_serialization": False}),
    ):
        path = tmp_path / "weights.pth"
        torch.save(content, path, **options)
        with pytest.raises(ModelError, match=words) as caught:
            read_checkpoint(path)
        assert "weights.pth" in caught.value.problem


def test_a_classifier_of_1e8_classes_in_some_kilobytes_is_refused(tmp_path):
    network = create_model("fcn", "resnet18_slim", 6)
    names = list_published_keys(network)
    state = {names[key]: value for key, value in network.state_dict().items()}
    weight, bias = (names[f"semantic_head.classifier.{part}"] for part in ("weight", "bias"))
    for key in (weight, bias):
        state[key] = state[key][:1].expand(10**8, *state[key].shape[1:])
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(ModelError, match="of which the file holds"):
        td.convert(
            tmp_path / "wide.pth",
            tmp_path / "model",
            model="fcn",
            encoder="resnet18_slim",
            polarity="changed",
        )
    state[weight] = torch.zeros(300, state[weight].shape[1], 1, 1)
    state[bias] = torch.zeros(300)
    torch.save(state, tmp_path / "many.pth")
    with pytest.raises(ModelError, match=r"\[300, .* with 1 to 254 classes"):
        td.convert(
            tmp_path / "many.pth",
            tmp_path / "model",
            model="fcn",
            encoder="resnet18_slim",
            polarity="changed",
        )
    assert not (tmp_path / "model").exists()


def test_a_converted_checkpoint_holds_numbers(tmp_path):
    network = create_model("fcn", "resnet18_slim", 6)
    names = list_published_keys(network)
    state = {names[key]: value for key, value in network.state_dict().items()}
    bias = names["semantic_head.classifier.bias"]
    state[bias] = state[bias] * float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"bias \(6 of 6 are NaN or infinite\)"):
        td.convert(
            tmp_path / "weights.pth",
            tmp_path / "model",
            model="fcn",
            encoder="resnet18_slim",
            polarity="changed",
        )


def deflate(source, target):
    with (
        zipfile.ZipFile(source) as plain,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_archives_that_unpack_to_far_more_are_refused(tmp_path, suffix):
    zeros = torch.zeros(2 * SPARED_BYTES // 4)
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".pth":
        torch.save({"a": zeros}, tmp_path / "plain.pth")
        deflate(tmp_path / "plain.pth", path)
    else:
        np.savez_compressed(path, a=zeros.numpy())
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match=r"bomb.* would unpack to 33,5\d\d,\d\d\d"):
        read_checkpoint(path)
    # What shrinks a little, or is small, is read.
    np.savez_compressed(tmp_path / "small.npz", a=np.zeros(1000))
    assert len(read_checkpoint(tmp_path / "small.npz")["a"]) == 1000


def test_a_header_of_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}")
    with pytest.raises(ModelError, match="its header would take"):
        read_checkpoint(path)


class Grower:
    def __reduce__(self):
        return bytearray, (10**12,)


def test_a_pickle_that_takes_what_it_says_is_refused(tmp_path):
    torch.save({"a": TENSORS["a.weight"], "b": Grower()}, tmp_path / "grow.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Grower(), protocol=2))
    for name in ("grow.pth", "bare.pth"):
        with pytest.raises(ModelError, match="bytearray"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_damaged_files_are_refused_or_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(TENSORS, path)
    elif suffix == ".npz":
        np.savez_compressed(path, **{key: value.numpy() for key, value in TENSORS.items()})
    else:
        save_file(TENSORS, path)
    refused = 0
    for _, content in mutate_bytes(path.read_bytes(), seed=3, count=60):
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except ModelError:
            refused += 1
    assert refused > 10
