from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from terradelta.data.augment import (
    FLIP_HORIZONTAL,
    FLIP_VERTICAL,
    IDENTITY,
    TRANSPOSE,
    TRANSVERSE,
    TURN_90,
    TURN_180,
    TURN_270,
    VIEW_SETS,
    VIEWS,
    Augmentation,
    apply_view,
    undo_view,
)
from terradelta.data.dataset import PairSample
from terradelta.errors import ArgumentError, DataError

ALL_VIEWS = VIEW_SETS["d4"]
PILLOW = {
    FLIP_HORIZONTAL: Image.Transpose.FLIP_LEFT_RIGHT,
    FLIP_VERTICAL: Image.Transpose.FLIP_TOP_BOTTOM,
    TURN_90: Image.Transpose.ROTATE_90,
    TURN_180: Image.Transpose.ROTATE_180,
    TURN_270: Image.Transpose.ROTATE_270,
    TRANSPOSE: Image.Transpose.TRANSPOSE,
    TRANSVERSE: Image.Transpose.TRANSVERSE,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_sample(height, width, bands=3, seed=0):
    """Build a sample whose images are made from its labels, so that both must move together."""
    numbers = generator(seed)
    before_labels_HW = torch.randint(0, 80, (height, width), generator=numbers)
    after_labels_HW = torch.randint(80, 160, (height, width), generator=numbers)
    return PairSample(
        paint(before_labels_HW, bands),
        paint(after_labels_HW, bands),
        before_labels_HW,
        after_labels_HW,
        before_labels_HW % 3 - 1,
        7,
    )


def paint(labels_HW, bands=3):
    return torch.stack([labels_HW + band for band in range(bands)]).to(torch.uint8)


def test_view_sets_have_their_sizes_and_eight_views_are_different():
    sizes = {name: len(views) for name, views in VIEW_SETS.items()}
    assert sizes == {"none": 1, "flips": 4, "d4": 8, "seed6": 6}
    assert VIEW_SETS["seed6"] == VIEWS
    square = torch.arange(9).reshape(3, 3)
    for views in VIEW_SETS.values():
        assert len({tuple(apply_view(square, view).flatten().tolist()) for view in views}) == len(
            views
        )
        assert views[0] == IDENTITY
        assert len({view.name for view in views}) == len(views)


def test_each_set_but_seed6_is_a_group():
    square = torch.arange(9).reshape(3, 3)
    for name in ("none", "flips", "d4"):
        images = {tuple(apply_view(square, view).flatten().tolist()) for view in VIEW_SETS[name]}
        for first in VIEW_SETS[name]:
            for second in VIEW_SETS[name]:
                both = apply_view(apply_view(square, first), second)
                assert tuple(both.flatten().tolist()) in images


@pytest.mark.parametrize("view", PILLOW, ids=lambda view: view.name)
def test_views_do_what_pillow_does(view):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.asarray(Image.fromarray(array).transpose(PILLOW[view]))
    np.testing.assert_array_equal(apply_view(torch.from_numpy(array), view), expected)


@given(
    view=st.sampled_from(ALL_VIEWS),
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
)
def test_undo_inverts_apply_and_apply_inverts_undo(view, shape):
    tensor = torch.arange(int(np.prod(shape))).reshape(shape)
    assert torch.equal(undo_view(apply_view(tensor, view), view), tensor)
    assert torch.equal(apply_view(undo_view(tensor, view), view), tensor)


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    bands=st.sampled_from([1, 3, 5]),
    views=st.sampled_from(list(VIEW_SETS)),
    crop_size_px=st.sampled_from([None, 1, 3, 4]),
    swap_dates=st.booleans(),
)
def test_images_and_labels_move_together(
    seed, height, width, bands, views, crop_size_px, swap_dates
):
    sample = make_sample(height, width, bands)
    augmentation = Augmentation(views, crop_size_px, swap_dates=swap_dates)
    result = augmentation(sample, generator(seed))
    assert torch.equal(result.before_CHW, paint(result.before_labels_HW, bands))
    assert torch.equal(result.after_CHW, paint(result.after_labels_HW, bands))
    size = (crop_size_px, crop_size_px) if crop_size_px else (height, width)
    assert result.before_labels_HW.shape == size
    assert result.index == 7
    swapped = bool((result.before_labels_HW >= 80).any())
    earlier_HW = result.after_labels_HW if swapped else result.before_labels_HW
    assert torch.equal(result.change_HW, earlier_HW % 3 - 1)
    assert swapped <= swap_dates
    # Both dates are cut at one place: the result is a part of the sample in one of the views.
    layers = torch.stack([sample.before_labels_HW, sample.after_labels_HW])
    found = torch.stack([result.before_labels_HW, result.after_labels_HW])
    found = found.flip(0) if swapped else found
    assert any(
        torch.equal(part, undo_view(found, view))
        for view in ALL_VIEWS
        if undo_view(found, view).shape[-2:] == size
        for part in layers.unfold(1, size[0], 1).unfold(2, size[1], 1).flatten(1, 2).unbind(1)
    )


def test_labels_keep_their_values_under_colour_changes_and_dates_differ():
    sample = make_sample(6, 6)
    sample = sample._replace(after_CHW=sample.before_CHW, after_labels_HW=sample.before_labels_HW)
    augmentation = Augmentation("none", brightness=0.4, contrast=0.4, colour=0.2)
    result = augmentation(sample, generator())
    assert torch.equal(result.before_labels_HW, sample.before_labels_HW)
    assert torch.equal(result.after_labels_HW, sample.after_labels_HW)
    assert not torch.equal(result.before_CHW, result.after_CHW)
    assert not torch.equal(result.before_CHW, sample.before_CHW)


@pytest.mark.parametrize("field", ["brightness", "contrast", "colour"])
def test_colour_changes_stay_in_range_and_within_their_spread(field):
    image_CHW = torch.randint(0, 256, (3, 20, 20), generator=generator(1), dtype=torch.uint8)
    labels_HW = torch.zeros(20, 20, dtype=torch.int64)
    sample = PairSample(image_CHW, image_CHW.float(), labels_HW, labels_HW, labels_HW, 0)
    for seed in range(30):
        result = Augmentation("none", **{field: 0.5})(sample, generator(seed))
        assert result.before_CHW.dtype == torch.uint8  # a wrapped value would show as a far one
        pixels, original = result.before_CHW.float(), image_CHW.float()
        if field == "contrast":
            pixels, original = pixels - original.mean(), original - original.mean()
        assert (pixels.abs() >= 0.5 * original.abs() - 1).all()
        assert (pixels.abs() <= 1.5 * original.abs() + 1).all()
        assert result.after_CHW.dtype == torch.float32
        if field == "contrast":
            assert result.after_CHW.mean() == pytest.approx(
                float(image_CHW.float().mean()), rel=1e-5
            )
        else:
            ratios_C = (result.after_CHW / sample.after_CHW.clamp(min=1)).amax((1, 2))
            alike = torch.allclose(ratios_C, ratios_C[0].expand(3))
            assert alike == (field == "brightness")  # colour has a factor for each band


def test_the_recipe_draws_each_of_six_views_equally_often():
    sample = make_sample(3, 3)
    counts: dict[tuple, int] = {}
    numbers = generator(5)
    draws = 3000
    for _ in range(draws):
        result = Augmentation()(sample, numbers)
        key = tuple(result.before_labels_HW.flatten().tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    # Six standard deviations of a binomial count.
    assert all(abs(count - draws / 6) < 6 * (draws * 5 / 36) ** 0.5 for count in counts.values())


def test_dates_are_swapped_half_of_the_time():
    sample = make_sample(2, 2)
    swaps = sum(
        bool((Augmentation("none", swap_dates=True)(sample, generator(s)).before_CHW >= 80).all())
        for s in range(400)
    )
    assert 140 < swaps < 260


def test_crops_reach_every_corner():
    sample = make_sample(6, 5)
    corners = set()
    for seed in range(300):
        result = Augmentation("none", crop_size_px=4)(sample, generator(seed))
        places = sample.before_labels_HW.unfold(0, 4, 1).unfold(1, 4, 1) == result.before_labels_HW
        corners.add(tuple(places.all(-1).all(-1).nonzero()[0].tolist()))
    assert corners == {(top, left) for top in range(3) for left in range(2)}


def make_ramp(side: int) -> PairSample:
    """Return images and labels whose values are their places: column, row and their sum."""
    rows_HW = torch.arange(side)[:, None].expand(side, side)
    image_CHW = torch.stack([rows_HW.T, rows_HW, rows_HW + rows_HW.T])
    return PairSample(image_CHW.float(), image_CHW.float(), rows_HW, rows_HW.T, rows_HW, 0)


@pytest.mark.parametrize("seed", range(40))
def test_a_zoom_shows_images_and_labels_at_the_same_places_larger_or_smaller(seed):
    """A step on a ramp is the size of a pixel; antialiasing keeps it within a few tenths."""
    side = 24
    result = Augmentation("none", crop_size_px=side, zoom=1.0)(make_ramp(60), generator(seed))
    image_CHW = result.before_CHW
    assert image_CHW.shape == (3, side, side)
    assert torch.equal(image_CHW, result.after_CHW)
    steps_W = image_CHW[0, :, 3:-3].diff(dim=-1)
    step = float(steps_W.mean())
    assert 0.49 < step < 2.01
    assert torch.allclose(steps_W, torch.full_like(steps_W, step), atol=0.25)
    # The nearest pixel is at most half a pixel away, and the antialiasing adds a little.
    inner = (slice(3, -3), slice(3, -3))
    assert float((image_CHW[1][inner] - result.before_labels_HW[inner]).abs().max()) <= 0.7
    assert float((image_CHW[0][inner] - result.after_labels_HW[inner]).abs().max()) <= 0.7
    assert torch.equal(result.change_HW, result.before_labels_HW)


def test_zooms_are_enlargements_half_of_the_time_and_never_wider_than_the_image():
    def find_step(seed: int, width: int) -> float:
        result = Augmentation("none", crop_size_px=20, zoom=1.0)(make_ramp(width), generator(seed))
        return float(result.before_CHW[0, :, 3:-3].diff(dim=-1).mean())

    wide = [find_step(seed, 60) for seed in range(200)]
    assert 70 < sum(step < 1 for step in wide) < 130
    assert min(wide) < 0.55
    assert max(wide) > 1.9
    narrow = [find_step(seed, 25) for seed in range(200)]
    assert max(narrow) == pytest.approx(25 / 20, abs=0.02)


def test_a_reduction_averages_and_keeps_bytes():
    stripes_W = torch.tensor([0, 255], dtype=torch.uint8).repeat(60)
    image_CHW = stripes_W.expand(1, 120, 120).contiguous()
    labels_HW = torch.zeros(120, 120, dtype=torch.int64)
    sample = PairSample(image_CHW, image_CHW, labels_HW, labels_HW, labels_HW, 0)
    augmentation = Augmentation("none", crop_size_px=30, zoom=1.0)
    spreads = []
    for seed in range(60):
        before_CHW = augmentation(sample, generator(seed)).before_CHW
        assert before_CHW.dtype == torch.uint8
        spreads.append(float(before_CHW.float().std()))
    # Two columns averaged are grey; a nearest pixel would still be black or white.
    assert min(spreads) < 40


def test_quarter_turns_of_a_shape_that_is_not_square_keep_its_shape():
    sample = make_sample(3, 5)
    seen = set()
    for seed in range(100):
        result = Augmentation("d4")(sample, generator(seed))
        assert result.before_CHW.shape == (3, 3, 5)
        seen.add(tuple(result.before_labels_HW.flatten().tolist()))
    assert len(seen) == 4


def test_results_are_contiguous_copies():
    sample = make_sample(4, 4)
    before = sample.before_CHW.clone()
    for seed in range(12):
        result = Augmentation("d4", crop_size_px=3, brightness=0.1)(sample, generator(seed))
        assert all(tensor.is_contiguous() for tensor in result[:4])
    assert torch.equal(sample.before_CHW, before)


def test_an_image_smaller_than_the_crop_is_an_error_with_both_sizes():
    with pytest.raises(DataError, match="4 x 9 pixels, and the crop 5 x 5"):
        Augmentation(crop_size_px=5)(make_sample(4, 9), generator())


@pytest.mark.parametrize(
    "fields",
    [
        {"views": "all"},
        {"crop_size_px": 0},
        {"brightness": -0.1},
        {"colour": 1.5},
        {"crop_size_px": 8, "zoom": 1.1},
        {"zoom": 0.2},
    ],
)
def test_fields_out_of_range(fields):
    with pytest.raises(ArgumentError):
        Augmentation(**fields)


@pytest.mark.parametrize("seed", range(5))
def test_contrast_is_about_the_mean_of_all_bands_so_that_hues_fade_or_glow_too(seed):
    """Bands that are flat each have no contrast of their own, only among each other."""
    bands_C = torch.tensor([40.0, 90.0, 200.0])
    image_CHW = bands_C[:, None, None].expand(3, 4, 6)
    labels_HW = torch.zeros(4, 6, dtype=torch.int64)
    sample = PairSample(image_CHW, image_CHW, labels_HW, labels_HW, labels_HW, 0)
    result = Augmentation("none", contrast=0.5)(sample, generator(seed))
    for part_CHW in (result.before_CHW, result.after_CHW):
        factors_C = (part_CHW[:, 0, 0] - 110) / (bands_C - 110)
        assert torch.allclose(factors_C, factors_C[0].expand(3), rtol=1e-4)
        assert abs(factors_C[0] - 1) > 1e-3
        assert part_CHW.mean().item() == pytest.approx(110, rel=1e-5)
