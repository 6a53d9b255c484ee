"""The decisions of the pool, and the walk in one process. Real ranks are in test_mpi.py."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslandscape import scheduler
from losslandscape.forecast import simulate
from losslandscape.interruption import SIGNALS, Interrupted
from losslandscape.ranks import World

SHAPES = st.one_of(st.tuples(st.integers(1, 60)), st.tuples(st.integers(1, 30), st.integers(1, 30)))


@given(st.integers(0, 200), st.integers(1, 40))
def test_slices_are_contiguous_near_equal_and_the_first_are_larger(points, ranks):
    slices = scheduler.split_inds(range(points), ranks)
    sizes = [len(s) for s in slices]
    assert np.concatenate(slices).tolist() == list(range(points))
    assert sizes == sorted(sizes, reverse=True) and max(sizes) - min(sizes) <= 1


def test_nine_points_on_four_ranks_are_3_2_2_2():
    assert [len(s) for s in scheduler.split_inds(range(9), 4)] == [3, 2, 2, 2]


@given(SHAPES)
def test_coarse_to_fine_is_a_permutation_that_begins_with_the_centre(shape):
    levels = scheduler.coarse_to_fine(shape)
    assert sorted(np.concatenate(levels).tolist()) == list(range(int(np.prod(shape))))
    centre = int(np.ravel_multi_index([n // 2 for n in shape], shape))
    assert centre in levels[0]


@given(st.integers(2, 90), st.integers(2, 90))
def test_a_level_and_those_before_it_are_a_lattice(ny, nx):
    """So that a picture of the whole plane can be drawn whenever a level is done."""
    seen = np.zeros((ny, nx), bool)
    for level in scheduler.coarse_to_fine((ny, nx)):
        seen.flat[level] = True
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert seen[np.ix_(rows, columns)].all() and seen.sum() == len(rows) * len(columns)
        assert len(set(np.diff(rows))) <= 1 and len(set(np.diff(columns))) <= 1


def test_the_first_level_of_51_by_51_is_2_percent_of_the_work():
    assert len(scheduler.coarse_to_fine((51, 51))[0]) == 49


def outcome(seconds, points):
    """(end, [points of each rank]) of ranks with these seconds per point and no traffic."""
    levels = points if isinstance(points, list) else [range(points)]
    forecast = simulate(levels, seconds)
    return forecast.seconds, forecast.points


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.integers(0, 150))
def test_every_point_is_handed_out_exactly_once(seconds, points):
    _, taken = outcome(seconds, points)
    assert sorted(p for rank in taken for p in rank) == list(range(points))


@given(st.integers(1, 12), st.integers(1, 300))
def test_equal_ranks_take_exactly_their_slices(ranks, points):
    _, taken = outcome([1.0] * ranks, points)
    sizes = [len(s) for s in scheduler.split_inds(range(points), ranks)]
    assert sorted(map(len, taken), reverse=True) == sizes


@settings(deadline=None)
@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=8), st.integers(20, 200))
def test_unequal_ranks_end_within_5_percent_and_one_point_of_the_ideal(seconds, points):
    end, _ = outcome(seconds, points)
    ideal = points / sum(1 / s for s in seconds)
    assert end <= 1.05 * ideal + max(seconds) + 1e-9


def test_four_ranks_of_which_one_is_three_times_slower():
    end, taken = outcome([1.0, 1.0, 3.0, 1.0], 200)
    assert end <= 1.05 * 200 / (3 + 1 / 3) + 1.0
    assert len(taken[2]) < min(len(taken[r]) for r in (0, 1, 3)) / 2


def test_levels_are_handed_out_in_order():
    _, taken = outcome([1.0, 2.0], [range(0, 10), range(10, 30)])
    for points in taken:
        assert points == sorted(points, key=lambda p: p >= 10)


def test_walk_measures_every_point_once_and_keeps_saving():
    seen, recorded, saves = [], {}, []

    def measure(point, idle):
        seen.append(point)
        idle()
        return point * 10

    scheduler.walk(World(), [[3, 1], [2]], measure, recorded.__setitem__, lambda: saves.append(len(recorded)))
    assert seen == [3, 1, 2] and recorded == {3: 30, 1: 10, 2: 20} and saves


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_the_walk_between_two_batches(name):
    recorded = {}

    def measure(point, idle):
        if point == 2:
            os.kill(os.getpid(), SIGNALS[name])
            idle()
            raise AssertionError("the walk went on")
        return point

    with pytest.raises(Interrupted) as caught:
        scheduler.walk(World(), [[0, 1, 2, 3]], measure, recorded.__setitem__, lambda: None)
    assert caught.value.code == 128 + SIGNALS[name] and recorded == {0: 0, 1: 1}
    assert signal.getsignal(SIGNALS[name]) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_long_batch_keeps_the_others_and_the_disk_waiting_no_longer_than_a_tick(monkeypatch):
    monkeypatch.setattr(scheduler, "TICK", 0.05)
    saves = []

    def measure(point, idle):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # never calls idle()
            pass

    start = time.monotonic()
    scheduler.walk(World(), [[0, 1]], measure, lambda *_: None, lambda: saves.append(time.monotonic()))
    assert max(np.diff([start, *saves])) < 0.25 and len(saves) > 6
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_signal_does_not_wait_for_a_batch_whatever_a_network_catches(monkeypatch):
    monkeypatch.setattr(scheduler, "TICK", 0.05)
    recorded = {}

    def measure(point, idle):
        os.kill(os.getpid(), signal.SIGTERM) if point else None
        while point:
            try:
                time.sleep(30)
            except Exception:
                pass
        return point

    start = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM"):
        scheduler.walk(World(), [[0, 1, 2]], measure, recorded.__setitem__, lambda: None)
    assert recorded == {0: 0} and time.monotonic() - start < 5


def test_a_failure_to_save_within_a_batch_is_raised(monkeypatch):
    monkeypatch.setattr(scheduler, "TICK", 0.05)

    def save():
        raise ValueError("planned")

    with pytest.raises(ValueError, match="planned"):
        scheduler.walk(World(), [[0]], lambda point, idle: time.sleep(30), lambda *_: None, save)


def test_an_alarm_that_the_caller_has_set_is_left_alone():
    rung = []
    old = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        recorded = {}
        scheduler.walk(World(), [[0, 1]], lambda point, idle: time.sleep(0.1), recorded.__setitem__, lambda: None)
        assert rung == [1] and len(recorded) == 2
    finally:
        signal.signal(signal.SIGALRM, old)


def test_it_walks_in_a_thread_too_where_there_are_no_signals():
    recorded = {}
    thread = threading.Thread(target=scheduler.walk, args=(
        World(), [[0, 1]], lambda point, idle: point, recorded.__setitem__, lambda: None))
    thread.start()
    thread.join()
    assert recorded == {0: 0, 1: 1}
