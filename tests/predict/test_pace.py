import time

import pytest

from terradelta.predict.pace import Pace, describe_runs


def run(pace, blocks, seconds_per_view, clock):
    """Answer equal blocks on a made-up clock and return the views each had."""
    views = []
    for number in range(blocks):
        views.append(pace.choose(10, 10 * (blocks - number)))
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


def test_runs_of_views_are_told_by_first_and_last():
    assert describe_runs([1, 6, 6, 2]) == [
        {"views": 1, "first": 1, "last": 1},
        {"views": 6, "first": 2, "last": 3},
        {"views": 2, "first": 4, "last": 4},
    ]
