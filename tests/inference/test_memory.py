import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from terradelta.errors import ArgumentError
from terradelta.flags import read_memory
from terradelta.geo.grid import cut_window
from terradelta.inference.memory import plan_memory
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.tiling import LARGEST_TILE_PX, BlockPlan
from terradelta.models.bundle import load_model
from terradelta.models.card import Scaling
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.models.footprint import count_live_bytes

from ..conftest import make_model

MEGABYTE = 1024**2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2GB", 2 * 1024**3),
        ("2 gb", 2 * 1024**3),
        ("1.5GiB", 3 * 512 * MEGABYTE),
        ("800M", 800 * MEGABYTE),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_memory_is_read_with_its_unit(text, value):
    assert read_memory(text) == value


@pytest.mark.parametrize("text", ["much", "-2GB", "2PB", "", "2 GB or so"])
def test_what_is_no_memory_is_refused(text):
    with pytest.raises(ArgumentError, match="not an amount of memory"):
        read_memory(text)


ANSWER = """
import sys
from pathlib import Path
import psutil, torch
from terradelta.geo.grid import cut_window
from terradelta.inference.memory import estimate_network_bytes
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.tiling import BlockPlan
from terradelta.models.bundle import load_model

model, backend, precision, side = *sys.argv[1:4], int(sys.argv[4])
runtime = Runtime(backend=backend, precision=precision, tile_size=side)
predictor = Predictor([load_model(model)], runtime)
plan = BlockPlan(predictor.tiling, side, side, cut_window(0, 0, side, side), 1)
print(estimate_network_bytes(predictor, plan[0]))
images = torch.randint(0, 255, (2, 1, 3, side, side), dtype=torch.uint8)
before = psutil.Process().memory_info().rss
predictor.classify(*images)
# Not the peak of getrusage, which begins with that of the process that started this one.
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("network", ["default", "fcn"])
@pytest.mark.parametrize(
    ("backend", "precision"), [("openvino", "fp32"), ("openvino", "bf16"), ("torch", "fp32")]
)
def test_a_tile_takes_no_more_memory_than_estimated(network, backend, precision, model_folder):
    """In a process of its own, as a peak is one of the whole process."""
    folder = model_folder if network == "fcn" else DEFAULT_MODEL
    arguments = [sys.executable, "-c", ANSWER, str(folder), backend, precision, "1024"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    estimated, seen = map(int, done.stdout.split())
    assert seen < estimated < 4 * seen


def test_features_are_counted_alike_each_time_and_grow_with_the_channels():
    counts = [
        count_live_bytes(load_model(DEFAULT_MODEL)),
        count_live_bytes(load_model(DEFAULT_MODEL)),
        count_live_bytes(make_model()),
    ]
    assert counts[0] == counts[1]
    # Three bands of both dates in float32 are there in any case.
    assert min(counts) > 2 * 3 * 4


def test_a_network_in_training_mode_keeps_its_statistics():
    model = make_model()
    model.network.train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    Predictor([model])
    assert model.network.training
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_live_bytes_are_the_largest_sum_of_what_exists_at_a_time():
    class TwoMaps(torch.nn.Module):
        """Makes 3 and 5 channels of float32, one after the other, and answers one."""

        output_stride = 1
        has_global_pooling = False

        def score(self, before_BCHW, after_BCHW):
            size = before_BCHW.shape[-2:]
            first = torch.zeros((1, 3, *size))
            kept = first.sum(dim=1)
            del first
            second = torch.zeros((1, 5, *size))
            return kept + second.sum(dim=1)

    card = SimpleNamespace(bands=("red", "green", "blue"), scaling=Scaling.imagenet())
    model = SimpleNamespace(network=TwoMaps(), card=card)
    # The second map, its sum and what was kept; the last sum comes when all of these are there.
    assert count_live_bytes(model) == 4 * (5 + 1 + 1 + 1)


def test_small_budgets_get_small_tiles_and_large_ones_the_default(model):
    predictor = Predictor([load_model(DEFAULT_MODEL)], Runtime(precision="fp32"))
    default = predictor.tiling
    assert default.tile_size_px == LARGEST_TILE_PX
    sides = []
    for budget in ("64GB", "4GB", "2GB", "1GB", "10MB"):
        predictor.fit_memory(read_memory(budget))
        sides.append(predictor.tiling.tile_size_px)
    assert sides[:2] == [LARGEST_TILE_PX] * 2
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == 768
    chosen = Predictor([model], Runtime(precision="fp32", tile_size=640))
    chosen.fit_memory(read_memory("10MB"))
    assert chosen.tiling.tile_size_px == 640


def test_more_memory_reads_further_ahead_and_too_little_is_refused(model):
    predictor = Predictor([model], Runtime(precision="fp32"))
    plan = BlockPlan(predictor.tiling, 4000, 4000, cut_window(0, 0, 4000, 4000), 2)
    depths = [
        plan_memory(read_memory(budget), predictor, plan[0], 6).read_ahead
        for budget in ("8GB", "16GB")
    ]
    assert 1 <= depths[0] <= depths[1]
    with pytest.raises(ArgumentError, match=r"is 100 MB and this job needs about [\d,]+ MB"):
        plan_memory(read_memory("100MB"), predictor, plan[0], 6)
