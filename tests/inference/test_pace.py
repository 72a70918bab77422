import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradelta.inference.pace import Pace, describe_runs
from terradelta.prediction.records import ViewsRecord


def run(pace, blocks, seconds_per_view, clock):
    """Answer equal blocks on a made-up clock and return the views each had."""
    views = []
    for number in range(blocks):
        views.append(pace.choose(10 * (blocks - number)))
        clock[0] += views[-1] * seconds_per_view(number)
        pace.learn(10, views[-1], views[-1] * seconds_per_view(number))
    return views


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_deadline_every_block_has_all_views(clock):
    assert run(Pace(6), 5, lambda number: 1e9, clock) == [6] * 5


def test_time_enough_gives_all_views_after_the_first_look(clock):
    assert run(Pace(6, 2000), 100, lambda number: 1.0, clock) == [1, *[6] * 99]


def test_time_for_some_is_used_and_not_overdrawn(clock):
    views = run(Pace(6, 1300), 100, lambda number: 1.0, clock)
    assert clock[0] <= 1300
    assert clock[0] >= 1290, "time that was given is used"
    assert set(views) <= {1, 2, 3, 4}


def test_a_machine_that_slows_down_drops_views_and_still_ends_in_time(clock):
    views = run(Pace(4, 1200), 50, lambda number: 1.0 if number < 20 else 2.5, clock)
    assert max(views[:20]) == 4
    assert max(views[25:]) < 4
    assert clock[0] <= 1210


def test_with_no_time_at_all_every_block_still_has_one_view(clock):
    assert run(Pace(6, 900), 5, lambda number: 1.0, clock) == [1] * 5


def test_runs_of_views_are_named_by_first_and_last():
    assert describe_runs([1, 6, 6, 2]) == (
        ViewsRecord(1, first=1, last=1),
        ViewsRecord(6, first=2, last=3),
        ViewsRecord(2, first=4, last=4),
    )


@given(
    blocks=st.lists(st.integers(1, 500), min_size=1, max_size=30),
    spare=st.floats(0, 8),
    num_views=st.integers(2, 8),
)
def test_at_a_steady_speed_blocks_of_any_size_end_in_time_and_use_it(blocks, spare, num_views):
    """Seconds are pixels times views; there is time for `1 + spare` views of everything."""
    now, seconds = 1000.0, sum(blocks) * (1 + spare)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        pace, left = Pace(num_views, now + seconds), sum(blocks)
        for number, pixels in enumerate(blocks):
            views, seconds_left = pace.choose(left), 1000 + seconds - now
            if number > 0 and views < num_views:
                assert (views + 1) * left > seconds_left - 1e-6, "time that was given is used"
            pace.learn(pixels, views, pixels * views)
            now, left = now + pixels * views, left - pixels
            assert 1000 + seconds - now >= left - 1e-6, "one view of the rest stays affordable"
    assert now <= 1000 + seconds + 1e-6


def estimate_seconds(pace):
    """The seconds that a pixel of a view is believed to take, read off the views it grants."""
    granted = pace.choose(1)
    assert 1000 < granted < pace.num_views, "fine enough to tell"
    return (pace.deadline - time.monotonic()) / granted


def test_one_odd_block_counts_less_than_all_before_it_and_a_lasting_change_is_learned(clock):
    pace = Pace(10**9, clock[0] + 10**6)
    for pixels in (7, 300, 20):
        pace.learn(pixels, 2, 2.0 * pixels * 2)
    assert estimate_seconds(pace) == pytest.approx(2, rel=1e-3)
    pace.learn(50, 3, 4.0 * 50 * 3)
    assert 2 < estimate_seconds(pace) < 3, "nearer to the past than to the last block"
    for _ in range(10):
        pace.learn(50, 3, 4.0 * 50 * 3)
    assert estimate_seconds(pace) == pytest.approx(4, rel=0.05)
