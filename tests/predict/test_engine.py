import numpy as np
import pytest
import torch

from terradelta.classes import BINARY
from terradelta.data.augment import VIEW_SETS, apply_view, undo_view
from terradelta.data.synthetic import draw_pair
from terradelta.errors import ArgumentError, ModelError
from terradelta.predict.engine import Predictor, decide
from terradelta.predict.folders import ImagePair
from terradelta.predict.tiling import Tiling

from ..conftest import make_model


@pytest.fixture(scope="module")
def pair():
    scene = draw_pair(1, (88, 120))
    return tuple(
        torch.from_numpy(image_CHW)[None] for image_CHW in (scene.before_CHW, scene.after_CHW)
    )


@pytest.mark.parametrize("tta", ["none", "seed6"])
def test_probabilities_are_the_mean_over_views_of_the_plain_network(model, pair, tta):
    answer = Predictor([model], tta=tta, precision="fp32")(*pair)
    votes = []
    for view in VIEW_SETS[tta]:
        images = [apply_view(model.card.scaling.apply(image), view) for image in pair]
        with torch.no_grad():
            output = model.network(*images)
        votes.append(
            (
                undo_view(output.before_logits.softmax(1), view),
                undo_view(output.after_logits.softmax(1), view),
                undo_view(output.change_logits.sigmoid(), view),
            )
        )
    for part, parts in zip(answer, zip(*votes, strict=True), strict=True):
        assert torch.allclose(part, torch.stack(parts).mean(0), atol=1e-5)


def test_all_views_make_the_map_turn_with_the_picture(model, pair):
    predictor = Predictor([model], tta="d4", precision="fp32")
    turned = predictor(*(torch.rot90(image, 1, (-2, -1)) for image in pair))
    for part, turned_part in zip(predictor(*pair), turned, strict=True):
        assert torch.allclose(torch.rot90(part, 1, (-2, -1)), turned_part, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members_in_any_order(model, pair):
    other = make_model(seed=1)
    both = Predictor([model, other], precision="fp32")(*pair)
    swapped = Predictor([other, model], precision="fp32")(*pair)
    alone = [Predictor([member], precision="fp32")(*pair) for member in (model, other)]
    for part, part_swapped, *parts in zip(both, swapped, *alone, strict=True):
        assert torch.allclose(part, torch.stack(parts).mean(0), atol=1e-6)
        assert torch.allclose(part, part_swapped, atol=1e-6)


def test_swapping_the_dates_swaps_the_maps(model, pair):
    predictor = Predictor([model], precision="fp32")
    forth = predictor.classify(*pair)[0]
    back = predictor.classify(*reversed(pair))[0]
    assert (forth.before_HW == back.after_HW).all()
    assert (forth.after_HW == back.before_HW).all()


def test_decisions_follow_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    before, after = torch.rand(2, 2, 4, 5, 6, generator=generator).softmax(2)
    change = torch.rand(2, 5, 6, generator=generator)
    before_ids, after_ids, percent = decide((before, after, change), threshold=0.6)
    for b, row, column in np.ndindex(2, 5, 6):
        p = float(change[b, row, column])
        if p >= 0.6:
            ids = [int(part[b, :, row, column].argmax()) + 1 for part in (before, after)]
            sure = (
                p * float(before[b, :, row, column].max()) * float(after[b, :, row, column].max())
            )
        else:
            ids, sure = [0, 0], 1 - p
        assert [before_ids[b, row, column], after_ids[b, row, column]] == ids
        assert percent[b, row, column] == pytest.approx(100 * sure, abs=0.51)


def test_tiles_give_the_map_of_the_whole_picture(model, monkeypatch):
    """At a margin of 192 px a ResNet-18 sees nothing beyond it: the maps are the same."""
    scene = draw_pair(2, (96, 700))
    source = ImagePair(scene.before_CHW, scene.after_CHW)
    predictor = Predictor([model], precision="fp32")

    def map_with(tiling):
        monkeypatch.setattr(Predictor, "tiling", property(lambda self: tiling))
        maps = np.zeros((3, 96, 700), np.uint8)
        for window, parts, valid_HW in predictor.map_tiles(source, 96, 700):
            assert valid_HW.all()
            maps[:, *window.toslices()] = parts
        return maps

    whole = map_with(Tiling(1024, 0, 8))
    assert 0.1 < (whole[0] > 0).mean() < 0.9
    for tiling in (Tiling(448, 192, 8), Tiling(520, 200, 8)):
        assert (map_with(tiling) != whole).mean() < 1e-4


def test_invalid_tiles_cost_no_network(model):
    from terradelta.geo.pair import PairWindow

    class Empty:
        def read(self, window):
            shape = (int(window.height), int(window.width))
            return PairWindow(np.zeros((9, *shape)), np.zeros((9, *shape)), np.zeros(shape, bool))

    # Nine bands would not fit the network.
    windows = list(Predictor([model]).map_tiles(Empty(), 50, 60))
    assert len(windows) == 1
    assert not windows[0][2].any()


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ArgumentError, match="'mirror' are not known"):
        Predictor([model], tta="mirror")
    with pytest.raises(ModelError, match="no model"):
        Predictor([])
    with pytest.raises(ArgumentError, match="'fp8' is not known"):
        Predictor([model], precision="fp8")
    with pytest.raises(ArgumentError, match="device 'abacus'"):
        Predictor([model], device="abacus")
    from terradelta.models.bundle import Model, ModelCard
    from terradelta.models.registry import create_model

    network = create_model("fcn", "resnet18", num_classes=1)
    binary = Model(network, ModelCard(architecture=network.config, classes=BINARY))
    with pytest.raises(ModelError, match="differ in their classes"):
        Predictor([model, binary])
    pooled = [make_model(name="pspnet", tile_size_px=size) for size in (128, 256)]
    with pytest.raises(ModelError, match=r"different sizes: \[128, 256\] px"):
        _ = Predictor(pooled).tiling
