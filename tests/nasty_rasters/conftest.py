from dataclasses import replace

import pytest
import torch

from terradelta.models.bundle import Model, save_model

from .cases import draw_rgb, home


@pytest.fixture(scope="session")
def judge(model) -> Model:
    """The tests' network, its threshold such that half of the drawn ground changes."""
    images = [
        torch.from_numpy(draw_rgb(home(size=(256, 256)), date).image_CHW)[None]
        for date in ("before", "after")
    ]
    with torch.inference_mode():
        output = model.network(*map(model.card.scaling.apply, images))
    threshold = float(output.change_logits.sigmoid().median())
    return Model(model.network, replace(model.card, change_threshold=threshold))


@pytest.fixture(scope="session")
def judge_folder(judge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "judge"
    save_model(judge, folder)
    return folder
