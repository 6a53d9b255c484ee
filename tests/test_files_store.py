"""Laws of the surface file of a running job: what was saved stays, in time, and nothing else is mixed in."""

import os
import re
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from losslandscape import scheduler
from losslandscape.errors import InputError
from losslandscape.files import layouts
from losslandscape.files import store as store_module
from losslandscape.files.grid import Grid
from losslandscape.files.journal import Journal
from losslandscape.files.layouts import read_surface
from tests.stores import MADE_FROM, NAMES, crash, files_of_at_most, hidden, store, values_of

# ---------------------------------------------------------------- results


def test_what_was_recorded_is_in_the_file_after_close_and_is_not_missing_any_more(tmp_path):
    first = store(tmp_path / "s.h5")
    assert first.missing().tolist() == list(range(6))
    for point in (4, 1):
        first.record(point, values_of(point))
    first.close()
    assert hidden(tmp_path) == []
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [0, 2, 3, 5] and again.progress() == "2 of 6 points"
    assert again.surface.values["train_acc"][1, 1] == 41
    again.close()


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -5.0])
def test_any_number_is_a_result(tmp_path, value):
    first = store(tmp_path / "s.h5")
    first.record(2, dict.fromkeys(NAMES, value))
    first.close()
    again = store(tmp_path / "s.h5")
    assert 2 not in again.missing() and len(again.missing()) == 5
    np.testing.assert_equal(again.surface.values["train_loss"][0, 2], value)
    again.close()


def test_a_point_is_missing_until_all_its_values_are_there(tmp_path):
    first = store(tmp_path / "s.h5", NAMES[:1])
    for point in range(6):
        first.record(point, {"train_loss": 1.0})
    first.close()
    both = store(tmp_path / "s.h5")
    assert len(both.missing()) == 6 and both.missing(["train_loss"]).size == 0
    both.close()


def test_a_complete_file_is_neither_locked_nor_written(tmp_path):
    first = store(tmp_path / "s.h5")
    for point in range(6):
        first.record(point, values_of(point))
    first.close()
    before = (tmp_path / "s.h5").stat()
    again = store(tmp_path / "s.h5")
    assert hidden(tmp_path) == []
    again.close()
    after = (tmp_path / "s.h5").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_results_are_written_when_it_is_time_and_not_for_each_point(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    running = store(tmp_path / "s.h5")
    running.record(0, values_of(0))
    running.save()
    assert not read_surface(tmp_path / "s.h5").computed["train_loss"].any()
    clock[0] += 5
    running.save()
    assert read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 1
    running.close()


def test_a_full_disk_is_said_once_and_no_result_is_lost(tmp_path, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    running = store(tmp_path / "s.h5")
    before = (tmp_path / "s.h5").read_bytes()
    running.record(3, values_of(3))
    with files_of_at_most(1000):
        for _ in range(3):
            clock[0] += 60
            running.save()
    assert capsys.readouterr().err.count("warning: ") == 1
    assert (tmp_path / "s.h5").read_bytes() == before
    clock[0] += 60
    running.save()
    assert read_surface(tmp_path / "s.h5").values["train_loss"][1, 0] == 30
    running.close()
    assert hidden(tmp_path) == []


def test_no_room_for_the_first_file_leaves_nothing_behind(tmp_path):
    for size in (10, 1000):  # too small for the lock; for the surface
        with files_of_at_most(size), pytest.raises(InputError, match="make room"):
            store(tmp_path / "s.h5")
        assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- in time, and at what cost


@pytest.mark.parametrize("whole, append", [
    (0.02, 0.005),  # 51x51 points
    (0.04, 0.005),  # 251x251
    (0.2, 0.005),  # 1001x1001
    (3.0, 0.01),  # ten million points
    (30.0, 0.02),
])
def test_results_are_on_the_disk_within_5_s_at_1_percent_of_the_time(tmp_path, monkeypatch, whole, append):
    """Whatever a write of the file (`whole` seconds) and one of the journal (`append`) take."""
    clock, writing, waiting = [1000.0], [0.0], {}  # waiting: point -> when it was recorded

    def takes(seconds):
        clock[0] += seconds
        writing[0] += seconds

    def write(path, surface):
        takes(whole)
        waiting.clear()

    def to_journal(journal, results):
        takes(append)
        assert [point for point, _ in results] == list(waiting)
        waiting.clear()
        journal.append_seconds = append

    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(layouts, "write_surface", write)
    monkeypatch.setattr(Journal, "append", to_journal)
    running = store(tmp_path / "s.h5", grid=Grid.parse("-1:1:60", "-1:1:60"))
    start, writing[0] = clock[0], 0.0  # the first file is the price of a start
    for point in range(3600):
        running.record(point, values_of(point))
        waiting[point] = clock[0]
        for _ in range(5):
            clock[0] += 0.5  # a batch
            running.save()
            assert clock[0] - min(waiting.values(), default=clock[0]) <= 5
    assert 0 < writing[0] <= 0.0101 * (clock[0] - start)
    running.close()


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        act = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, act=act, name=name: (events.append(name), act(*args))[1])
    store(tmp_path / "s.h5").close()
    assert events == ["fsync", "replace", "fsync"]  # the file, its name, the folder


# ---------------------------------------------------------------- what does not belong is refused


@pytest.mark.parametrize("change, words", [
    ({"loss": "mse"}, "--loss_name (crossentropy in the file, mse now)"),
    ({"checkpoint": "b" * 64}, "contents of --model_file (aaaaaaaaaa in the file, bbbbbbbbbb now)"),
])
def test_a_file_made_from_something_else_is_refused_with_the_difference_and_kept(tmp_path, change, words):
    store(tmp_path / "s.h5").close()
    before = (tmp_path / "s.h5").read_bytes()
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        store(tmp_path / "s.h5", provenance=MADE_FROM | change)
    assert "give another file with --surf_file" in str(caught.value)
    assert (tmp_path / "s.h5").read_bytes() == before and hidden(tmp_path) == []


@pytest.mark.parametrize("other", ["-1:1:4", "-1:2:3"])
def test_another_grid_is_refused(tmp_path, other):
    store(tmp_path / "s.h5").close()
    with pytest.raises(InputError, match="expected the grid"):
        store(tmp_path / "s.h5", grid=Grid.parse(other, "-1:1:2"))


# ---------------------------------------------------------------- any order of events


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Points are assigned, reported, saved; the job crashes and is started again with another number of ranks."""

    @initialize(nx=st.integers(1, 6), ny=st.one_of(st.none(), st.integers(1, 6)), ranks=st.integers(1, 5))
    def begin(self, nx, ny, ranks):
        self.no_waiting = mock.patch.object(os, "fsync")  # for the disk: no power fails here
        self.no_waiting.start()
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "s.h5")
        self.grid = Grid(np.linspace(-1, 1, nx), None if ny is None else np.linspace(-1, 1, ny))
        self.saved, self.store = set(), None
        self.start(ranks)

    def start(self, ranks):
        self.store = store(self.path, grid=self.grid)
        missing = set(self.store.missing().tolist())
        assert missing == set(range(self.grid.size)) - self.saved  # all that was saved, and nothing else, is there
        levels = [[p for p in level.tolist() if p in missing] for level in scheduler.coarse_to_fine(self.grid.shape)]
        self.pool = scheduler.Pool(levels, ranks)
        self.held = [[] for _ in range(ranks)]
        self.assigned, self.reported, self.now = set(), set(), 0.0

    @rule(rank=st.integers(0, 4))
    def assign(self, rank):
        rank %= len(self.held)
        self.now += 1
        point = self.pool.take(rank, self.now)
        if point is not None:
            assert point not in self.assigned and point not in self.saved
            self.assigned.add(point)
            self.held[rank].append(point)

    @precondition(lambda self: any(self.held))
    @rule(rank=st.integers(0, 4), seconds=st.floats(0.01, 10))
    def report(self, rank, seconds):
        busy = [r for r, points in enumerate(self.held) if points]
        rank = busy[rank % len(busy)]
        point = self.held[rank].pop(0)
        self.now += seconds
        self.store.record(point, values_of(point))
        self.pool.done(rank, point, seconds, self.now)
        self.reported.add(point)

    @rule()
    def save(self):
        self.store.save(now=True)
        self.saved |= self.reported

    @rule()
    def save_to_the_journal(self):
        if self.store._unsaved:
            self.store._append()
            self.saved |= self.reported

    @rule(ranks=st.integers(1, 5), torn=st.binary(max_size=20))
    def crash_and_resume(self, ranks, torn):
        crash(self.folder)
        if os.path.exists(self.store._journal.path):  # in the middle of an append
            with open(self.store._journal.path, "ab") as f:
                f.write(torn)
        self.start(ranks)

    @rule(ranks=st.integers(1, 5))
    def end_early_and_resume(self, ranks):
        self.store.close()
        self.saved |= self.reported
        assert hidden(self.folder) == []
        self.start(ranks)

    @invariant()
    def the_file_holds_what_was_saved(self):
        if getattr(self, "store", None):
            found = read_surface(self.path)
            done = set(np.flatnonzero(found.computed["train_loss"]).tolist())
            assert self.saved <= done | {point for point, _ in Journal(self.path, found).read()}

    def teardown(self):
        if not getattr(self, "store", None):
            return
        self.no_waiting.stop()
        while self.pool.remaining or any(self.held):
            for rank in range(len(self.held)):
                self.assign(rank)
            self.report(0, 1.0)
        assert self.assigned == self.reported
        self.store.close()
        found = read_surface(self.path)
        for name in NAMES:
            expected = [values_of(point)[name] for point in range(self.grid.size)]
            np.testing.assert_array_equal(found.values[name].ravel(), expected)
            assert found.computed[name].all()
        assert hidden(self.folder) == []
        shutil.rmtree(self.folder)


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
