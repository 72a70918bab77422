from __future__ import annotations

import itertools
import math

import pytest
import torch

from terradelta.errors import ArgumentError
from terradelta.losses import (
    CHANGE_LOSSES,
    ChangeLoss,
    ChangeObjective,
    DiceLoss,
    FocalChangeLoss,
    LovaszLoss,
)


def draw(shape=(2, 4, 5)):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    change = torch.rand(shape, generator=generator) < 0.4
    valid = torch.rand(shape, generator=generator) < 0.6
    return logits, change, valid


def jaccard_distance(predicted: torch.Tensor, change: torch.Tensor) -> float:
    return 1 - (predicted & change).sum().item() / (predicted | change).sum().item()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_equals_the_formula(gamma):
    logits, change, _ = draw()
    pixels = []
    for z, m in zip(logits.flatten().tolist(), change.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z)) if m else 1 - 1 / (1 + math.exp(-z))
        pixels.append(-(3.0 if m else 1.0) * (1 - p) ** gamma * math.log(p))
    value = FocalChangeLoss(3.0, gamma)(logits, change)
    assert value.item() == pytest.approx(sum(pixels) / len(pixels), rel=1e-9)


def test_focal_of_gamma_0_is_cross_entropy_and_sure_pixels_have_finite_gradients():
    logits, change, valid = draw()
    assert torch.allclose(
        FocalChangeLoss(2, 0)(logits, change, valid), ChangeLoss(2)(logits, change, valid)
    )
    sure = torch.tensor([[[300.0, -300.0]]], requires_grad=True)
    FocalChangeLoss()(sure, torch.tensor([[[True, False]]])).backward()
    assert sure.grad.isfinite().all()


def test_dice_of_sure_answers_is_one_less_the_dice_coefficient():
    _, change, predicted = draw((4, 30, 30))
    logits = torch.where(predicted, 80.0, -80.0)
    both = (predicted & change).sum()
    expected = 1 - (2 * both + 1) / (predicted.sum() + change.sum() + 1)
    assert DiceLoss()(logits, change).item() == pytest.approx(expected.item(), abs=1e-6)


def test_lovasz_at_the_margin_is_twice_the_jaccard_distance():
    """At logits of 1 and -1 the hinge is 0 where right and 2 where wrong, and linear between."""
    for bits in itertools.product([False, True], repeat=4):
        change = torch.tensor([True, False, True, True])
        predicted = torch.tensor(bits)
        logits = torch.where(predicted, 1.0, -1.0)
        value = LovaszLoss()(logits[None, None], change[None, None]).item()
        assert value == pytest.approx(2 * jaccard_distance(predicted, change), abs=1e-6)


def test_lovasz_equals_its_definition():
    """Pixels in falling order of error, each weighed by what it adds to the Jaccard distance."""
    logits, change, _ = draw((1, 4, 6))
    errors = (1 - logits * (2.0 * change - 1)).flatten()
    flat = change.flatten()
    wrong = torch.zeros_like(flat)
    expected, before = 0.0, 0.0
    for pixel in errors.argsort(descending=True):
        wrong[pixel] = True
        after = jaccard_distance(wrong ^ flat, flat)
        expected += max(errors[pixel].item(), 0.0) * (after - before)
        before = after
    assert LovaszLoss()(logits, change).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [FocalChangeLoss(), DiceLoss(), LovaszLoss()])
def test_invalid_pixels_have_no_say(loss):
    logits, change, valid = draw()
    junk = logits.masked_fill(~valid, math.nan).requires_grad_()
    value = loss(junk, change.int().masked_fill(~valid, 255), valid)
    value.backward()
    alone = loss(logits[valid][None, None], change[valid][None, None])
    assert value.item() == pytest.approx(alone.item(), rel=1e-9)
    assert torch.all(junk.grad[~valid] == 0)


@pytest.mark.parametrize("loss", [FocalChangeLoss(), DiceLoss(), LovaszLoss()])
def test_without_change_the_gradient_lowers_every_logit(loss):
    logits = torch.zeros((1, 3, 3), requires_grad=True)
    loss(logits, torch.zeros((1, 3, 3), dtype=torch.bool)).backward()
    assert loss(torch.full((1, 3, 3), -60.0), torch.zeros((1, 3, 3))).item() < 1e-6
    assert torch.all(logits.grad >= 0)
    assert torch.any(logits.grad > 0)


@pytest.mark.parametrize("name", CHANGE_LOSSES)
def test_the_objective_takes_each_by_name(name):
    logits, change, _ = draw((2, 8, 8))
    labels = change.long()

    class Output:
        before_logits = torch.zeros((2, 3, 8, 8))
        after_logits = torch.zeros((2, 3, 8, 8))
        change_logits = logits.float()

    parts = ChangeObjective("none", change=name)(Output(), labels, labels)
    assert parts.change == CHANGE_LOSSES[name](2.0)(logits.float(), change)
    with pytest.raises(ArgumentError, match="unknown change loss 'iou'"):
        ChangeObjective(change="iou")


def test_pixels_whose_change_is_not_known_have_no_say_in_change_and_consistency():
    """They are as good as invalid there, and their classes are learned all the same."""
    logits, change, known = draw((2, 8, 8))
    generator = torch.Generator().manual_seed(1)
    before, after = (torch.randn((2, 3, 8, 8), generator=generator) for _ in range(2))
    labels = torch.randint(0, 4, (2, 8, 8), generator=generator)

    class Output:
        before_logits = before
        after_logits = after
        change_logits = logits.float()

    objective = ChangeObjective("ual")
    parts = objective(Output(), labels, labels, change.int().masked_fill(~known, -1))
    masked = objective(Output(), labels, labels, change, known)
    everywhere = objective(Output(), labels, labels, change)
    assert parts.change == masked.change
    assert parts.consistency == masked.consistency
    assert parts.semantic_before == everywhere.semantic_before != masked.semantic_before


def test_a_negative_gamma_is_refused():
    with pytest.raises(ArgumentError, match="gamma is -1"):
        FocalChangeLoss(gamma=-1)


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_focal_gradients_are_finite_however_sure_the_answer_is(gamma, dtype):
    """A power below 1 has an infinite slope at 0, where the loss of a sure, right pixel lies."""
    logits = torch.tensor([[[0.0, 1.0, 30.0, 120.0, 1e4]]], dtype=dtype)
    change = torch.tensor([[[True] * 5, [False] * 5]])
    logits = torch.cat([logits, -logits], dim=1).requires_grad_()
    FocalChangeLoss(gamma=gamma)(logits, change).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[change] <= 0).all()
    assert (logits.grad[~change] >= 0).all()
    assert (logits.grad[..., :2] != 0).all()
