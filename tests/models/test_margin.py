"""Legend of the array names: C channels, H rows, W columns; M maps (two classes and change)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.weights import DRAWN_MODEL

from terradelta.data.synthetic import draw_pair
from terradelta.models.bundle import load_model
from terradelta.models.card import Scaling
from terradelta.models.encoder import TILING_TOLERANCE
from terradelta.models.registry import create_model
from terradelta.models.siamese import SiameseNetwork

TILE_SIZE_PX = 1024
WIDTH_PX = 128


def build(
    name: str, pool_window_px: int | None = None, encoder: str = "resnet18"
) -> SiameseNetwork:
    """A network of random weights, with the batch statistics of drawn scenes."""
    torch.manual_seed(0)
    network = create_model(name, encoder).train()
    with torch.no_grad():
        for seed in range(6):
            pairs = [draw_images(2 * seed + i, (96, 96), encoder) for i in range(2)]
            network(*(torch.cat(images) for images in zip(*pairs, strict=True)))
    network.pool_window_px = pool_window_px
    return network.eval()


def draw_images(seed: int, size: tuple[int, int], encoder: str) -> list[torch.Tensor]:
    scene = draw_pair((11, seed), size)
    images = (torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW))
    return [Scaling.for_encoder(encoder).apply(image) for image in images]


@torch.inference_mode()
def measure_disagreement(network: SiameseNetwork, *, cut_px: int, depth_px: int) -> np.ndarray:
    """Return the share of labels that cutting off part of an image changes, by distance in px."""
    encoder = network.config["encoder"]
    images = draw_images(100, (cut_px + depth_px, WIDTH_PX), encoder)
    whole = network(*images)
    threshold = whole.change_logits.median()
    part = network(*(image[..., cut_px:, :] for image in images))
    labels_MHW = [
        torch.stack(
            [
                output.before_logits[0].argmax(dim=0),
                output.after_logits[0].argmax(dim=0),
                output.change_logits[0] > threshold,
            ]
        )
        for output in (part, whole)
    ]
    differs_MHW = labels_MHW[0] != labels_MHW[1][:, cut_px:]
    return differs_MHW.double().mean(dim=(0, 2)).numpy()


def sum_over_tile(share_by_distance: np.ndarray, margin_px: int) -> float:
    """Return the share among the pixels of a tile that lie beyond the margin of all four edges."""
    pixels = 4.0 * (TILE_SIZE_PX - 2 * np.arange(TILE_SIZE_PX // 2) - 1)
    shares = np.zeros(len(pixels))
    shares[: len(share_by_distance)] = share_by_distance[: len(pixels)]
    return float((pixels * shares)[margin_px:].sum() / pixels[margin_px:].sum())


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("fcn", "resnet18"), ("fcn", "resnet18_slim"), ("fpn", "aerial_resnet18_slim")],
)
def test_beyond_the_margin_a_tile_answers_like_the_image(name, encoder):
    network = build(name, encoder=encoder)
    share = measure_disagreement(network, cut_px=256, depth_px=400)
    assert sum_over_tile(share, network.margin_px) < TILING_TOLERANCE
    # Half of it would not do, or tiles would be larger than they need be.
    assert sum_over_tile(share, network.margin_px // 2) > TILING_TOLERANCE


def test_tiles_of_the_embedded_model_answer_like_the_image():
    network = load_model(DRAWN_MODEL).network.eval()
    network.pool_window_px = 256
    share = measure_disagreement(network, cut_px=384, depth_px=512)
    assert sum_over_tile(share, network.margin_px) < TILING_TOLERANCE
    assert sum_over_tile(share, network.margin_px // 4) > TILING_TOLERANCE


def test_a_window_makes_pooling_converge():
    shares = []
    for pool_window_px in (None, 128):
        network = build("pspnet", pool_window_px)
        share = measure_disagreement(network, cut_px=256, depth_px=400)
        shares.append(sum_over_tile(share, margin_px=160))
    assert shares[1] < TILING_TOLERANCE < 0.2 * shares[0]


@pytest.mark.parametrize(
    ("name", "encoder", "pool_window_px", "margin_px"),
    [
        ("fcn", "resnet18", None, 128),
        ("fcn", "resnet18", 512, 128),
        ("fcn", "resnext50_32x4d", None, 192),
        ("fcn", "resnet101", None, 256),
        ("fcn", "efficientnet_lite2", None, 352),
        ("fcn", "hrnet_w18", None, 256),
        ("fpn", "aerial_resnet18_slim", None, 112),
        ("fpn", "efficientnet_lite0", None, 256),
        ("unet", "efficientnet_lite0", None, 128),
        ("unet", "efficientnet_lite0", 256, 160),
        ("unet", "efficientnet_lite0", 500, 288),
        ("unet", "resnet34", 256, 240),
        ("pspnet", "resnet18", 512, 288),
        ("pspnet", "resnet18", 301, 184),
        ("deeplabv3plus", "resnet18", None, 384),
        ("deeplabv3plus", "resnet18", 256, 416),
    ],
)
def test_margin_is_a_constant_of_the_architecture(name, encoder, pool_window_px, margin_px):
    with torch.device("meta"):
        network = create_model(name, encoder)
    network.pool_window_px = pool_window_px
    assert network.margin_px == margin_px
    assert network.margin_px % network.output_stride == 0
