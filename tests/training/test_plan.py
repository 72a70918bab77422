from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from terradelta.classes import ClassTable
from terradelta.cli import main
from terradelta.data.class_counts import LabelCounts
from terradelta.data.class_file import write_classes
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError
from terradelta.training import inferred_recipe as plan
from terradelta.training.config import TrainConfig
from terradelta.training.inferred_recipe import infer_plan, measure_pair_bytes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    write_folders(root, 12, seed=1, size_px=64)
    return root


def run_verb(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def test_a_plan_is_printed_and_can_be_given_back(drawn, tmp_path, capsys):
    run_verb("train", drawn, "--epochs", 1, "--batch-size", 4)
    text = capsys.readouterr().out
    assert "# 10 pairs to train on, 2 for validation (every 10th file)" in text
    assert "# sizes: 64 x 64 px: 10" in text
    recipe = tmp_path / "plan.yaml"
    recipe.write_text(text)
    config = TrainConfig.read_yaml(recipe)
    assert config == TrainConfig(
        data=str(drawn), epochs=1, batch_size=4, class_weights=(2, 1, 2, 2, 1, 1)
    )
    run_verb("train", recipe, "-o", tmp_path / "run")
    assert "best epoch 1" in capsys.readouterr().out
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert TrainConfig.read_yaml(tmp_path / "run" / "config.yaml") == config
    assert kept["batch_size"] == 4


def test_shares_are_those_of_the_labels(tmp_path):
    """Three pairs, painted by hand; the first is held out."""
    classes = ClassTable(
        ("unchanged", "field", "lake", "rock"), ((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3))
    )
    write_classes(tmp_path, classes)
    for number, (before, after, rows) in enumerate(((3, 3, 40), (1, 2, 10), (2, 1, 40))):
        for date, class_id in ((1, before), (2, after)):
            for name in ("im", "label"):
                (tmp_path / f"{name}{date}").mkdir(exist_ok=True)
            mask = Image.new("L", (40, 40))
            mask.paste(class_id, (0, 0, 40, rows))
            mask.save(tmp_path / f"label{date}" / f"{number}.png")
            Image.new("RGB", (40, 40)).save(tmp_path / f"im{date}" / f"{number}.png")
    found = infer_plan(TrainConfig(data=str(tmp_path), val_every=3))
    text = "\n".join(found.findings)
    assert "changed: 62.5% of the pixels" in text
    assert "field: 20.0% of the labelled pixels before, 80.0% after" in text
    assert "rock: 0.0% of the labelled pixels before, 0.0% after, never labelled" in text
    field, lake, rock = found.config.class_weights
    assert field == lake == rock == 1


@pytest.mark.parametrize(
    ("sizes", "crop_size_px"),
    [
        ({(512, 512): 3}, None),
        ({(400, 300): 3}, None),
        ({(1024, 1024): 3}, 512),
        ({(1024, 300): 3}, 288),
        ({(256, 256): 3, (200, 210): 1}, 192),
        ({(30, 40): 3, (200, 210): 1}, 30),
    ],
)
def test_large_or_unequal_images_are_cropped(sizes, crop_size_px):
    assert plan._choose_crop(LabelCounts(np.zeros((2, 2)), sizes, 0, 0)) == crop_size_px


def test_bytes_of_a_pair_are_those_of_the_tensors_that_wait_for_the_backward_pass(drawn):
    """Twice the side is four times the bytes, and no weight is among them."""
    config = TrainConfig(data=str(drawn), precision="fp32")
    pairs = find_pairs(drawn)
    small, large = (measure_pair_bytes(config, pairs, 3, side) for side in (64, 128))
    assert large == pytest.approx(4 * small, rel=0.05)
    # Two dates, a third of the encoder's 20 maps of 64 channels at stride 4 at the very least.
    assert large > 2 * 7 * 64 * 32 * 32 * 4


def test_a_batch_that_does_not_fit_becomes_several(drawn, monkeypatch):
    config = TrainConfig(data=str(drawn), batch_size=8)
    pair_bytes = measure_pair_bytes(config, find_pairs(drawn), 3, 64)
    monkeypatch.setattr(plan, "_measure_free_memory", lambda device: 5 * pair_bytes)
    found = infer_plan(config).config
    assert (found.batch_size, found.accumulate_batches) == (2, 4)
    monkeypatch.setattr(plan, "_measure_free_memory", lambda device: pair_bytes)
    with pytest.raises(ArgumentError, match="2 pairs take"):
        infer_plan(config)
