from __future__ import annotations

import pytest
import torch

from terradelta.models.registry import create_model


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create_model("fcn").eval()


@torch.inference_mode()
def test_shift_by_the_stride_shifts_the_answer(network):
    images = torch.randn(2, 1, 3, 448, 56)
    whole = network(*images)
    part = network(*images[..., 8:, :])
    # Beyond 192 px from the cut border nothing of it is seen.
    for actual, expected in zip(part, whole, strict=True):
        _assert_alike(actual[..., 192:, :], expected[..., 200:, :])
    other = network(*images[..., 3:, :])
    assert not torch.allclose(
        other.change_logits[..., 192:, :], whole.change_logits[..., 195:, :], atol=1e-3
    )


@torch.inference_mode()
def test_size_off_the_stride_changes_nothing_far_away(network):
    images = torch.randn(2, 1, 3, 261, 56)
    whole = network(*images)
    cut = network(*images[..., :256, :])
    for actual, expected in zip(whole, cut, strict=True):
        _assert_alike(actual[..., :64, :], expected[..., :64, :])


@torch.inference_mode()
def test_equal_dates_have_equal_classes_and_one_change_logit(network):
    image = torch.randn(1, 3, 64, 64)
    output = network(image, image)
    torch.testing.assert_close(output.before_logits, output.after_logits)
    # The difference is zero everywhere, so only the zero padding tells pixels apart: here nothing.
    assert output.change_logits.std() < 1e-5


@torch.inference_mode()
def test_encoder_sees_both_dates_at_once_in_training_and_in_turn_otherwise(network):
    """At once, as the statistics of a batch cover both; in turn, as that takes less memory."""
    batches = []
    network.encoder.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    pair = torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16)
    network.train()(*pair)
    assert batches == [6]
    network.eval()(*pair)
    assert batches == [6, 3, 3]


def _assert_alike(actual: torch.Tensor, expected: torch.Tensor):
    """Assert equality up to the order in which a processor sums, which changes with the size."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
