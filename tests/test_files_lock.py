"""Laws of the lock of a surface file: one job writes it, and a dead job blocks nobody."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from losslandscape.errors import InputError
from losslandscape.files import lock as lock_module
from losslandscape.files.layouts import read_surface
from losslandscape.files.lock import Lock, TakenOver
from losslandscape.files.names import journal_path, lock_path
from tests.conftest import ROOT
from tests.stores import hidden, store, values_of
from tests.test_files_opening import make_special

HOLDER = """
import sys
from losslandscape.files.lock import Lock
lock = Lock(sys.argv[1])
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


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"7", b'"x"', b"\x00", b"\xff\xfe", b"[" * 10**5],
                         ids=lambda text: repr(text[:3]))
def test_a_lock_that_says_nothing_is_taken_over_when_it_is_old(tmp_path, text):
    path = planted(tmp_path)
    with open(path, "wb") as f:
        f.write(text)
    os.utime(path, (time.time() - 60,) * 2)
    Lock(tmp_path / "s.h5").release()
    assert os.listdir(tmp_path) == []


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize("value", ["a\nerror: b\x1b[2J", "x" * 10**3, nested(400), {"a": 1}, None, 10**400])
def test_whatever_a_living_lock_says_is_told_in_one_short_line(tmp_path, value):
    path = planted(tmp_path, host=value, started=value, pid=1)
    with pytest.raises(InputError, match="being written by another job") as caught:
        Lock(tmp_path / "s.h5")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    os.unlink(path)


def test_a_lock_of_the_far_future_is_no_living_jobs(tmp_path):
    planted(tmp_path, age=-10**6, host="elsewhere")
    Lock(tmp_path / "s.h5").release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket"])
@pytest.mark.parametrize("hidden_file", [lock_path, journal_path])
def test_what_is_no_file_in_the_place_of_a_lock_or_journal_is_refused_at_once(tmp_path, kind, hidden_file):
    path = hidden_file(str(tmp_path / "s.h5"))
    held = make_special(Path(path), kind)
    with pytest.raises(InputError, match=f"expected a file at {path}, got {kind}; move it away"):
        store(tmp_path / "s.h5")
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    if held is not None:
        held.close()


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
        with pytest.raises(TakenOver, match="taken over by another job"):
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
    assert read_surface(tmp_path / "s.h5").computed["train_loss"].sum() == 1


ROUNDS = 20
RACER = """
import json
import sys
import time
from losslandscape.files.lock import Lock
from losslandscape import errors
print("ready", flush=True)
start, held = float(sys.stdin.readline()), {}
for number in range(int(sys.argv[2])):
    time.sleep(max(0, start + 0.02 * number - time.time()))
    try:
        held[number] = Lock(f"{sys.argv[1]}/{number}.h5")
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
