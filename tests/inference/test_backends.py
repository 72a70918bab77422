import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tests.weights import DRAWN_MODEL
from torch import nn

from terradelta.data.synthetic import draw_pair, write_folders
from terradelta.errors import ArgumentError, DataError, ModelError, OutputExistsError
from terradelta.inference.backends import Choice, Request, choose_backend, make_backend
from terradelta.inference.backends.choice import COMPILE_FROM_PIXELS
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import INT8_FILE, Model, load_model, save_model
from terradelta.models.card import ModelCard
from terradelta.models.change_network import crop_scores
from terradelta.models.crop import Crop
from terradelta.models.deployment import fold_norms
from terradelta.models.encoder import Encoder
from terradelta.models.heads import FCNHead
from terradelta.models.registry import create_model
from terradelta.models.siamese import SiameseNetwork

from ..conftest import build_network, make_model

FAMILIES = [
    ("fcn", "resnet18", False),
    ("pspnet", "resnet18_slim", True),
    ("deeplabv3plus", "resnet18_slim", False),
    ("unet", "efficientnet_lite0", False),
    ("fcn", "efficientnet_lite0", False),
    ("fcn", "hrnet_w18", False),
    ("fpn", "aerial_resnet18_slim", False),
]
SLOW_TO_EXPORT = (("fcn", "hrnet_w18"), ("unet", "efficientnet_lite0"))
WINDOW_PX = 64
CPU = torch.device("cpu")


@cache
def build(name, encoder, lightweight):
    """An untrained model."""
    network = build_network(name, encoder, lightweight)
    return Model(network, ModelCard(architecture=network.config))


def list_pairs():
    """Every family on every backend; some take their time to become ONNX."""
    for family in FAMILIES:
        for backend in ("torch", "openvino", "onnx"):
            is_slow = backend == "onnx" and family[:2] in SLOW_TO_EXPORT
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(family, backend, marks=marks, id="-".join((*family[:2], backend)))


def draw_request(height=96, width=160, dtype=torch.uint8):
    scene = draw_pair(1, (height, width))
    images = [
        torch.from_numpy(image_CHW)[None].to(dtype)
        for image_CHW in (scene.before_CHW, scene.after_CHW)
    ]
    valid_BHW = torch.ones((1, height, width), dtype=torch.bool)
    valid_BHW[:, 10:30, 40:90] = False
    return Request(images[0], images[1], valid_BHW)


def answer_plainly(model, request):
    """The eager network on scaled images."""
    network = model.network
    network.pool_window_px = WINDOW_PX if network.has_global_pooling else None
    images = []
    for image_BCHW in request[:2]:
        scaled_BCHW = model.card.scaling.apply(image_BCHW)
        images.append(scaled_BCHW.masked_fill(~request.valid_BHW[:, None], 0))
    with torch.inference_mode():
        return network.score(*images)


def require_alike(model, backend, dtype):
    request = draw_request(dtype=dtype)
    expected = answer_plainly(model, request)
    answer = make_backend(Choice(backend, "fp32", ""), model, CPU, WINDOW_PX)(request)
    for name, mine, theirs in zip(expected._fields, answer, expected, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == theirs.shape, name
        assert (mine - theirs).abs().max() < 1e-3 * theirs.abs().max(), name


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
@pytest.mark.parametrize("family", [FAMILIES[1], FAMILIES[-1]], ids=["pspnet", "fpn"])
def test_every_backend_answers_for_a_part(family, backend):
    if backend == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install terradelta[onnx]")
    model = build(*family)
    run = make_backend(Choice(backend, "fp32", ""), model, CPU, WINDOW_PX)
    stride_px = model.network.output_stride
    for size, crop in (((96, 160), (0, 3, 1, 2)), ((128, 96), (1, 2, 0, 3))):
        request = draw_request(*size)
        part = Crop(*(stride_px * side for side in crop))
        expected = crop_scores(answer_plainly(model, request), part, size)
        for mine, theirs in zip(run(request, part), expected, strict=True):
            assert mine.shape == theirs.shape
            assert (mine - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_openvino_compiles_one_graph_for_images_of_all_sizes_and_parts(model):
    backend = make_backend(Choice("openvino", "fp32", ""), model, CPU, None)
    for size, crop in (((96, 160), None), ((128, 96), None), ((96, 160), Crop(0, 32, 64, 96))):
        backend(draw_request(*size), crop)
    assert len(backend._compiled) == 1


@pytest.mark.parametrize(("family", "backend"), list(list_pairs()))
def test_every_backend_answers_bytes_like_the_eager_network(family, backend):
    if backend == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install terradelta[onnx]")
    require_alike(build(*family), backend, torch.uint8)


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
def test_every_backend_answers_floats_like_the_eager_network(model, backend):
    if backend == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install terradelta[onnx]")
    require_alike(model, backend, torch.float32)


INTERRUPTED = """
import signal, sys, torch
from concurrent.futures import ThreadPoolExecutor

from terradelta.data.synthetic import draw_pair
from terradelta.models.bundle import load_model
from terradelta.inference.predictor import Predictor
from terradelta.inference.prediction_options import Runtime

# A parent may ignore SIGINT, as a shell does for what runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
kept = [Predictor([load_model(sys.argv[1])], Runtime(backend="openvino", precision="fp32"))]
kept[0](*(torch.from_numpy(image)[None] for image in draw_pair(0, 64)[:2]))
with ThreadPoolExecutor(1) as pool:
    pool.submit(kept.clear).result()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_is_handled_after_another_thread_has_dropped_a_predictor(model_folder):
    line = [sys.executable, "-c", INTERRUPTED, str(model_folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_answers_like_the_eager_one_and_is_kept(model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for height in (96, 64):
        request = draw_request(height=height)
        expected = answer_plainly(model, request)
        compiled = make_backend(Choice("torch-compile", "fp32", ""), model, CPU, WINDOW_PX)
        for mine, theirs in zip(compiled(request), expected, strict=True):
            assert (mine - theirs).abs().max() < 1e-3 * theirs.abs().max()
    assert list(tmp_path.rglob("*.so"))


def test_compiling_without_a_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ArgumentError, match=r"no C\+\+ compiler is installed"):
        choose_backend("torch-compile", "fp32", CPU)


def test_float16_answers_nearly_like_float32(model):
    request = draw_request()
    exact, rounded = (
        make_backend(Choice("torch", precision, ""), model, CPU, WINDOW_PX)(request)
        for precision in ("fp32", "fp16")
    )
    for mine, theirs in zip(rounded, exact, strict=True):
        assert 0 < (mine - theirs).abs().max() < 0.02 * theirs.abs().max()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bfloat16_hardly_changes_the_labels_of_a_trained_model(backend):
    scene = draw_pair(702, 384)
    pair = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
    model = load_model(DRAWN_MODEL)
    exact, rounded = (
        Predictor([model], Runtime(backend=backend, precision=precision)).classify(*pair)[0]
        for precision in ("fp32", "bf16")
    )
    assert (exact.before_HW > 0).mean() > 0.03
    assert (exact.before_HW == rounded.before_HW).mean() > 0.997
    assert (exact.after_HW == rounded.after_HW).mean() > 0.997


def test_folding_leaves_no_normalisation_behind_and_the_network_as_it_was():
    network = build("unet", "resnet18_slim", True).network
    count = sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    folded = fold_norms(network)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert count == sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


class BranchingEncoder(Encoder):
    """Uses what is between a convolution and its normalisation, as pre-activation networks do."""

    channels = (8,)
    strides = (2,)
    alignment_px = 2
    context_px = 8
    stem_key = "conv.weight"

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        nn.init.constant_(self.norm.running_var, 9)

    def forward(self, image_BCHW):
        between_BCHW = self.conv(image_BCHW)
        return [between_BCHW + self.norm(between_BCHW).relu()]


def test_a_network_that_cannot_be_folded_stays_as_it_is():
    torch.manual_seed(0)
    heads = FCNHead(8, 6), FCNHead(8, 1)
    network = SiameseNetwork(BranchingEncoder(), *heads, {"in_channels": 3}).eval()
    assert fold_norms(network) is network


def test_the_choice_goes_by_device_size_and_what_was_asked_for():
    assert choose_backend("auto", "fp32", CPU, COMPILE_FROM_PIXELS).backend == "openvino"
    assert choose_backend("auto", "fp32", CPU, COMPILE_FROM_PIXELS - 1).backend == "torch"
    assert choose_backend("auto", "fp32", CPU).backend == "torch"
    assert choose_backend("auto", "int8", CPU).backend == "openvino"
    assert choose_backend("auto", "fp32", torch.device("cuda"), 10**9).backend == "torch"
    assert choose_backend("openvino", "auto", CPU).precision in ("fp32", "bf16")
    assert choose_backend("torch", "bf16", CPU) == Choice("torch", "bf16", "as requested")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (("abacus", "auto"), "backend 'abacus' is not known"),
        (("auto", "fp8"), "precision 'fp8' is not known"),
        (("torch", "int8"), "torch computes in fp32, bf16, fp16, not in int8"),
        (("onnx", "bf16"), "onnx computes in fp32, not in bf16"),
        (("openvino", "fp16"), "openvino computes in fp32, bf16, int8, not in fp16"),
        (("openvino", "fp32", torch.device("cuda")), "openvino was requested on cuda"),
    ],
)
def test_what_cannot_be_chosen_is_refused(asked, problem):
    if asked[0] == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install terradelta[onnx]")
    with pytest.raises(ArgumentError, match=problem):
        choose_backend(*asked)


def test_the_runtime_is_chosen_by_the_pixels_of_all_views(model):
    few = Predictor([model], Runtime(precision="fp32"))
    few.start(COMPILE_FROM_PIXELS // 2)
    assert few.choice.backend == "torch"
    many = Predictor([model], Runtime(precision="fp32", tta="flips"))
    many.start(COMPILE_FROM_PIXELS // 2)
    assert many.choice.backend == "openvino"
    scene = draw_pair(1, (88, 120))
    pair = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
    slow = Predictor([model], Runtime(precision="fp32", tta="flips", backend="torch"))
    for mine, theirs in zip(many(*pair), slow(*pair), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A trained model with an int8 graph, and the images it was made from."""
    pytest.importorskip("nncf", reason="pip install terradelta[int8]")
    from terradelta.inference.quantization import quantize

    root = tmp_path_factory.mktemp("int8")
    write_folders(root / "images", 6, 3)
    for labels in ("label1", "label2"):  # nobody needs them to quantize
        shutil.rmtree(root / "images" / labels)
    shutil.copytree(DRAWN_MODEL, root / "model")
    result = quantize(root / "model", root / "images", pairs=4)
    assert result.path == root / "model" / INT8_FILE
    assert (result.calibration_pairs, result.checked_pairs) == (4, 2)
    # Less on processors without int8 instructions, which saturate: 0.948 was seen.
    assert 0.9 < result.agreement < 1
    return root / "model", root / "images"


def test_an_int8_graph_answers_images_of_any_size_from_its_window_on(quantized):
    model = load_model(quantized[0])
    for size in (256, (256, 320)):
        scene = draw_pair(8, size)
        pair = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
        exact, rounded = (
            np.stack(
                Predictor([model], Runtime(backend="openvino", precision=precision)).classify(
                    *pair
                )[0]
            )
            for precision in ("fp32", "int8")
        )
        assert 0.9 < (exact[:2] == rounded[:2]).mean() < 1
    small = [image[..., :128, :128] for image in pair]
    with pytest.raises(ModelError, match="of 256 px or more, and this one is 128 x 128 px"):
        Predictor([model], Runtime(precision="int8")).classify(*small)


def test_an_int8_graph_is_kept_unless_it_may_be_overwritten(quantized):
    from terradelta.inference.quantization import quantize

    with pytest.raises(OutputExistsError):
        quantize(*quantized)


@pytest.mark.parametrize("content", [b"", b"<net", b"\x00\xff" * 50, b"<net></net>"])
def test_a_damaged_int8_graph_is_refused(model_folder, tmp_path, content):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "int8.xml").write_bytes(content)
    with pytest.raises(ModelError, match=r"int8\.xml is damaged"):
        Predictor([load_model(folder)], Runtime(precision="int8")).start()


def test_an_int8_graph_of_other_weights_is_refused(quantized, model, tmp_path):
    folder = tmp_path / "model"
    save_model(model, folder)
    with pytest.raises(ModelError, match="the model has no int8 graph"):
        Predictor([load_model(folder)], Runtime(precision="int8")).start()
    for suffix in (".xml", ".bin"):
        shutil.copy((quantized[0] / INT8_FILE).with_suffix(suffix), folder)
    with pytest.raises(ModelError, match="was made from weights"):
        Predictor([load_model(folder)], Runtime(precision="int8")).start()


def test_images_that_do_not_fit_the_model_cannot_quantize_it(quantized, tmp_path):
    from terradelta.inference.quantization import quantize

    model = make_model()
    card = replace(
        model.card,
        architecture=create_model("fcn", encoder="resnet18", in_channels=4).config,
        bands=("red", "green", "blue", "nir"),
        scaling=type(model.card.scaling).imagenet(4),
    )
    save_model((create_model(**card.architecture), card), tmp_path / "four")
    with pytest.raises(DataError, match="has 3 bands and the model reads 4"):
        quantize(tmp_path / "four", quantized[1])
    assert not (tmp_path / "four" / INT8_FILE).exists()
    with pytest.raises(ArgumentError, match="0 pairs"):
        quantize(tmp_path / "four", quantized[1], pairs=0)
