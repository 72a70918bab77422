from __future__ import annotations

import math

import pytest
import torch

from terradelta.errors import ArgumentError
from terradelta.losses import CONSISTENCY_LOSSES, ChangeLoss, ChangeObjective, SemanticLoss

WEIGHTS = [2.0, 1.0, 2.0, 2.0, 1.0, 1.0]
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
"""Losses are float32, and one unit in the last place of a probability shifts the log of a near-zero
distance by 1e-3; the mean of 410 pixels was seen to move by 3e-6 from one call to the next."""


def test_meets_the_reference_implementation(reference):
    objective = ChangeObjective(class_weights=WEIGHTS)
    parts = objective(
        reference.output,
        reference.before_labels,
        reference.after_labels,
        reference.change,
    )
    mean_weight = 1 + reference.change.double().mean()
    measured = {
        "ual": parts.consistency,
        "change_term": parts.change + 0.5 * mean_weight * parts.consistency,
        "semantic_before": parts.semantic_before,
        "semantic_after": parts.semantic_after,
        "total": parts.total,
    }
    assert measured.keys() == reference.expected.keys()
    for key, value in measured.items():
        assert value.item() == pytest.approx(reference.expected[key], abs=1e-5), key


def test_change_defaults_to_labelled_at_either_date(reference):
    before, after = reference.before_labels.clone(), reference.after_labels.clone()
    before[0], after[1] = 0, 0
    labelled = (before > 0) | (after > 0)
    objective = ChangeObjective()
    for implied, given in zip(
        objective(reference.output, before, after),
        objective(reference.output, before, after, labelled),
        strict=True,
    ):
        torch.testing.assert_close(implied, given, **FLOAT32)


@pytest.mark.parametrize("consistency", CONSISTENCY_LOSSES)
def test_total_is_made_of_its_parts(reference, consistency):
    output, change = reference.output, reference.change
    labels = reference.before_labels, reference.after_labels
    valid = torch.rand(change.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    objective = ChangeObjective(
        consistency,
        consistency_weight=0.7,
        change_weight=3.0,
        changed_pixel_weight=4.0,
        class_weights=WEIGHTS,
    )
    parts = objective(output, *labels, change, valid)

    create = CONSISTENCY_LOSSES[consistency]
    tie = torch.tensor(0.0) if create is None else create()(*output[:2], change, valid)
    bce = ChangeLoss(4.0)(output.change_logits, change, valid)
    semantic = [SemanticLoss(WEIGHTS)(output[i], labels[i], valid) for i in range(2)]
    mean_weight = (1 + 3 * change.double())[valid].mean()
    total = 3.0 * (bce + 0.7 * mean_weight * tie) + sum(semantic)
    for part, expected in zip(parts[1:], [bce, tie, *semantic], strict=True):
        torch.testing.assert_close(part.double(), expected.double(), **FLOAT32)
    torch.testing.assert_close(parts.total.double(), total.double(), **FLOAT32)
    assert all(part.ndim == 0 for part in parts)


@pytest.mark.parametrize("consistency", CONSISTENCY_LOSSES)
def test_invalid_pixels_have_no_say(reference, consistency):
    valid = torch.rand(reference.change.shape) < 0.5
    labels = [reference.before_labels, reference.after_labels]
    objective = ChangeObjective(consistency)
    expected = objective(reference.output, *labels, valid_BHW=valid)

    output = type(reference.output)(
        *(
            z.masked_fill(~valid[:, None] if z.ndim == 4 else ~valid, math.nan).requires_grad_()
            for z in reference.output
        )
    )
    junk = [y.masked_fill(~valid, 255) for y in labels]
    parts = objective(output, *junk, valid_BHW=valid)
    parts.total.backward()
    torch.testing.assert_close(torch.stack(parts), torch.stack(expected))
    for z in output:
        assert torch.all((z.grad.movedim(1, -1) if z.ndim == 4 else z.grad)[~valid] == 0)
        assert torch.any(z.grad != 0)


def test_nothing_valid_gives_zero_with_a_gradient_path(reference):
    output = type(reference.output)(*(z.clone().requires_grad_() for z in reference.output))
    nowhere = torch.zeros_like(reference.change)
    labels = reference.before_labels, reference.after_labels
    parts = ChangeObjective()(output, *labels, valid_BHW=nowhere)
    parts.total.backward()
    assert torch.all(torch.stack(parts) == 0)
    assert all(torch.all(z.grad == 0) for z in output)


def test_descending_it_recovers_labels_and_change(reference):
    """Logits that are free to move end up naming the labels and the change map."""
    output = type(reference.output)(*(z.float().clone().requires_grad_() for z in reference.output))
    before, after = reference.before_labels, reference.after_labels
    # A changed pixel with the same class at both dates sets UAL against the cross entropy.
    after = torch.where(before == after, after % 6 + (after > 0), after)
    optimiser = torch.optim.Adam(output, lr=0.3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=80)
    objective = ChangeObjective()
    for _ in range(80):
        optimiser.zero_grad()
        objective(output, before, after).total.backward()
        optimiser.step()
        schedule.step()
    changed = before > 0
    classes = [z.detach().argmax(1) + 1 for z in output[:2]]
    assert torch.equal(output.change_logits > 0, changed)
    assert torch.equal(classes[0][changed], before[changed])
    assert torch.equal(classes[1][changed], after[changed])
    assert (classes[0] == classes[1])[~changed].double().mean() > 0.99


def test_refuses_what_it_cannot_use(reference):
    labels = reference.before_labels, reference.after_labels
    with pytest.raises(ArgumentError, match="ual, ual-probability, cosine, mse, agreement, none"):
        ChangeObjective("focal")
    with pytest.raises(ArgumentError, match=r"-0\.5"):
        ChangeObjective(consistency_weight=-0.5)
    with pytest.raises(ArgumentError, match="after_labels has shape"):
        ChangeObjective()(reference.output, labels[0], labels[1][:1])
    wrong = reference.output._replace(change_logits=reference.output.change_logits[:, None])
    with pytest.raises(ArgumentError, match=r"change_logits has shape \(2, 1, 16, 16\)"):
        ChangeObjective()(wrong, *labels)
