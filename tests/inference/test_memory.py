import numpy as np
import pytest

from terradelta.errors import ArgumentError
from terradelta.flags import read_memory
from terradelta.geo.grid import cut_window
from terradelta.inference.memory import measure_peak, plan_memory
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.tiling import BlockPlan

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


def fill_100_megabytes():
    # Many times: the peak is sampled, and a busy machine misses what is there for an instant.
    for _ in range(20):
        np.ones(100 * MEGABYTE // 8).sum()


def test_the_peak_counts_memory_that_is_gone_again():
    assert 80 * MEGABYTE < measure_peak(fill_100_megabytes) < 300 * MEGABYTE


def test_the_peak_counts_memory_that_the_process_had_freed_before():
    # Freed below the allocator's limit for maps of their own, it stays with the process.
    for _ in range(2):
        np.ones(30 * MEGABYTE // 8)
    pieces = [np.ones(10 * MEGABYTE // 8) for _ in range(20)]
    fence = [bytes(1000) for _ in range(10_000)]
    del pieces
    assert 80 * MEGABYTE < measure_peak(fill_100_megabytes) < 300 * MEGABYTE
    assert fence


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
