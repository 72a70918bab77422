import pytest

from terradelta.models.bundle import save_model

from ...conftest import make_model


@pytest.fixture(scope="session")
def large_model_folder(tmp_path_factory):
    """A network that takes its time, so that machines are lost in the middle of the work."""
    folder = tmp_path_factory.mktemp("models") / "resnet18"
    save_model(make_model(encoder="resnet18"), folder)
    return folder
