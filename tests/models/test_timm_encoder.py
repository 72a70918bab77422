from __future__ import annotations

import pytest
import torch

from terradelta.errors import ModelError
from terradelta.models.registry import create_model

try:
    import timm
except (ImportError, RuntimeError) as error:
    timm = None
    reason = f"timm does not import here: {error}"
else:
    reason = ""

needs_timm = pytest.mark.skipif(timm is None, reason=reason)


@pytest.mark.skipif(timm is not None, reason="timm is installed")
def test_without_timm_the_error_says_how_to_install_it():
    with pytest.raises(ModelError, match=r"terradelta\[timm\]"):
        create_model("fcn", "timm:resnet18")


@needs_timm
@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("fcn", "timm:convnext_atto"),
        ("deeplabv3plus", "timm:resnet10t"),
        ("pspnet", "timm:mobilenetv3_small_100"),
        ("unet", "timm:hrnet_w18_small"),
    ],
)
def test_networks_answer_at_odd_sizes(name, encoder):
    network = create_model(name, encoder, in_channels=4).eval()
    output = network(torch.randn(1, 4, 65, 47), torch.randn(1, 4, 65, 47))
    assert output.before_logits.shape == (1, 6, 65, 47)
    assert output.change_logits.isfinite().all()


@needs_timm
def test_weights_of_a_whole_model_load(tmp_path):
    whole = timm.create_model("convnext_atto")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = create_model("fcn", "timm:convnext_atto", encoder_weights=tmp_path / "weights.pth")
    torch.testing.assert_close(
        network.encoder.state_dict()["network.stem_0.weight"], whole.state_dict()["stem.0.weight"]
    )


@needs_timm
@pytest.mark.parametrize(
    ("name", "encoder", "words"),
    [
        ("fcn", "timm:resnet-18", "resnet18"),
        ("unet", "timm:convnext_atto", "five scales"),
        ("fcn", "timm:swin_tiny_patch4_window7_224", "output stride"),
    ],
)
def test_what_does_not_fit_is_reported(name, encoder, words):
    with pytest.raises(ModelError, match=words):
        create_model(name, encoder)


@needs_timm
@torch.inference_mode()
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0", "resnext50_32x4d"])
def test_own_encoders_are_timms(name):
    own = create_model("fcn", name).eval().encoder
    theirs = timm.create_model(
        f"tf_{name}" if "lite" in name else name, features_only=True, output_stride=8
    ).eval()
    theirs.load_state_dict(own.state_dict())
    image = torch.randn(1, 3, 64, 96)
    for actual, expected in zip(own(image), theirs(image), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
