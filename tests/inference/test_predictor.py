import numpy as np
import pytest
import torch

from terradelta.classes import BINARY
from terradelta.data.augment import VIEW_SETS, apply_view, undo_view
from terradelta.data.synthetic import draw_pair
from terradelta.errors import ArgumentError, ModelError
from terradelta.geo.grid import cut_window
from terradelta.geo.pair import PairWindow
from terradelta.geo.scale import SeenPixels
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.tiling import Tile, Tiling
from terradelta.models.bundle import load_model, save_model
from terradelta.models.embedded import DEFAULT_MODEL

from ..conftest import make_model


@pytest.fixture(scope="module")
def pair():
    scene = draw_pair(1, (88, 120))
    return tuple(
        torch.from_numpy(image_CHW)[None] for image_CHW in (scene.before_CHW, scene.after_CHW)
    )


@pytest.mark.parametrize("tta", ["none", "seed6"])
def test_probabilities_are_the_mean_over_views_of_the_plain_network(model, pair, tta):
    answer = Predictor([model], Runtime(tta=tta, precision="fp32"))(*pair)
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
    predictor = Predictor([model], Runtime(tta="d4", precision="fp32"))
    turned = predictor(*(torch.rot90(image, 1, (-2, -1)) for image in pair))
    for part, turned_part in zip(predictor(*pair), turned, strict=True):
        assert torch.allclose(torch.rot90(part, 1, (-2, -1)), turned_part, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members_in_any_order(model, pair):
    other = make_model(seed=1)
    both = Predictor([model, other], Runtime(precision="fp32"))(*pair)
    swapped = Predictor([other, model], Runtime(precision="fp32"))(*pair)
    alone = [Predictor([member], Runtime(precision="fp32"))(*pair) for member in (model, other)]
    for part, part_swapped, *parts in zip(both, swapped, *alone, strict=True):
        assert torch.allclose(part, torch.stack(parts).mean(0), atol=1e-6)
        assert torch.allclose(part, part_swapped, atol=1e-6)


def test_swapping_the_dates_swaps_the_maps(model, pair):
    predictor = Predictor([model], Runtime(precision="fp32"))
    forth = predictor.classify(*pair)[0]
    back = predictor.classify(*reversed(pair))[0]
    assert (forth.before_HW == back.after_HW).all()
    assert (forth.after_HW == back.before_HW).all()


def map_with(predictor, tiling, scene):
    """The maps of a drawn scene, tile by tile."""
    height, width = scene.before_CHW.shape[1:]
    whole = cut_window(0, 0, width, height)
    everywhere = np.ones((height, width), bool)
    pair = PairWindow(scene.before_CHW, scene.after_CHW, everywhere, everywhere)
    return np.stack(predictor.map_window(pair, whole, list(tiling.cut(height, width)), whole))


def test_tiles_give_the_map_of_the_whole_picture(model):
    """At a margin of 192 px a ResNet-18 sees nothing beyond it: the maps are the same."""
    scene = draw_pair(2, (96, 700))
    predictor = Predictor([model], Runtime(precision="fp32"))
    whole = map_with(predictor, Tiling(1024, 0, 8), scene)
    assert 0.1 < (whole[0] > 0).mean() < 0.9
    for tiling in (Tiling(448, 192, 8), Tiling(520, 200, 8)):
        assert (map_with(predictor, tiling, scene) != whole).mean() < 1e-4


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("enlargement", [1, 2, 5])
def test_a_tile_answers_for_its_kept_part_as_for_the_whole(enlargement, tta):
    """The embedded network computes no more than the kept part, which must not be seen."""
    scene = draw_pair(2, (160, 256))
    predictor = Predictor([load_model(DEFAULT_MODEL)], Runtime(tta=tta, precision="fp32"))
    predictor.see(SeenPixels(enlargement=enlargement))
    images = [torch.from_numpy(image)[None] for image in (scene.before_CHW, scene.after_CHW)]
    expected = np.stack(predictor.classify(*images)[0])
    whole = cut_window(0, 0, 256, 160)
    everywhere = np.ones((160, 256), bool)
    pair = PairWindow(scene.before_CHW, scene.after_CHW, everywhere, everywhere)
    kept = cut_window(96, 32, 90, 71)
    maps = np.stack(predictor.map_window(pair, whole, [Tile(whole, kept)], kept))
    assert (maps == expected[:, *kept.toslices()]).all()
    assert (maps[0] > 0).any()


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_the_map_does_not_depend_on_the_batch(model, batch_size):
    scene = draw_pair(3, (300, 400))
    tiling = Tiling(128, 16, 8)
    one = map_with(Predictor([model], Runtime(precision="fp32"), batch_size=1), tiling, scene)
    many = map_with(
        Predictor([model], Runtime(precision="fp32"), batch_size=batch_size), tiling, scene
    )
    # Some processors sum a batch in another order, and scores at a tie may fall the other way.
    assert (one == many).mean() > 0.9995


def test_the_map_does_not_depend_on_when_answers_are_fetched(model):
    """As on a GPU, which is given the next batch before the last one's answer is taken."""
    scene = draw_pair(3, (300, 400))
    at_once, later = (Predictor([model], Runtime(precision="fp32")) for _ in range(2))
    later._batches_ahead = 1
    maps = [map_with(predictor, Tiling(128, 16, 8), scene) for predictor in (at_once, later)]
    assert (maps[0] == maps[1]).all()


def test_invalid_tiles_cost_no_network(model):
    whole = cut_window(0, 0, 60, 50)
    # Nine bands would not fit the network.
    nowhere = np.zeros((50, 60), bool)
    pair = PairWindow(np.zeros((9, 50, 60)), np.zeros((9, 50, 60)), nowhere, nowhere)
    tiles = list(Tiling(64, 8, 8).cut(50, 60))
    maps = Predictor([model]).map_window(pair, whole, tiles, whole)
    assert maps.before_HW.shape == (50, 60)


def test_what_lies_in_invalid_pixels_does_not_reach_the_map(model):
    scene = draw_pair(4, (96, 128))
    valid_HW = np.ones((96, 128), bool)
    valid_HW[20:60, 30:80] = False
    whole = cut_window(0, 0, 128, 96)
    tiles = list(Tiling(1024, 0, 8).cut(96, 128))
    maps = []
    for junk in (0, 255, -9999):
        images = []
        for image_CHW in (scene.before_CHW, scene.after_CHW):
            image_CHW = image_CHW.astype(np.int16)
            image_CHW[:, ~valid_HW] = junk
            images.append(image_CHW)
        pair = PairWindow(images[0], images[1], valid_HW, valid_HW)
        maps.append(np.stack(Predictor([model]).map_window(pair, whole, tiles, whole)))
    assert (maps[0] == maps[1]).all()
    assert (maps[0] == maps[2]).all()


def test_a_value_range_is_the_models_own_scale(model, pair):
    """16-bit values whose range is named give the answer of the same picture in 8 bits."""
    stretched = [(image.float() * 10 + 300).to(torch.int16) for image in pair]
    ranged = Predictor([model], Runtime(precision="fp32"), value_ranges=((300, 2850), (300, 2850)))(
        *stretched
    )
    plain = Predictor([model], Runtime(precision="fp32"))(*pair)
    for part, same in zip(ranged, plain, strict=True):
        assert torch.allclose(part, same, atol=1e-5)
    with pytest.raises(ArgumentError, match="runs from 5 to 5"):
        Predictor([model], value_ranges=((5, 5), (5, 5)))


def test_fewer_views_are_the_first_ones(model, pair):
    few = Predictor([model], Runtime(tta="seed6", precision="fp32"))(*pair, num_views=4)
    one = Predictor([model], Runtime(precision="fp32"))(*pair)
    first = Predictor([model], Runtime(tta="seed6", precision="fp32"))(*pair, num_views=1)
    for part, alone, single in zip(few, one, first, strict=True):
        assert torch.equal(alone, single)
        assert not torch.equal(part, single)


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ArgumentError, match="tta is 'mirror'"):
        Predictor([model], Runtime(tta="mirror"))
    with pytest.raises(ModelError, match="no model"):
        Predictor([])
    with pytest.raises(ArgumentError, match="precision is 'fp8'"):
        Predictor([model], Runtime(precision="fp8"))
    with pytest.raises(ArgumentError, match="device 'abacus'"):
        Predictor([model], Runtime(device="abacus"))
    from terradelta.models.bundle import Model
    from terradelta.models.card import ModelCard
    from terradelta.models.registry import create_model

    network = create_model("fcn", "resnet18", num_classes=1)
    binary = Model(network, ModelCard(architecture=network.config, classes=BINARY))
    with pytest.raises(ModelError, match="differ in their classes"):
        Predictor([model, binary])


@pytest.mark.parametrize("head", ["change_head", "semantic_head"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_weights_that_overflow_stop_the_run_instead_of_finding_no_change(
    model, model_folder, tmp_path, head, backend
):
    hot = load_model(model_folder)
    with torch.no_grad():
        # Of one sign, so that large sums are not taken from each other before they overflow.
        getattr(hot.network, head).classifier.weight.fill_(3e38)
    assert all(weight.isfinite().all() for weight in hot.network.parameters())
    save_model(hot, tmp_path / "hot")
    hot = load_model(tmp_path / "hot")
    images = [torch.from_numpy(image)[None] for image in draw_pair(0, 64)[:2]]
    for answer in (
        lambda predictor: predictor(*images),
        lambda predictor: predictor.classify(*images),
        lambda predictor: map_with(predictor, Tiling(64, 0, 8), draw_pair(0, 64)),
    ):
        for models in ([hot], [model, hot]):
            predictor = Predictor(models, Runtime(backend=backend, precision="fp32"))
            with pytest.raises(ModelError, match=r"model .*/hot answers with NaN or infinite") as e:
                answer(predictor)
            # The good one of two is not blamed.
            assert "do not use this model" in e.value.fix


def test_values_beyond_a_value_range_count_as_its_ends(model, pair):
    """One cloud or one dead pixel does not leave what the network was trained on."""
    wild = [image.float() * 3 - 200 for image in pair]
    tame = [image.clamp(20, 190) for image in wild]
    assert all((image != same).any() for image, same in zip(wild, tame, strict=True))
    ranged = Predictor([model], Runtime(precision="fp32"), value_ranges=((20, 190), (20, 190)))
    for part, same in zip(ranged(*wild), ranged(*tame), strict=True):
        assert torch.allclose(part, same, atol=1e-6)
