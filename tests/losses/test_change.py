from __future__ import annotations

import math

import pytest
import torch

from terradelta.errors import ArgumentError, DataError
from terradelta.losses import ChangeLoss


def draw():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 4, 5), generator=generator, dtype=torch.float64)
    change = torch.rand((2, 4, 5), generator=generator) < 0.4
    valid = torch.rand((2, 4, 5), generator=generator) < 0.6
    return logits, change, valid


@pytest.mark.parametrize("weight", [1.0, 2.0, 5.0])
def test_equals_the_formula(weight):
    logits, change, valid = draw()
    pixels = []
    for z, m, v in zip(logits.flatten(), change.flatten(), valid.flatten(), strict=True):
        if v:
            p = 1 / (1 + math.exp(-z))
            pixels.append(-weight * math.log(p) if m else -math.log(1 - p))
    value = ChangeLoss(weight)(logits, change, valid)
    assert value.item() == pytest.approx(sum(pixels) / len(pixels), abs=1e-12)


def test_invalid_pixels_have_no_say():
    logits, change, valid = draw()
    junk = logits.masked_fill(~valid, math.nan).requires_grad_()
    value = ChangeLoss()(junk, change.int().masked_fill(~valid, 255), valid)
    value.backward()
    assert value == ChangeLoss()(logits, change, valid)
    assert torch.all(junk.grad[~valid] == 0)
    assert torch.all(junk.grad[valid] != 0)


def test_no_valid_pixel_gives_zero_with_a_gradient_path():
    logits, change, _ = draw()
    logits.requires_grad_()
    value = ChangeLoss()(logits, change, torch.zeros_like(change))
    value.backward()
    assert value == 0
    assert torch.all(logits.grad == 0)


def test_one_step_raises_changed_and_lowers_unchanged_logits():
    logits, change, _ = draw()
    logits.requires_grad_()
    ChangeLoss()(logits, change).backward()
    assert torch.all(logits.grad[change] < 0)
    assert torch.all(logits.grad[~change] > 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_bf16_stays_finite_and_close_to_float64(scale):
    logits, change, _ = draw()
    logits = (logits * scale).bfloat16().requires_grad_()
    value = ChangeLoss()(logits, change)
    value.backward()
    exact = ChangeLoss()(logits.detach().double(), change)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.all(logits.grad.isfinite())


def test_gradient_is_that_of_the_value():
    logits, change, valid = draw()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ChangeLoss()(z, change, valid), (logits,))


def test_refuses_what_it_cannot_use():
    logits, change, _ = draw()
    with pytest.raises(ArgumentError, match="change has shape"):
        ChangeLoss()(logits, change[:1])
    with pytest.raises(ArgumentError, match=r"the logits have shape \(4, 5\)"):
        ChangeLoss()(logits[0], change[0])
    with pytest.raises(DataError, match="0 to 255"):
        ChangeLoss()(logits, change.byte() * 255)
    with pytest.raises(ArgumentError, match="-1"):
        ChangeLoss(-1.0)
