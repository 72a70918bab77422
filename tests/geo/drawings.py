"""Maps of patches that are hard to trace: noise, checkerboards, rings, spirals and combs."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def draw_maps(draw, max_size=28):
    """(H, W) uint8 maps of 0 and a few values."""
    height, width = draw(st.integers(1, max_size)), draw(st.integers(1, max_size))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([_noise, _blocks, _checkerboard, _rings, _spiral, _comb]))
    values_HW = kind(random, height, width).astype(np.uint8)
    if draw(st.booleans()):
        values_HW[random.random((height, width)) < 0.1] = 0
    return values_HW


def _noise(random, height, width):
    values_HW = random.integers(1, random.integers(2, 5), (height, width))
    return values_HW * (random.random((height, width)) < random.choice([0.3, 0.6, 0.7, 0.95]))


def _blocks(random, height, width):
    coarse_HW = _noise(random, -(-height // 4), -(-width // 4))
    return np.kron(coarse_HW, np.ones((4, 4), int))[:height, :width]


def _checkerboard(random, height, width):
    return np.add.outer(np.arange(height), np.arange(width)) % 2 * 9 + random.integers(0, 2)


def _rings(random, height, width):
    rows, columns = np.arange(height), np.arange(width)
    depth_HW = np.minimum.outer(np.minimum(rows, rows[::-1]), np.minimum(columns, columns[::-1]))
    return depth_HW // random.integers(1, 4) % 2 * 9


def _comb(random, height, width):
    values_HW = np.zeros((height, width), int)
    values_HW[:, ::2] = 9
    values_HW[random.integers(0, height)] = 9
    return values_HW


def _spiral(random, height, width):
    """One line that winds inwards with a gap of a pixel, from corner to middle."""
    values_HW = np.zeros((height, width), int)
    row, column, down, right = 0, 0, 0, 1
    values_HW[0, 0] = 9

    def is_free(steps):
        r, c = row + steps * down, column + steps * right
        return not (0 <= r < height and 0 <= c < width) or values_HW[r, c] == 0

    for _ in range(height * width):
        inside = 0 <= row + down < height and 0 <= column + right < width
        if not (inside and is_free(1) and is_free(2)):
            down, right = right, -down
            inside = 0 <= row + down < height and 0 <= column + right < width
            if not (inside and is_free(1) and is_free(2)):
                break
        row, column = row + down, column + right
        values_HW[row, column] = 9
    return values_HW if random.integers(0, 2) else 9 - values_HW
