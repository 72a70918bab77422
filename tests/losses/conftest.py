"""Inputs of the reference implementation's loss numbers, as tests/reference/README.md says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "ual.json"


class Output(NamedTuple):
    before_logits: torch.Tensor
    after_logits: torch.Tensor
    change_logits: torch.Tensor


class ReferenceCase(NamedTuple):
    expected: dict[str, float]
    output: Output
    change: torch.Tensor
    before_labels: torch.Tensor
    after_labels: torch.Tensor


@pytest.fixture(params=["seed1", "seed2"])
def reference(request) -> ReferenceCase:
    rng = np.random.default_rng(int(request.param.removeprefix("seed")))
    before, after = (rng.standard_normal((2, 6, 16, 16)).astype(np.float32) for _ in range(2))
    change = rng.random((2, 16, 16)) < 0.3
    probability = rng.random((2, 16, 16))
    labels = [rng.integers(1, 7, (2, 16, 16)) * change for _ in range(2)]
    change_logits = torch.tensor(np.log(probability) - np.log1p(-probability))
    return ReferenceCase(
        json.loads(REFERENCE.read_text())[request.param],
        Output(torch.tensor(before), torch.tensor(after), change_logits),
        torch.tensor(change),
        torch.tensor(labels[0]),
        torch.tensor(labels[1]),
    )
