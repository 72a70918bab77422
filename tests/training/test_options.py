"""What the options of a recipe do, each against what it promises."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR

import terradelta as td
from terradelta.classes import BINARY, SENSEEARTH
from terradelta.data.class_counts import count_labels
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, DataError
from terradelta.training.class_weights import choose_class_weights, weigh_by_count
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train
from terradelta.training.optimization import (
    average_weights,
    build_optimizer,
    clip_gradients,
    rate_factor,
)

from .recipes import SMALL


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    for number, (split, pairs) in enumerate({"train": 8, "val": 3, "test": 3}.items()):
        write_folders(root / split, pairs, seed=number, size_px=64)
    return root


@pytest.fixture(scope="module")
def config(drawn):
    return replace(SMALL, data=str(drawn), epochs=2)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """One run with most of the options."""
    options = replace(
        config,
        optimizer="adamw",
        schedule="cosine",
        warmup_steps=2,
        gradient_clip_norm=1.0,
        change_loss="bce-dice",
        class_weight_rule="median",
        deterministic=True,
        picture_pairs=2,
        tensorboard=True,
    )
    return train(options, tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_rates_are_those_of_torch(schedule):
    steps = 20
    config = TrainConfig(schedule=schedule, poly_power=0.9)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = {
        "poly": lambda: PolynomialLR(optimizer, steps, 0.9),
        "cosine": lambda: CosineAnnealingLR(optimizer, steps),
        "constant": lambda: None,
    }[schedule]()
    for step in range(steps):
        expected = theirs.get_last_lr()[0] if theirs else 1.0
        assert rate_factor(config, step, steps) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        if theirs:
            theirs.step()


def test_a_warm_up_rises_in_a_line_and_then_leaves_the_schedule_alone():
    warm, cold = TrainConfig(schedule="constant", warmup_steps=4), TrainConfig(warmup_steps=0)
    assert [rate_factor(warm, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    later = replace(cold, warmup_steps=4)
    assert rate_factor(later, 7, 10) == rate_factor(cold, 7, 10)


def test_adamw_shrinks_weights_that_have_no_gradient_and_adam_does_not():
    for name in ("adamw", "adam"):
        network = td.create_model("fcn", encoder="resnet18")
        config = TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.5)
        optimizer = build_optimizer(config, network)
        weight = next(network.encoder_parameters())
        before = weight.detach().clone()
        weight.grad = -0.5 * before  # what Adam's penalty of 0.5 adds up to nought
        optimizer.step()
        assert torch.equal(weight, before) is (name == "adam")


def test_gradients_are_shortened_only_if_too_long():
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    for norm, expected in ((1.0, 1.0), (10.0, 3.0), (None, 3.0)):
        weights[0].grad, weights[1].grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
        clip_gradients(weights, norm)
        length = math.sqrt(sum(float((weight.grad**2).sum()) for weight in weights))
        assert length == pytest.approx(expected, rel=1e-4)


def test_the_average_is_the_exponential_one_of_weights_and_batch_statistics():
    network = torch.nn.BatchNorm1d(1)
    average = average_weights(network, 0.75)
    expected = None
    for step in range(5):
        value = float(step * step + 1)
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(2 * value)
        average.update_parameters(network)
        expected = value if expected is None else 0.75 * expected + 0.25 * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(2 * expected)
    assert average_weights(network, None) is None


def test_the_averaged_weights_are_the_ones_that_are_judged_and_kept(config, tmp_path):
    averaged = train(replace(config, ema_decay=0.5), tmp_path / "run")
    plain = train(config, tmp_path / "plain")
    checkpoint = next((averaged.folder / "checkpoints").iterdir())
    tensors = load_file(checkpoint / "state.safetensors")
    kept = load_file(averaged.folder / "last" / "model.safetensors")
    bare = load_file(plain.folder / "last" / "model.safetensors")
    for key in kept:
        assert torch.equal(kept[key], tensors[f"average.module.{key}"])
        assert torch.equal(bare[key], tensors[f"network.{key}"])
    assert any(not torch.equal(kept[key], bare[key]) for key in kept)
    again = td.evaluate(averaged.folder / "best", config.data)
    assert again.numbers == pytest.approx(averaged.scores, nan_ok=True)


def test_a_run_that_does_not_get_better_stops(config, tmp_path):
    result = train(
        replace(config, epochs=9, patience=2, learning_rate=1e-12, ema_decay=0.999999999),
        tmp_path / "run",
    )
    epochs = len((result.folder / "log.jsonl").read_text().splitlines())
    assert epochs == result.best_epoch + 2 < 9


def test_the_test_split_is_reported_and_has_no_say(run, config):
    report = json.loads((run.folder / "test.json").read_text())
    assert report["pairs"] == 3
    for protocol in ("second", "from-to", "ual"):
        expected = td.evaluate(run.folder / "best", config.data, split="test", protocol=protocol)
        assert run.test_scores[protocol] == pytest.approx(expected.numbers, nan_ok=True)
        expected = expected.to_dict()
        assert report["protocols"][protocol] == {
            name: pytest.approx(expected[name]) for name in report["protocols"][protocol]
        }


def test_each_epoch_has_its_picture(run, drawn):
    pictures = sorted(path.name for path in (run.folder / "pictures").iterdir())
    assert pictures == ["epoch-0001.png", "epoch-0002.png"]
    sheet = np.asarray(Image.open(run.folder / "pictures" / pictures[0]))
    assert sheet.shape == (2 * 64 + 4, 6 * 64 + 5 * 4, 3)
    last = sorted((drawn / "val" / "im1").iterdir())[-1]
    np.testing.assert_array_equal(sheet[68:, :64], np.asarray(Image.open(last)))
    truth = Image.open(drawn / "val" / "label2" / last.name).convert("RGB")
    np.testing.assert_array_equal(sheet[68:, 204:268], np.asarray(truth))


def test_tensorboard_has_the_numbers_of_the_log(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for tag, column in (("loss/total", "loss_total"), ("validation/miou", "miou")):
        read = {event.step: event.value for event in events.Scalars(tag)}
        assert read == {row["epoch"]: pytest.approx(row[column]) for row in log}


def test_a_deterministic_run_leaves_torch_as_it_was(run):
    assert not torch.are_deterministic_algorithms_enabled()


def test_counted_labels_are_those_of_the_masks(drawn):
    pairs = find_pairs(drawn, "train")
    counts = count_labels(pairs)
    expected = np.zeros((2, 7), int)
    for pair in pairs.pairs:
        for date, path in enumerate((pair.before_label, pair.after_label)):
            for class_id in range(7):
                expected[date, class_id] += (np.asarray(Image.open(path)) == class_id).sum()
    np.testing.assert_array_equal(counts.pixels_TK, expected)
    assert counts.sizes == {(64, 64): 8}
    assert counts.changed_share == pytest.approx(1 - expected[0, 0] / (8 * 64 * 64))


def test_class_weights_follow_their_rule():
    pixels = np.array([100, 400, 0, 1600])
    inverse = weigh_by_count(pixels, "inverse")
    assert inverse[0] == pytest.approx(4 * inverse[1])
    assert inverse[1] == pytest.approx(4 * inverse[3])
    root = weigh_by_count(pixels, "inverse-root")
    assert root[0] == pytest.approx(2 * root[1])
    assert weigh_by_count(pixels, "median") == pytest.approx((4, 1, 1, 0.25))
    for weights in (inverse, root):
        assert weights[2] == 1
        assert (np.array(weights) * pixels).sum() == pytest.approx(pixels.sum())


def test_the_reference_weights_are_for_its_classes_only():
    def choose(classes, **options):
        return choose_class_weights(TrainConfig(**options), classes, pytest.fail)

    assert choose(SENSEEARTH) == (2, 1, 2, 2, 1, 1)
    assert choose(SENSEEARTH, class_weight_rule="equal") is None
    assert choose(BINARY) is None


def test_images_of_several_sizes_need_a_crop(drawn, config, tmp_path):
    write_folders(tmp_path / "set", 6, seed=1, size_px=64)
    for name in ("im1", "im2", "label1", "label2"):
        for path in sorted((tmp_path / "set" / name).iterdir())[:3]:
            with Image.open(path) as image:
                image.crop((0, 0, 48, 40)).save(path)
    mixed = replace(config, data=str(tmp_path / "set"), epochs=1)
    with pytest.raises(DataError, match="3 bands of 40 x 48 px, another 3 bands of 64 x 64 px"):
        train(mixed, tmp_path / "run")
    train(replace(mixed, crop_size_px=32), tmp_path / "run", overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"patience": 0}, "patience is 0"),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm is 0.0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        TrainConfig(**options)


def test_a_run_takes_pairs_that_are_partly_labelled_to_learn_from_only(drawn, tmp_path):
    """A change mask alone, the mask of one date alone; what is held out is fully labelled."""
    data = drawn / "train"
    shutil.copytree(data, tmp_path / "set")
    shutil.copytree(data / "label1", tmp_path / "set" / "change")
    for path in (tmp_path / "set" / "change").iterdir():
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    labels = ("label1/{},,", ",label2/{},", ",,change/{}", "label1/{},label2/{},")
    names = sorted(path.name for path in (data / "im1").iterdir())
    lines = ["before,after,before_label,after_label,label,split"]
    for number, name in enumerate(names):
        # The fourth and the seventh are the ones with changes.
        split, kind = ("val", 3) if number < 2 else ("train", {3: 0, 6: 1}.get(number, 2))
        masks = labels[kind].format(name, name)
        lines.append(f"im1/{name},im2/{name},{masks},{split}")
    table = tmp_path / "set" / "pairs.csv"
    table.write_text("\n".join(lines))
    config = TrainConfig(
        data=str(table), encoder="resnet18_slim", epochs=1, batch_size=3, workers=0
    )
    log = json.loads((train(config, tmp_path / "run").folder / "log.jsonl").read_text())
    assert all(math.isfinite(v) and v > 0 for k, v in log.items() if k.startswith("loss_"))
    table.write_text("\n".join(lines).replace("train", "val").replace("val", "train", 2))
    with pytest.raises(DataError, match="are not labelled at both dates"):
        train(config, tmp_path / "other")


def test_sgd_is_a_ball_that_keeps_nine_tenths_of_its_speed():
    network = td.create_model("fcn", encoder="resnet18")
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, head_rate_factor=3, weight_decay=0.0)
    optimizer = build_optimizer(config, network)
    weights = [next(network.encoder_parameters()), next(network.head_parameters())]
    expected = [weight.detach().clone() for weight in weights]
    speed = 0.0
    for gradient in (1.0, -2.0, 0.5, 0.0):
        for weight in weights:
            weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        speed = 0.9 * speed + gradient
        expected = [was - rate * speed for was, rate in zip(expected, (0.1, 0.3), strict=True)]
    for weight, goal in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), goal)
