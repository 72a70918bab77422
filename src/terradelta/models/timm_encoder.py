"""Any convolutional or hierarchical encoder of timm, behind one adapter.

timm (Apache-2.0, Wightman) is an optional dependency: `pip install "terradelta[timm]"`. It imports
torchvision, which must fit the installed torch.

Legend of the tensor names: B batch, C bands or channels, H rows, W columns.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import Tensor

from terradelta.errors import ModelError
from terradelta.models.encoder import Encoder

_STRIDE_DILATED = 8
_CONTEXT_PX = 256
"""Not measured: enough for all of terradelta's encoders except the dilated EfficientNets and
ResNet-152."""


class TimmEncoder(Encoder):
    """The feature maps of a timm model; it starts from random weights.

    Args:
        name: timm's name of the model.
        in_channels: Bands of the image.
        dilated: Trade the strides beyond 8 for dilation, as dense heads need it.

    Raises:
        ModelError: If timm does not import, or the model does not exist or cannot be dilated.
    """

    def __init__(self, name: str, in_channels: int = 3, *, dilated: bool = True):
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(name):
            close = get_close_matches(name, timm.list_models())
            raise ModelError(
                f"timm {timm.__version__} has no model named {name!r}",
                fix=f"use one of timm.list_models(), such as {', '.join(close) or 'resnet18'}",
            )
        try:
            self.network = timm.create_model(
                name,
                features_only=True,
                in_chans=in_channels,
                **({"output_stride": _STRIDE_DILATED} if dilated else {}),
            )
        except (TypeError, AssertionError, RuntimeError) as error:
            raise ModelError(
                f"timm's {name} cannot serve as an encoder"
                f"{f' of output stride {_STRIDE_DILATED}' if dilated else ''}: {error!r}",
                fix="use another encoder, or unet, which needs no dilation",
            ) from error
        self.channels = tuple(self.network.feature_info.channels())
        self.strides = tuple(self.network.feature_info.reduction())
        self.alignment_px = max(self.strides)
        self.context_px = _CONTEXT_PX
        self.stem_key = next(k for k, v in self.state_dict().items() if v.ndim == 4)
        self._is_channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the feature maps that timm lists for the model."""
        features = self.network(image_BCHW)
        if self._is_channels_last:
            return [feature_BHWC.permute(0, 3, 1, 2) for feature_BHWC in features]
        return list(features)

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of a whole timm model and leave out those that the encoder lacks.

        timm's feature extractors join some levels of names by an underscore ("stem.0" is "stem_0")
        and drop layers after the last feature map.
        """
        published = {_flatten(key): value for key, value in state.items()}
        own = {key: _flatten(key.removeprefix("network.")) for key in self.state_dict()}
        return {key: published[flat] for key, flat in own.items() if flat in published}


def _flatten(key: str) -> str:
    return key.replace(".", "_")


def _import_timm() -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        raise ModelError(
            f"encoders of timm need timm and a torchvision that fits torch: {error}",
            fix='install them with pip install "terradelta[timm]"',
        ) from error
