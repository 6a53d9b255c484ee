"""Ranks that stand still: who is taken for one, and what becomes of the job."""

import os
import re
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from losslandscape.scheduler import Pool
from losslandscape.silence import SILENT_POINTS, Silence
from tests.jobs import SECONDS, Walk

# ---------------------------------------------------------------- who stands still


def test_a_rank_without_a_sign_is_silent_whatever_its_points_take():
    silence = Silence(2, 0.0)
    silence.reported(1, 1000.0, 10.0)
    assert silence.seconds(1, 69.0) == 0
    assert silence.seconds(1, 71.0) == pytest.approx(61)
    silence.heard(1, 72.0)
    assert silence.seconds(1, 73.0) == 0


@given(st.floats(0.01, 1000), st.floats(1, 100))
def test_a_rank_that_is_alive_is_given_several_of_its_usual_points(usual, at_least):
    silence = Silence(1, 0.0)
    silence.reported(0, usual, 0.0)
    limit = max(at_least, SILENT_POINTS * usual)
    for now in (0.5 * limit, 0.99 * limit, 1.01 * limit):
        silence.heard(0, now)
        assert (silence.seconds(0, now, at_least) > 0) == (now > limit)


def test_a_first_point_may_take_as_long_as_it_likes_while_nobody_knows_better():
    silence = Silence(2, 0.0)
    for now in range(0, 10_000, 10):
        silence.heard(1, now)
    assert silence.seconds(1, 10_000) == 0
    silence.reported(0, 3.0, 10_000)  # others take 3 s
    assert silence.seconds(1, 10_001) > 9_000


def test_time_in_which_the_listener_was_away_does_not_count():
    silence = Silence(3, 0.0)
    silence.pause(3600.0)
    assert silence.seconds(1, 3610.0) == 0


# ---------------------------------------------------------------- whose points they are

POINTS = range(30)


EVENTS = st.tuples(st.sampled_from(["take", "report", "stop", "wake", "late"]), st.integers(0, 3))


@given(st.lists(EVENTS, max_size=300))
def test_every_point_is_recorded_once_whoever_stops_and_wakes(events):
    """Ranks take points, stop, wake and report late, in any order; rank 0 does the rest in the end."""
    pool = Pool([POINTS], 4)
    held = {rank: [] for rank in range(4)}  # as the ranks see it
    stopped, recorded = set(), []
    now = 0.0

    def report(rank):
        point = held[rank].pop(0)
        if pool.done(rank, point, 1.0, now):
            recorded.append(point)

    for event, rank in events:
        now += 1.0
        if event == "take" and rank not in stopped:
            point = pool.take(rank, now)
            if point is not None:
                held[rank].append(point)
        elif event == "report" and held[rank] and rank not in stopped:
            report(rank)
        elif event == "stop" and rank > 0 and rank not in stopped and held[rank]:
            stopped.add(rank)
            pool.take_back(rank)
        elif event == "late" and rank in stopped and held[rank]:
            report(rank)
        elif event == "wake" and rank in stopped:
            stopped.remove(rank)
            pool.welcome_back(rank)
            held[rank].clear()

    for rank in (1, 2, 3):  # nobody reports any more
        if rank not in stopped:
            pool.take_back(rank)
    while pool.open:
        while held[0]:
            report(0)
        point = pool.take(0, now)
        if point is not None:
            held[0].append(point)
    assert sorted(recorded) == list(POINTS) and pool.remaining == 0


# ---------------------------------------------------------------- what becomes of the job

QUICK = {"silent": 1, "seconds": 0.03}


@pytest.mark.parametrize("launcher", ["mpich", "openmpi"])
def test_with_patience_the_others_finish_without_a_stopped_rank(tmp_path, launcher):
    walk = Walk(tmp_path, launcher, mode="stop", victim=1, patience=2, walks=2, **QUICK)
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()
    assert "rank 1 on " in walk.said() and "is given up" in walk.said() and "finished" in walk.said()


def test_a_rank_that_was_stopped_for_a_while_is_taken_back(tmp_path):
    walk = Walk(tmp_path, points=150, mode="stop", victim=2, **QUICK)
    walk.wait_until_measuring()
    wait_for(walk, "rank 2 on .* has been silent for .*: the others take over its points")
    os.kill(walk.pids()[2], signal.SIGCONT)
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()
    assert "is back" in walk.said() and walk.codes() == dict.fromkeys(range(3), 0)


def test_without_patience_all_points_are_done_and_the_stopped_rank_is_told(tmp_path):
    walk = Walk(tmp_path, mode="stop", victim=1, **QUICK)
    wait_for(walk, "waiting for rank 1 on ")
    walk.assert_complete()
    assert walk.process.poll() is None
    os.kill(walk.pids()[1], signal.SIGCONT)
    assert walk.finish(SECONDS) == 0, walk.said()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_lives_but_gets_nowhere_is_done_without(tmp_path, victim):
    """As one that waits for a data loader's process; rank 0 itself, too."""
    walk = Walk(tmp_path, mode="stick", victim=victim, **QUICK)
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()
    assert walk.codes() == dict.fromkeys(range(3), 0)


def test_a_job_whose_rank_0_stands_still_ends_with_patience(tmp_path):
    """Nobody else can write the file."""
    walk = Walk(tmp_path, mode="stop", victim=0, patience=2, abort_after=1, **QUICK)
    assert walk.finish(40) not in (0, 2), walk.said()
    assert "rank 0 on" in walk.said() and "the same command goes on from what is saved" in walk.said()


def test_a_stopped_rank_does_not_keep_a_job_from_ending_in_order(tmp_path):
    walk = Walk(tmp_path, points=1000, seconds=0.05)
    walk.wait_until_measuring()
    walk.signal("SIGSTOP", 2)
    walk.signal("SIGUSR1", 1)
    assert walk.finish(SECONDS) == 138 and walk.codes() == dict.fromkeys(range(3), 138), walk.said()


def wait_for(walk, words, seconds=30):
    """Until the job has said so."""

    end = time.monotonic() + seconds
    while not re.search(words, walk.said()):
        assert walk.process.poll() is None and time.monotonic() < end, walk.said()
        time.sleep(0.05)
