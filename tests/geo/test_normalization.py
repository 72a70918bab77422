"""A known distortion of the light is undone over what did not change."""

import numpy as np
import pytest

from terradelta.errors import RasterError
from terradelta.fields import read_fields
from terradelta.geo.normalization import LightMatch, fit_light

SIDE_PX = 200
UINT8 = np.dtype(np.uint8)


@pytest.fixture(scope="module")
def drawn():
    """A picture, itself with a fifth of it changed, and where it did not change."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] / 9
    waves = [np.sin(rows * a + columns * b) for a, b in ((1, 2), (2, 1), (1, -1))]
    before_CHW = 110 + 60 * np.stack(waves) + random.normal(0, 12, (3, SIDE_PX, SIDE_PX))
    changed_HW = np.zeros((SIDE_PX, SIDE_PX), bool)
    changed_HW[:40] = True
    after_CHW = before_CHW.copy()
    # New roofs: bright, and nothing like what was there.
    after_CHW[:, changed_HW] = random.normal(200, 15, (3, int(changed_HW.sum())))
    before_CHW, after_CHW = (part.clip(10, 245).round() for part in (before_CHW, after_CHW))
    return before_CHW.astype(np.uint8), after_CHW, ~changed_HW


def flat(image_CHW):
    return image_CHW.reshape(len(image_CHW), -1)


def match(drawn, distorted_CHW, kind):
    """Return mean and largest of most errors of unchanged pixels, in grey levels."""
    before_CHW, _, unchanged_HW = drawn
    light = fit_light(flat(before_CHW), flat(distorted_CHW), kind)
    assert read_fields(LightMatch, light.to_dict()) == light
    matched_CHW = light.apply(distorted_CHW, UINT8).astype(float)
    errors = np.abs(matched_CHW - before_CHW)[:, unchanged_HW]
    return errors.mean(), np.percentile(errors, 99)


@pytest.mark.parametrize("kind", ["linear", "histogram"])
@pytest.mark.parametrize(("gain", "offset"), [(0.5, 70), (0.8, -5), (1.0, 40), (1.0, 0)])
def test_gain_and_offset_are_undone(drawn, kind, gain, offset):
    distorted_CHW = (drawn[1] * gain + offset).round().clip(0, 255).astype(np.uint8)
    mean, most = match(drawn, distorted_CHW, kind)
    assert mean < 1
    assert most <= 2


def test_bands_are_matched_each_by_itself(drawn):
    gains = np.array([0.5, 0.9, 1.1])[:, None, None]
    distorted_CHW = (drawn[1] * gains + 5).round().clip(0, 255).astype(np.uint8)
    mean, most = match(drawn, distorted_CHW, "linear")
    assert mean < 1
    assert most <= 3


def test_a_curve_takes_a_table(drawn):
    curved_CHW = (255 * (drawn[1] / 255) ** 0.5).round().astype(np.uint8)
    assert match(drawn, curved_CHW, "histogram")[0] < 1.5
    assert match(drawn, curved_CHW, "linear")[0] > 2


def test_noise_does_not_flatten_the_contrast(drawn):
    before_CHW, after_CHW, _ = drawn
    noise = np.random.default_rng(1).normal(0, 15, after_CHW.shape)
    light = fit_light(flat(before_CHW), flat(after_CHW * 0.5 + noise * 0.5), "linear")
    assert [band.gain for band in light.bands] == pytest.approx([2, 2, 2], rel=0.12)


def test_depths_may_differ(drawn):
    before_CHW, after_CHW, unchanged_HW = drawn
    deep_CHW = (after_CHW * 16 + 1000).astype(np.uint16)
    light = fit_light(flat(before_CHW), flat(deep_CHW), "linear")
    matched_CHW = light.apply(deep_CHW, UINT8)
    assert matched_CHW.dtype == np.float32
    assert np.abs(matched_CHW - before_CHW)[:, unchanged_HW].max() < 1


@pytest.mark.parametrize("kind", ["linear", "histogram"])
def test_an_identical_pair_stays_as_it_is(drawn, kind):
    before_CHW = drawn[0]
    light = fit_light(flat(before_CHW), flat(before_CHW), kind)
    assert light.is_identity
    assert light.apply(before_CHW, UINT8) is before_CHW


def test_flat_bands_get_an_offset_only(drawn):
    before_CHW = drawn[0].copy()
    before_CHW[1] = 50
    after_CHW = before_CHW.copy()
    after_CHW[1] = 90
    after_CHW[0] //= 2
    light = fit_light(flat(before_CHW), flat(after_CHW), "linear")
    assert light.bands[1].gain == 1
    assert (light.apply(after_CHW, UINT8)[1] == 50).all()


def test_pixels_must_be_there():
    few_CN = np.ones((3, 5), np.uint8)
    with pytest.raises(RasterError, match="5 of the sampled pixels"):
        fit_light(few_CN, few_CN, "linear")
