from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

from terradelta.classes import SENSEEARTH
from terradelta.data.synthetic import draw_pair
from terradelta.models.bundle import Model, save_model
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.change_network import ChangeNetwork
from terradelta.models.registry import create_model

from .expected_skips import pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]

# No test is about time; a busy machine takes longer.
settings.register_profile("terradelta", deadline=None)
settings.load_profile("terradelta")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's real imagery and reference numbers, which users do not have."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared here: its real imagery and reference numbers are not public")
    return SHARED


def make_model(seed: int = 0, name: str = "fcn", encoder: str = "resnet18_slim", **card) -> Model:
    """A network that answers differently from place to place, without training."""
    torch.manual_seed(seed)
    network = create_model(name, encoder)
    # A few batches settle the batch statistics, so that the answers are moderate.
    network.train()
    with torch.no_grad():
        for _ in range(6):
            network(torch.randn(2, 3, 96, 96), torch.randn(2, 3, 96, 96))
    network.eval()
    scene = draw_pair(0, 128)
    images = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
    with torch.no_grad():
        change = network(*map(Scaling.imagenet().apply, images)).change_logits.sigmoid()
    # Half of a scene changes, so that a test sees both answers.
    fields = {"classes": SENSEEARTH, "change_threshold": float(change.median()), **card}
    return Model(network, ModelCard(architecture=network.config, **fields))


def build_network(name: str, encoder: str, lightweight: bool = False) -> ChangeNetwork:
    """An untrained network whose normalisations do something."""
    torch.manual_seed(0)
    network = create_model(name, encoder=encoder, lightweight=lightweight).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network


@pytest.fixture(scope="session")
def model() -> Model:
    return make_model()


@pytest.fixture(scope="session")
def model_folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "fcn"
    save_model(model, folder)
    return folder
