from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terradelta.errors import ArgumentError, DataError
from terradelta.losses import SemanticLoss

WEIGHTS = [2.0, 1.0, 2.0, 2.0, 1.0, 1.0]


def draw(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, 6, 4, 5), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (2, 4, 5), generator=generator)
    valid = torch.rand((2, 4, 5), generator=generator) < 0.7
    return logits, labels, valid


def measure_slowly(logits, labels, valid, weights) -> float:
    total = weight_sum = 0.0
    for b, y, x in np.ndindex(*labels.shape):
        k = int(labels[b, y, x]) - 1
        if k < 0 or not valid[b, y, x]:
            continue
        z = logits[b, :, y, x].tolist()
        total += weights[k] * (math.log(sum(math.exp(v) for v in z)) - z[k])
        weight_sum += weights[k]
    return total / weight_sum if weight_sum else 0.0


@pytest.mark.parametrize("date", ["before", "after"])
def test_meets_the_reference_implementation(reference, date):
    logits = getattr(reference.output, f"{date}_logits")
    value = SemanticLoss(WEIGHTS)(logits, getattr(reference, f"{date}_labels"))
    assert value.item() == pytest.approx(reference.expected[f"semantic_{date}"], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), weighted=st.booleans())
def test_equals_the_formula(seed, weighted):
    logits, labels, valid = draw(seed)
    value = SemanticLoss(WEIGHTS if weighted else None)(logits, labels, valid)
    expected = measure_slowly(logits, labels, valid, WEIGHTS if weighted else [1.0] * 6)
    assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_torch_where_every_pixel_is_labelled(weights):
    logits, labels, _ = draw()
    labels = labels.clamp_min(1)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, labels - 1, weight=weight)
    torch.testing.assert_close(SemanticLoss(weights)(logits, labels), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_of_any_integer_dtype(dtype):
    logits, labels, _ = draw()
    assert SemanticLoss()(logits, labels.to(dtype)) == SemanticLoss()(logits, labels)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_no_labelled_pixel_gives_zero_with_a_gradient_path(weights):
    logits, labels, _ = draw()
    logits.requires_grad_()
    value = SemanticLoss(weights)(logits, torch.zeros_like(labels))
    value.backward()
    assert value == 0
    assert torch.all(logits.grad == 0)


def test_invalid_and_unlabelled_pixels_have_no_say():
    logits, labels, valid = draw()
    expected = SemanticLoss(WEIGHTS)(logits, labels, valid)
    junk = logits.masked_fill(~valid[:, None], math.nan).requires_grad_()
    value = SemanticLoss(WEIGHTS)(junk, labels.masked_fill(~valid, 255), valid)
    value.backward()
    assert value == expected
    counted = valid & (labels > 0)
    assert torch.all(junk.grad.movedim(1, -1)[~counted] == 0)
    assert torch.all(junk.grad.movedim(1, -1)[counted] != 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_bf16_stays_finite_and_close_to_float64(scale):
    logits, labels, _ = draw()
    logits = (logits * scale).bfloat16().requires_grad_()
    value = SemanticLoss(WEIGHTS)(logits, labels)
    value.backward()
    exact = SemanticLoss(WEIGHTS)(logits.detach().double(), labels)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.all(logits.grad.isfinite())


def test_gradient_is_that_of_the_value():
    logits, labels, valid = draw()
    loss = SemanticLoss(WEIGHTS)
    logits = logits[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels[:1], valid[:1]), (logits,))


def test_weights_are_no_part_of_the_state():
    assert SemanticLoss(WEIGHTS).state_dict() == {}


def test_refuses_what_it_cannot_use():
    logits, labels, _ = draw()
    with pytest.raises(DataError, match="class ids 0 to 7, the logits know 0 to 6"):
        SemanticLoss()(logits, torch.where(labels == 6, 7, labels))
    with pytest.raises(ArgumentError, match="2 class weights, but logits of 6"):
        SemanticLoss([1.0, 2.0])(logits, labels)
    with pytest.raises(ArgumentError, match="negative"):
        SemanticLoss([1.0, -2.0])
    with pytest.raises(ArgumentError, match="labels has shape"):
        SemanticLoss()(logits, labels[:1])
