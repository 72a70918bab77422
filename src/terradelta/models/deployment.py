"""A network for inference: takes stored values, with normalisations folded into convolutions.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from terradelta.models.bundle import Model
from terradelta.models.change_network import ChangeNetwork, ChangeOutput
from terradelta.models.crop import Crop

FOLDING_TOLERANCE = 1e-3
"""Share of the largest logit; a wrong folding changes all of it."""


class Deployment(nn.Module):
    """A copy of a model's network with its scaling inside.

    Args:
        model: The model, which is not changed.
        pool_window_px: Side of the window that heads with global pooling take their means over.
    """

    scale_C11: Tensor
    offset_C11: Tensor

    def __init__(self, model: Model, pool_window_px: int | None = None):
        super().__init__()
        self.network = copy.deepcopy(model.network).requires_grad_(False)
        if self.network.has_global_pooling:
            self.network.pool_window_px = pool_window_px
        scaling = model.card.scaling
        std_C, mean_C = (
            torch.tensor(part, dtype=torch.float64) for part in (scaling.std, scaling.mean)
        )
        self.register_buffer("scale_C11", (1 / (scaling.divisor * std_C)).float()[:, None, None])
        self.register_buffer("offset_C11", (mean_C / std_C).float()[:, None, None])
        self.eval()

    def forward(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor,
        crop_4: Tensor | Crop | None = None,
    ) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions; see `ChangeNetwork.score`.

        Args:
            before_BCHW: Images in their stored scale, of any dtype; their sides are multiples of
                the network's output stride.
            after_BCHW: Images of the second date.
            valid_BHW: Nonzero where both dates hold data; elsewhere the network sees its mean
                colour, like beyond an image's border.
            crop_4: The part of the images whose logits are wanted: top, bottom, left and right, on
                the CPU as an int64 tensor; all by default.
        """
        valid_B1HW = valid_BHW[:, None] != 0
        images = [
            torch.where(valid_B1HW, image.float() * self.scale_C11 - self.offset_C11, 0.0)
            for image in (before_BCHW, after_BCHW)
        ]
        if crop_4 is None:
            output = self.network.score(*images)
        else:
            # Of a tensor these are tensors, which a traced graph follows.
            crop = Crop(*crop_4)  # pyright: ignore[reportArgumentType]
            output = self.network.score_crop(images[0], images[1], crop)
        return ChangeOutput(*(part.float() for part in output))


def fold_norms(network: ChangeNetwork) -> ChangeNetwork:
    """Fold each batch normalisation into the convolution before it.

    The pairs are found in a trial run. A network that uses the output between the two
    elsewhere, as some encoders of timm's do, is returned unchanged.
    """
    folded = copy.deepcopy(network)
    image_BCHW = _draw_trial(network)
    names = {module: name for name, module in folded.named_modules()}
    sources: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor):
        if isinstance(module, nn.Conv2d):
            # The tensor is kept so that its id is not reused.
            sources[id(output)] = output, module
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in sources:
            pairs.append((sources[id(inputs[0])][1], module))

    hooks = [module.register_forward_hook(watch) for module in names]
    with torch.inference_mode():
        folded.score(image_BCHW, image_BCHW)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        folded.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        folded.set_submodule(names[norm], nn.Identity())
    return folded if _answer_alike(folded, network) else network


def _draw_trial(network: ChangeNetwork) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    side_px = max(64, 2 * network.output_stride)
    shape = (1, int(network.config["in_channels"]), side_px, side_px)
    return torch.randn(shape, generator=generator)


@torch.inference_mode()
def _answer_alike(folded: ChangeNetwork, network: ChangeNetwork) -> bool:
    image_BCHW = _draw_trial(network)
    answers = [part.score(image_BCHW, image_BCHW.flip(-1)) for part in (folded, network)]
    return all(
        bool((mine - theirs).abs().max() <= FOLDING_TOLERANCE * theirs.abs().max())
        for mine, theirs in zip(*answers, strict=True)
    )
