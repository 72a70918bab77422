from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from terradelta.errors import ArgumentError, DataError
from terradelta.losses import (
    AgreementLoss,
    CosineChangeLoss,
    SquaredDifferenceLoss,
    UnchangedAreaLoss,
)

LOSSES = {
    "logit": lambda: UnchangedAreaLoss("logit"),
    "probability": lambda: UnchangedAreaLoss("probability"),
    "cosine": CosineChangeLoss,
    "mse": SquaredDifferenceLoss,
    "agreement": AgreementLoss,
}
PULLS_APART = ("logit", "probability", "cosine")  # mse leaves changed pixels alone


@pytest.fixture(params=LOSSES)
def name(request) -> str:
    return request.param


def draw(seed: int = 0, scale: float = 1.0, dtype=torch.float64, shape=(2, 5, 4, 6)):
    """Logits of both dates and a change map."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    after = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    change = torch.rand((shape[0], *shape[2:]), generator=generator) < 0.4
    return before.to(dtype), after.to(dtype), change


def softmax(logits_K: np.ndarray) -> np.ndarray:
    powers = [math.exp(z - logits_K.max()) for z in logits_K]
    return np.array(powers) / sum(powers)


def measure_slowly(name: str, before: np.ndarray, after: np.ndarray, changed: bool) -> float:
    """One pixel's loss, straight from the formula."""
    p, q = softmax(before), softmax(after)
    if name == "logit":
        probability = 1 / (
            1 + math.exp(-sum(abs(a - b) for a, b in zip(before, after, strict=True)) / 2)
        )
        return -math.log(probability if changed else 1 - probability)
    if name == "probability":
        distance = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
        return -math.log(distance if changed else 1 - distance)
    if name == "cosine":
        cosine = (p @ q) / math.sqrt((p @ p) * (q @ q))
        return cosine if changed else 1 - cosine
    if changed:
        return 0.0
    if name == "agreement":
        sharp = ((p + q) / 2) ** 2
        sharp /= sharp.sum()
        return sum((sharp * np.log(sharp / date)).sum() for date in (p, q)) / 2
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / len(p)


def measure_distance(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return 0.5 * (before.softmax(1) - after.softmax(1)).abs().sum(1)


def step(loss: nn.Module, before, after, change, valid=None, rate: float = 1.0):
    """The logits after one step of gradient descent on the mean over the pixels."""
    before, after = before.clone().requires_grad_(), after.clone().requires_grad_()
    loss(before, after, change, valid).backward()
    return tuple((z - rate * z.grad).detach() for z in (before, after))


def test_meets_the_reference_implementation(reference):
    value = UnchangedAreaLoss()(*reference.output[:2], reference.change)
    assert value.item() == pytest.approx(reference.expected["ual"], abs=1e-5)


def test_equals_the_formula_pixel_by_pixel(name):
    before, after, change = draw()
    slow = [
        measure_slowly(name, before[b, :, y, x].numpy(), after[b, :, y, x].numpy(), change[b, y, x])
        for b, y, x in np.ndindex(*change.shape)
    ]
    assert LOSSES[name]()(before, after, change).item() == pytest.approx(np.mean(slow), abs=1e-12)


def test_cosine_equals_torch_cosine_embedding_loss():
    before, after, change = draw()
    rows = [z.softmax(1).movedim(1, -1).reshape(-1, 5) for z in (before, after)]
    target = 1 - 2 * change.reshape(-1).double()
    expected = nn.CosineEmbeddingLoss(margin=0.0)(*rows, target)
    torch.testing.assert_close(CosineChangeLoss()(before, after, change), expected)


def test_mse_equals_torch_mse_of_the_masked_distributions():
    before, after, change = draw()
    unchanged = (~change)[:, None]
    expected = nn.functional.mse_loss(before.softmax(1) * unchanged, after.softmax(1) * unchanged)
    torch.testing.assert_close(SquaredDifferenceLoss()(before, after, change), expected)


@pytest.mark.parametrize("polarity", ["right", "reversed"])
def test_one_step_pulls_unchanged_pixels_together_and_changed_apart(name, polarity):
    before, after, change = draw(shape=(2, 5, 16, 16))
    target = change if polarity == "right" else ~change
    moved = step(LOSSES[name](), before, after, target)
    growth = measure_distance(*moved) - measure_distance(before, after)
    together = growth[~change].mean() < 0 and (growth[~change] < 0).double().mean() > 0.8
    apart = growth[change].mean() > 0 and (growth[change] > 0).double().mean() > 0.8
    if polarity == "right":
        assert together
        assert apart == (name in PULLS_APART)
    else:
        assert not together
        assert not apart
        assert growth[change].mean() < 0
        assert (growth[~change].mean() > 0) == (name in PULLS_APART)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_change_may_be_of_any_dtype(name, dtype):
    before, after, change = draw()
    loss = LOSSES[name]()
    assert loss(before, after, change.to(dtype)) == loss(before, after, change)


@pytest.mark.parametrize("junk", [0.0, 1e4, math.nan, math.inf])
def test_invalid_pixels_have_no_say(name, junk):
    before, after, change = draw()
    valid = torch.rand(change.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    loss = LOSSES[name]()
    kept = (z.movedim(1, -1)[valid].T[None, :, None] for z in (before, after))
    expected = loss(*kept, change[valid][None, None])

    invalid = (~valid)[:, None]
    before, after = (z.masked_fill(invalid, junk).requires_grad_() for z in (before, after))
    change = change.double().masked_fill(~valid, 255.0)
    value = loss(before, after, change, valid)
    value.backward()
    torch.testing.assert_close(value, expected)
    for z in (before, after):
        assert torch.all(z.grad.movedim(1, -1)[~valid] == 0)
        assert torch.all(z.grad.isfinite())
        assert torch.any(z.grad != 0)


def test_no_valid_pixel_gives_zero_with_a_gradient_path(name):
    before, after, change = draw()
    before.requires_grad_()
    value = LOSSES[name]()(before, after, change, torch.zeros_like(change))
    value.backward()
    assert value == 0
    assert torch.all(before.grad == 0)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stays_finite_and_close_to_float64(name, scale, dtype):
    before, after, change = draw(scale=scale, dtype=dtype)
    loss = LOSSES[name]()
    exact = loss(before.double(), after.double(), change)
    before.requires_grad_()
    value = loss(before, after, change)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.all(before.grad.isfinite())


def test_computes_in_float32_under_autocast(name):
    before, after, change = draw(dtype=torch.float32)
    loss = LOSSES[name]()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(before, after, change)
    torch.testing.assert_close(value, loss(before, after, change), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("case", ["identical", "opposite", "identical and certain"])
def test_gradient_is_finite_where_the_distance_is_zero_or_one(name, case, changed):
    before, after, _ = draw(dtype=torch.float32)
    if case == "identical":
        after = before.clone()
    else:
        before = torch.zeros_like(before)
        before[:, 0] = 1e4
        after = before.clone() if case == "identical and certain" else before.flip(1)
    before.requires_grad_()
    after.requires_grad_()
    change = torch.full((2, 4, 6), changed)
    value = LOSSES[name]()(before, after, change)
    value.backward()
    for number in (value, before.grad, after.grad):
        assert torch.all(number.isfinite())


def test_probability_form_still_pulls_where_certain_dates_wrongly_disagree():
    before = torch.zeros(1, 3, 1, 1)
    before[:, 0] = 200.0
    before.requires_grad_()
    after = before.detach().flip(1)
    UnchangedAreaLoss("probability")(before, after, torch.zeros(1, 1, 1)).backward()
    assert before.grad[0, 0, 0, 0] > 0.4


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 10.0, 1e3]),
    name=st.sampled_from(sorted(LOSSES)),
)
def test_symmetric_nonnegative_and_bounded_below(seed, scale, name):
    before, after, change = draw(seed, scale, torch.float32)
    loss = LOSSES[name]()
    value = loss(before, after, change)
    assert value >= 0
    torch.testing.assert_close(value, loss(after, before, change), rtol=1e-6, atol=1e-7)
    none_changed = loss(before, after, torch.zeros_like(change)).item()
    floor = math.log(2) if name == "logit" else 0.0
    assert none_changed >= floor - 1e-6
    if name == "agreement":  # Dates that agree are pulled on towards a decision.
        loss = AgreementLoss(temperature=1)
    assert loss(before, before, torch.zeros_like(change)).item() == pytest.approx(floor, abs=1e-6)


def test_rounding_makes_no_single_pixel_negative(name):
    before, noise, _ = draw(dtype=torch.float32, shape=(300, 5, 1, 1))
    nearly = before + 1e-5 * noise
    unchanged = torch.zeros(1, 1, 1)
    loss = LOSSES[name]()
    for after in (before, nearly):
        for z_before, z_after in zip(before, after, strict=True):
            assert loss(z_before[None], z_after[None], unchanged) >= 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(LOSSES)))
def test_order_of_pixels_and_of_classes_does_not_matter(seed, name):
    before, after, change = draw(seed)
    loss = LOSSES[name]()
    classes, rows = torch.randperm(5), torch.randperm(4)
    shuffled = (z[:, classes][:, :, rows] for z in (before, after))
    torch.testing.assert_close(loss(*shuffled, change[:, rows]), loss(before, after, change))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_each_date_of_an_unchanged_pixel_moves_from_its_answer_to_the_sharpened_mean(temperature):
    before, after, change = draw()
    before.requires_grad_()
    AgreementLoss(temperature)(before, after, change).backward()
    p, q = before.detach().softmax(1), after.softmax(1)
    target = ((p + q) / 2) ** (1 / temperature)
    target /= target.sum(1, keepdim=True)
    expected = (p - target) * ~change[:, None] / (2 * change.numel())
    torch.testing.assert_close(before.grad, expected)


# The target of "agreement" is held fixed.
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"agreement"}), indirect=True)
def test_gradient_is_that_of_the_value(name):
    before, after, change = draw(shape=(1, 3, 2, 3))
    before.requires_grad_()
    after.requires_grad_()
    loss = LOSSES[name]()
    assert torch.autograd.gradcheck(lambda b, a: loss(b, a, change), (before, after))


def test_refuses_what_it_cannot_use(name):
    before, after, change = draw()
    loss = LOSSES[name]()
    with pytest.raises(ArgumentError, match=r"\(2, 5, 4, 6\) and \(2, 4, 4, 6\)"):
        loss(before, after[:, :4], change)
    with pytest.raises(ArgumentError, match=r"change has shape \(2, 1, 4, 6\)"):
        loss(before, after, change[:, None])
    with pytest.raises(ArgumentError, match="valid has shape"):
        loss(before, after, change, change[:1])
    with pytest.raises(DataError, match="0 to 255"):
        loss(before, after, change.byte() * 255)


def test_unknown_form_names_the_known():
    with pytest.raises(ArgumentError, match="logit, probability"):
        UnchangedAreaLoss("softmax")  # pyright: ignore[reportArgumentType]
