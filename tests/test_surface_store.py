"""Laws of the surface file of a running job: what was saved stays, what doesn't belong is refused, one job writes."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from unittest import mock

import h5py
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from losslandscape import scheduler
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files import lock as lock_module
from losslandscape.files import store as surface_store
from losslandscape.files.store import Lock, SurfaceStore
from tests.conftest import ROOT
from tests.test_h5_util import files_of_at_most

NAMES = ["train_loss", "train_acc"]
GRID = h5_util.Grid.parse("-1:1:3", "-1:1:2")
MADE_FROM = {"checkpoint": "a" * 64, "loss": "crossentropy"}


def store(path, names=NAMES, grid=GRID, provenance=MADE_FROM):
    return SurfaceStore(str(path), grid, names, "d.h5", provenance)


def values_of(point, names=NAMES):
    return {name: 10.0 * point + i for i, name in enumerate(names)}


def hidden(folder):
    return [name for name in os.listdir(folder) if name.startswith(".")]


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
    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
    running = store(tmp_path / "s.h5")
    running.record(0, values_of(0))
    running.save()
    assert not h5_util.read_surface(tmp_path / "s.h5").computed["train_loss"].any()
    clock[0] += 5
    running.save()
    assert h5_util.read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 1
    running.close()


def test_a_full_disk_is_said_once_and_no_result_is_lost(tmp_path, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
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
    assert h5_util.read_surface(tmp_path / "s.h5").values["train_loss"][1, 0] == 30
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

    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(h5_util, "write_surface", write)
    monkeypatch.setattr(surface_store.Journal, "append", to_journal)
    running = store(tmp_path / "s.h5", grid=h5_util.Grid.parse("-1:1:60", "-1:1:60"))
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


def large(path):
    """A store of a file that takes long to write."""
    running = store(path)
    running._write_seconds = 10.0
    return running


def crash(folder):
    """What a killed process leaves: its lock, whose pid is soon another's, and perhaps a journal."""
    for name in hidden(folder):
        if name.endswith(".lock"):
            path = os.path.join(folder, name)
            with open(path) as f:
                left = json.load(f) | {"process": "1"}
            with open(path, "w") as f:
                json.dump(left, f)


def journal_with(folder, monkeypatch, points=(4, 1, 5)):
    """A killed job of a large file has left these points in its journal, saved one by one; the path of that."""
    clock = [1000.0]
    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
    running = large(folder / "s.h5")
    for point in points:
        running.record(point, values_of(point) | {"train_acc": np.nan})
        clock[0] += 5
        running.save()
    crash(folder)
    assert not h5_util.read_surface(folder / "s.h5").computed["train_loss"].any()
    return next(folder.glob(".*.journal"))


def test_what_a_killed_job_of_a_large_file_has_left_is_taken_up(tmp_path, monkeypatch):
    journal = journal_with(tmp_path, monkeypatch)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [0, 2, 3] and not journal.exists()
    found = h5_util.read_surface(tmp_path / "s.h5")  # from now on it is in the file itself
    assert found.values["train_loss"].flat[5] == 50 and np.isnan(found.values["train_acc"].flat[5])
    again.close()
    assert hidden(tmp_path) == []


def test_the_file_follows_its_journal(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
    running = large(tmp_path / "s.h5")
    for point in range(2):
        running.record(point, values_of(point))
        clock[0] += 5
        running.save()
    assert h5_util.read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 0
    running.record(2, values_of(2))
    clock[0] += 2000  # half a percent of the time
    running.save()
    assert h5_util.read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 3
    assert not list(tmp_path.glob(".*.journal"))
    running.close()


@pytest.mark.parametrize("left", [-1, -3, -40, 120, 5, 0])
def test_of_a_journal_that_was_cut_off_whole_lines_count(tmp_path, monkeypatch, left):
    journal = journal_with(tmp_path, monkeypatch)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:left])
    lines = max(0, whole[:left].count(b"\n") - 1)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == sorted({0, 1, 2, 3, 4, 5} - set([4, 1, 5][:lines]))
    again.close()


@pytest.mark.parametrize("damage", [b"", b"\n", b"\x00" * 100, b"00000000 [1, {}]\n", b"x" * 10000])
def test_a_journal_that_is_none_is_not_read(tmp_path, monkeypatch, damage):
    journal = journal_with(tmp_path, monkeypatch)
    journal.write_bytes(damage)
    again = store(tmp_path / "s.h5")
    assert len(again.missing()) == 6 and not journal.exists()
    again.close()


def test_a_journal_of_something_else_is_not_mixed_in(tmp_path, monkeypatch):
    """The surface was deleted and is made anew: from another checkpoint, on another grid, or just anew."""
    other_grid = h5_util.Grid.parse("-1:2:3", "-1:1:2")
    for change in ({"provenance": MADE_FROM | {"checkpoint": "b" * 64}}, {"grid": other_grid}, {}):
        journal = journal_with(tmp_path, monkeypatch)
        os.unlink(tmp_path / "s.h5")
        if change:
            store(tmp_path / "other.h5", **change).close()
            os.rename(tmp_path / "other.h5", tmp_path / "s.h5")
        again = store(tmp_path / "s.h5", **change)
        assert len(again.missing()) == 6 and not journal.exists()
        again.close()
        os.unlink(tmp_path / "s.h5")


def test_a_full_disk_under_the_journal_loses_nothing(tmp_path, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(surface_store.time, "monotonic", lambda: clock[0])
    running = large(tmp_path / "s.h5")
    for point in range(5):
        running.record(point, values_of(point))
        clock[0] += 5
        size = running._journal._size
        with files_of_at_most(size + 10 if point in (2, 3) else 10**6):
            running.save()
    assert capsys.readouterr().err.count("warning: ") == 1
    crash(tmp_path)
    again = store(tmp_path / "s.h5")
    assert again.missing().tolist() == [5]
    again.close()


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
    assert "or choose another file name" in str(caught.value)
    assert (tmp_path / "s.h5").read_bytes() == before and hidden(tmp_path) == []


@pytest.mark.parametrize("key", surface_store.MATTERS)
def test_everything_that_matters_is_compared(key):
    with pytest.raises(InputError, match=re.escape(surface_store.MATTERS[key])):
        surface_store.refuse_mismatch("s.h5", {key: "one"}, {key: "other"})
    surface_store.refuse_mismatch("s.h5", {key: "one"}, {key: "one", "command": "any"})
    surface_store.refuse_mismatch("s.h5", {}, {key: "one"})  # a file of the original records nothing


@pytest.mark.parametrize("other", ["-1:1:4", "-1:2:3"])
def test_another_grid_is_refused(tmp_path, other):
    store(tmp_path / "s.h5").close()
    with pytest.raises(InputError, match="expected the grid"):
        store(tmp_path / "s.h5", grid=h5_util.Grid.parse(other, "-1:1:2"))


# ---------------------------------------------------------------- one writer

HOLDER = """
import sys
from losslandscape.files import store as surface_store
lock = surface_store.Lock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of s.h5."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "s.h5"], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_job_is_refused_with_host_pid_and_start_of_the_first(tmp_path, holder):
    lock = next(tmp_path.glob(".*.lock"))
    first = json.loads(lock.read_text())
    with pytest.raises(InputError) as caught:
        store(tmp_path / "s.h5")
    for part in (first["host"], str(holder.pid), first["started"], "wait for it or end it"):
        assert part in str(caught.value)
    assert not (tmp_path / "s.h5").exists() and hidden(tmp_path) == [lock.name]


def test_a_released_lock_is_gone_and_another_job_may_have_it(tmp_path, holder):
    holder.communicate("")
    assert os.listdir(tmp_path) == []
    Lock(tmp_path / "s.h5").release()
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_does_not_block(tmp_path, holder):
    holder.kill()
    holder.wait()
    running = store(tmp_path / "s.h5")
    assert len(hidden(tmp_path)) == 1
    running.close()
    assert hidden(tmp_path) == []


def test_a_killed_process_that_nobody_has_waited_for_does_not_block(tmp_path, holder):
    holder.kill()
    while open(f"/proc/{holder.pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    Lock(tmp_path / "s.h5").release()
    assert hidden(tmp_path) == []


def planted(folder, age=0.0, **changes):
    """A lock of this very process, with changes, last touched `age` seconds ago."""
    lock = Lock(folder / "s.h5")
    lock._released.set()
    with open(lock.path, "w") as f:
        json.dump(lock._job | changes, f)
    os.utime(lock.path, (time.time() - age,) * 2)
    return lock.path


@pytest.mark.parametrize("age, changes, dead", [
    (0, {}, False),
    (9e5, {}, False),  # a job may wait for one point for days
    (0, {"process": "1"}, True),  # the pid was given to another process since
    (0, {"host": "elsewhere"}, False),
    (60, {"host": "elsewhere"}, False),
    (200, {"host": "elsewhere"}, True),
    (60, {"machine": "a container of the same name", "pid": 1, "process": "1"}, False),
    (200, {"machine": "a container of the same name", "pid": 1, "process": "1"}, True),
    (0, {"pid": "nonsense"}, False),
    (200, {"pid": 10**30}, True),
])
def test_a_lock_is_taken_over_if_and_only_if_its_job_is_dead(tmp_path, age, changes, dead):
    path = planted(tmp_path, age, **changes)
    before = open(path).read()
    if dead:
        Lock(tmp_path / "s.h5").release()
        assert os.listdir(tmp_path) == []
    else:
        with pytest.raises(InputError, match="being written by another job"):
            Lock(tmp_path / "s.h5")
        assert open(path).read() == before and os.listdir(tmp_path) == [os.path.basename(path)]


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '"x"', "\x00"])
def test_a_lock_that_says_nothing_is_taken_over_when_it_is_old(tmp_path, text):
    path = planted(tmp_path)
    with open(path, "w") as f:
        f.write(text)
    os.utime(path, (time.time() - 60,) * 2)
    Lock(tmp_path / "s.h5").release()
    assert os.listdir(tmp_path) == []


def test_a_lock_left_after_the_last_save_is_removed_by_the_next_start_and_a_living_jobs_is_not(tmp_path):
    first = store(tmp_path / "s.h5")
    for point in range(6):
        first.record(point, values_of(point))
    first.close()
    store(tmp_path / "s.h5").close()
    path = planted(tmp_path)
    store(tmp_path / "s.h5").close()
    assert os.path.exists(path)
    os.unlink(path)
    planted(tmp_path, process="1")
    store(tmp_path / "s.h5").close()
    assert hidden(tmp_path) == []


def test_a_job_whose_lock_was_taken_over_does_not_remove_the_new_one(tmp_path):
    lock = Lock(tmp_path / "s.h5")
    with open(lock.path, "w") as f:
        f.write("somebody else's")
    lock.release()
    assert open(lock.path).read() == "somebody else's"


def test_a_running_job_keeps_its_lock_young(tmp_path, monkeypatch):
    """However long it computes: nothing is saved here."""
    monkeypatch.setattr(lock_module, "TOUCH_SECONDS", 0.05)
    running = store(tmp_path / "s.h5")
    path = running._lock.path
    os.utime(path, (1, 1))
    end = time.monotonic() + 10
    while time.time() - os.stat(path).st_mtime > 60:
        assert time.monotonic() < end
        time.sleep(0.02)
    running.close()


def test_a_job_that_stood_still_until_another_took_over_writes_no_more(tmp_path):
    running = store(tmp_path / "s.h5")
    planted_lock = {"host": "elsewhere", "pid": 1, "started": "later"}
    with open(running._lock.path, "w") as f:
        json.dump(planted_lock, f)
    before = (tmp_path / "s.h5").read_bytes()
    running.record(0, values_of(0))
    running._last_save -= 1000
    for save in (running.save, running._append, running.close):
        with pytest.raises(surface_store.TakenOver, match="taken over by another job"):
            save()
    assert (tmp_path / "s.h5").read_bytes() == before
    with open(next(tmp_path.glob(".*.lock"))) as f:
        assert json.load(f) == planted_lock


def test_a_file_that_somebody_has_locked_is_read_and_written_all_the_same(tmp_path):
    """So no lock of the file system is asked for: many clusters' file systems have none, and then refuse."""
    store(tmp_path / "s.h5").close()
    with open(tmp_path / "s.h5", "rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):  # what happens to who asks
            h5py.File(tmp_path / "s.h5", "r", locking=True)
        running = store(tmp_path / "s.h5")
        running.record(0, values_of(0))
        running.close()
    assert h5_util.read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 1


ROUNDS = 20
RACER = """
import json
import sys
import time
from losslandscape.files import store as surface_store
from losslandscape import errors
print("ready", flush=True)
start, held = float(sys.stdin.readline()), {}
for number in range(int(sys.argv[2])):
    time.sleep(max(0, start + 0.02 * number - time.time()))
    try:
        held[number] = surface_store.Lock(f"{sys.argv[1]}/{number}.h5")
    except errors.InputError:
        pass
print(json.dumps(list(held)), flush=True)
sys.stdin.readline()
for lock in held.values():
    lock.release()
"""


def test_of_several_racers_for_a_dead_jobs_lock_one_wins(tmp_path):
    for number in range(ROUNDS):
        lock = Lock(tmp_path / f"{number}.h5")
        with open(lock.path, "w") as f:
            json.dump(lock._job | {"process": "1"}, f)
    racers = [subprocess.Popen([sys.executable, "-c", RACER, tmp_path, str(ROUNDS)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
    start = time.time() + 0.1
    for racer in racers:
        racer.stdin.write(f"{start}\n")
        racer.stdin.flush()
    won = [json.loads(racer.stdout.readline()) for racer in racers]
    assert sorted(number for numbers in won for number in numbers) == list(range(ROUNDS))
    for racer in racers:
        racer.communicate("\n")
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- any order of events


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Points are assigned, reported, saved; the job crashes and is started again with another number of ranks."""

    @initialize(nx=st.integers(1, 6), ny=st.one_of(st.none(), st.integers(1, 6)), ranks=st.integers(1, 5))
    def begin(self, nx, ny, ranks):
        self.no_waiting = mock.patch.object(os, "fsync")  # for the disk: no power fails here
        self.no_waiting.start()
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "s.h5")
        self.grid = h5_util.Grid(np.linspace(-1, 1, nx), None if ny is None else np.linspace(-1, 1, ny))
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
            found = h5_util.read_surface(self.path)
            done = set(np.flatnonzero(found.computed["train_loss"]).tolist())
            assert self.saved <= done | {point for point, _ in surface_store.Journal(self.path, found).read()}

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
        found = h5_util.read_surface(self.path)
        for name in NAMES:
            expected = [values_of(point)[name] for point in range(self.grid.size)]
            np.testing.assert_array_equal(found.values[name].ravel(), expected)
            assert found.computed[name].all()
        assert hidden(self.folder) == []
        shutil.rmtree(self.folder)


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
