"""Ranks that die, jobs that are told to end, and jobs that are killed: nothing is lost, nothing goes on, one message.

Under real launchers: see tests/jobs.py. Slurm: tests/test_slurm.py. The long loops are marked `long`: make test-long.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import time

import pytest

from losslandscape.files.layouts import read_surface
from tests.jobs import (
    LAUNCHERS,
    SECONDS,
    Job,
    Walk,
    assert_nothing_left_over,
    assert_same_surface,
    small_inputs,
)


@pytest.fixture
def folder(tmp_path):
    small_inputs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """(the surface of one run that nothing disturbed, the seconds that it took)"""
    folder = tmp_path_factory.mktemp("whole")
    small_inputs(folder)
    job = Job(folder, seconds=0)
    assert job.finish() == 0, job.said()
    return read_surface(job.file), time.monotonic() - job.started


@pytest.fixture
def uninterrupted(whole_run):
    return whole_run[0]


def assert_resumed_equals(folder, uninterrupted):
    job = Job(folder, seconds=0)
    assert job.finish() == 0, job.said()
    assert_same_surface(job.file, uninterrupted)
    assert_nothing_left_over(folder)


# ---------------------------------------------------------------- ranks that die

# every mode on rank 0 and on another, with both launchers
DEATHS = [
    ("mpich", 3, "exception", 0), ("openmpi", 3, "exception", 1), ("mpich", 4, "exception", 3),
    ("mpich", 2, "input", 1), ("openmpi", 2, "input", 0),
    ("mpich", 2, "exit", 0), ("openmpi", 2, "exit", 1),
    ("mpich", 2, "kill", 0), ("openmpi", 3, "kill", 2),
]
FIRST_MESSAGE = {  # how the first failure is told: by the rank where it can, else by the launcher
    "exception": "RuntimeError: planned failure",
    "input": "error: planned refusal",
    "memory": "\nMemoryError",
    "exit": r"EXIT CODE: [39]\b|Exit code: +3\b",  # MPICH's may name a rank that it has killed itself
    "segfault": r"\(signal 11\)|signal 11 \(",
    "kill": r"\(signal 9\)|signal 9 \(",
}


@pytest.mark.parametrize("launcher, ranks, mode, victim", DEATHS)
def test_a_dying_rank_ends_the_job_with_one_message(tmp_path, launcher, ranks, mode, victim):
    walk = Walk(tmp_path, launcher, ranks, points=1000, mode=mode, victim=victim)
    walk.wait_until_measuring([victim])
    code = walk.finish(SECONDS)
    said = len(re.findall(FIRST_MESSAGE[mode], walk.said()))
    if (launcher, mode) == ("mpich", "exit"):
        # a process that says nothing: the launcher passes its code on, and speaks only where it had to kill others
        assert said <= 1 and code in (3, 9), walk.said()
    else:
        assert said == 1, walk.said()
    if mode in ("input", "exception"):  # the ranks end by themselves
        expected = {"input": 2, "exception": 1}[mode]
        assert code == expected and walk.codes() == dict.fromkeys(range(ranks), expected)
        assert len(walk.results()) >= 2  # what was done by then
    assert code != 0


@pytest.mark.parametrize("launcher, mode, victim", [("mpich", "memory", 1), ("openmpi", "segfault", 0)])
def test_a_surface_survives_a_rank_that_dies(folder, launcher, mode, victim):
    job = Job(folder, launcher, 2, mode, victim)
    job.wait_until_measuring()
    assert job.finish(SECONDS) != 0
    assert len(re.findall(FIRST_MESSAGE[mode], job.said())) == 1, job.said()
    job.assert_nothing_lost()


# ---------------------------------------------------------------- jobs that are told to end


@pytest.mark.parametrize("launcher, name, target", [
    ("mpich", "SIGTERM", "launcher"), ("mpich", "SIGINT", "launcher"), ("mpich", "SIGUSR1", "launcher"),
    ("mpich", "SIGTERM", 0), ("mpich", "SIGUSR1", 1), ("mpich", "SIGUSR2", 2), ("mpich", "SIGXCPU", 0),
    ("openmpi", "SIGUSR1", "launcher"), ("openmpi", "SIGINT", 1), ("openmpi", "SIGUSR1", 0),
])
def test_a_signal_ends_every_rank_by_itself_with_128_plus_signal(tmp_path, launcher, name, target):
    walk = Walk(tmp_path, launcher, points=1000, seconds=0.1)
    walk.wait_until_measuring()
    walk.signal(name, target)
    code = walk.finish(SECONDS)
    expected = 128 + getattr(signal, name)
    assert code == expected and walk.codes() == dict.fromkeys(range(3), expected), walk.said()
    assert walk.said().count(f"interrupted by {name} on ") == 1
    assert walk.results_file.exists()


def test_open_mpi_hands_on_sigterm_and_ends(tmp_path):
    """Its mpirun passes no output on any more, and ends with a code of its own."""
    walk = Walk(tmp_path, "openmpi", points=1000, seconds=0.1)
    walk.wait_until_measuring()
    walk.signal("SIGTERM", "launcher")
    assert walk.finish(SECONDS) != 0 and walk.results_file.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_ends_all_while_ranks_wait_for_rank_0(tmp_path, when):
    """Rank 0 reads data before the walk, or draws after it."""
    walk = Walk(tmp_path, points=3, **{when: 60})
    while not (walk.results_file.exists() if when == "after" else len(walk.pids()) == 3):
        time.sleep(0.05)
    time.sleep(1)
    walk.signal("SIGUSR1", "launcher")
    assert walk.finish(SECONDS) == 138 and walk.codes() == dict.fromkeys(range(3), 138), walk.said()


def test_a_second_signal_changes_nothing(tmp_path):
    walk = Walk(tmp_path, points=1000, seconds=0.1)
    walk.wait_until_measuring()
    for _ in range(50):
        for rank in (0, 1, 2):
            with contextlib.suppress(ProcessLookupError):
                walk.signal("SIGUSR1", rank)
        time.sleep(0.002)
    assert walk.finish(SECONDS) == 138 and set(walk.codes().values()) == {138}, walk.said()
    assert "Traceback" not in walk.said()


def test_a_signal_does_not_wait_for_a_long_batch(tmp_path):
    walk = Walk(tmp_path, seconds=60, batch="yes")
    walk.wait_until_measuring()
    walk.signal("SIGTERM", 1)
    assert walk.finish(SECONDS) == 143, walk.said()


@pytest.mark.parametrize("launcher, ranks", [("mpich", 2), ("", 1)])
def test_a_preempted_run_saves_says_how_to_go_on_and_equals_the_whole(folder, uninterrupted, launcher, ranks):
    job = Job(folder, launcher, ranks, seconds=0.2)
    job.wait_until_measuring()
    time.sleep(0.5)
    job.signal("SIGUSR1", "launcher")
    assert job.finish(SECONDS) == 138
    job.assert_nothing_lost()
    done = read_surface(job.file).computed["train_loss"].sum()
    progress = re.search(r"interrupted by SIGUSR1 on .*: (\d+) of 40 points in .*; the same command goes on from",
                         job.said())
    assert progress and int(progress[1]) == done > 0
    assert_nothing_left_over(folder)
    assert_resumed_equals(folder, uninterrupted)


def test_nohup_keeps_its_promise(tmp_path):
    """A job that ignores SIGHUP when it is started goes on ignoring it."""
    walk = Walk(tmp_path, "", 1, seconds=0.1, points=10, before=1, ignore="SIGHUP")
    walk.wait_until_measuring()
    walk.signal("SIGHUP", 0)
    assert walk.finish() == 0
    walk.assert_complete()


# ---------------------------------------------------------------- jobs that are killed


def kill_at_random(folder, whole_run, runs, seed, launcher="mpich", environment=None):
    """Kill so many jobs, two ranks each, at random moments; nothing is lost at any. Returns the counts of targets."""
    choose = random.Random(seed)
    uninterrupted, usual = whole_run
    counts = dict.fromkeys(["launcher", "all", 0, 1, "had ended"], 0)
    for _ in range(runs):
        job = Job(folder, launcher, seconds=0.02, environment=environment)
        time.sleep(choose.uniform(0.3, 1.2) * usual)
        target = choose.choice(["launcher", "all", 0, 1])
        pids = job.pids()
        doomed = list(pids.values()) if target == "all" else [pids.get(target, job.process.pid)]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
        code = job.finish(2 * SECONDS)
        job.assert_nothing_lost()
        counts["had ended" if code == 0 else target] += 1
        if code == 0:  # begin again
            assert_same_surface(job.file, uninterrupted)
            assert_nothing_left_over(folder)
            job.file.unlink()
            (folder / "saved").unlink()
    return counts


def test_jobs_killed_at_random_moments_lose_nothing(folder, whole_run):
    kill_at_random(folder, whole_run, 2, seed=0)
    assert_resumed_equals(folder, whole_run[0])


@pytest.mark.long
def test_140_jobs_killed_at_random_moments_lose_nothing(folder, whole_run):
    print(kill_at_random(folder, whole_run, 140, seed=1))
    assert_resumed_equals(folder, whole_run[0])


# ---------------------------------------------------------------- disks that fill up


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this machine does not let a test mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk):
    """Write until nothing fits any more."""
    with open(disk / "other", "wb", buffering=0) as f:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    f.write(b"x" * size)


def fill_at_random(folder, disk, whole_run, runs, seed):
    """Fill the disk of so many jobs, with their log on it, at random moments, for a while; nothing is lost."""
    choose = random.Random(seed)
    told = 0
    for _ in range(runs):
        launcher, ranks = choose.choice([("mpich", 2), ("mpich", 3), ("", 1)])
        job = Job(folder, launcher, ranks, seconds=0.15, disk=disk)
        job.wait_until_measuring([0])
        time.sleep(choose.uniform(0.0, 1.0))
        fill(disk)
        time.sleep(choose.uniform(0.1, 1.0))
        (disk / "other").unlink()
        assert job.finish(60) == 0, job.said()
        assert_same_surface(job.file, whole_run[0])
        assert_nothing_left_over(disk)
        told += "No space left" in job.said()
        job.file.unlink()
    return f"{runs} full disks, {told} of them told"


def test_disks_that_fill_up_for_a_while_cost_nothing(folder, disk, whole_run):
    fill_at_random(folder, disk, whole_run, 1, seed=0)


@pytest.mark.long
def test_50_disks_that_fill_up_at_random_moments_cost_nothing(folder, disk, whole_run):
    print(fill_at_random(folder, disk, whole_run, 50, seed=1))


# ---------------------------------------------------------------- several machines

LAUNCH = """#!/bin/sh
# called as: launch [-OPTION ...] ADDRESS COMMAND, in the place of ssh
while [ "${1#-}" != "$1" ]; do shift; done
address=$1; shift
exec ip netns exec PREFIX-${address##*.} unshare --uts sh -c "hostname host-${address##*.}; $*"
"""


@pytest.fixture
def two_hosts(tmp_path):
    """Two hosts with networks and names of their own, joined by a cable: (addresses, command prefix, launcher)."""
    prefix = f"ls{os.getpid()}"
    addresses = ["10.231.7.1", "10.231.7.2"]

    def ip(command):
        return subprocess.run(["ip", *command.split()], capture_output=True, text=True)

    try:
        made = [ip(f"netns add {prefix}-{i}") for i in (1, 2)]
        made += [ip(f"link add cable netns {prefix}-1 type veth peer name cable netns {prefix}-2")]
        for i, address in enumerate(addresses, 1):
            made += [ip(f"-n {prefix}-{i} addr add {address}/24 dev cable")]
            made += [ip(f"-n {prefix}-{i} link set {device} up") for device in ("lo", "cable")]
    except FileNotFoundError:
        pytest.skip("no command ip on this machine")
    try:
        if failed := [done for done in made if done.returncode]:
            pytest.skip(f"this machine does not allow network namespaces: {failed[0].stderr.strip()}")
        launcher = tmp_path / "launch"
        launcher.write_text(LAUNCH.replace("PREFIX", prefix))
        launcher.chmod(0o755)
        named = ["unshare", "--uts", "sh", "-c", 'hostname host-1; exec "$@"', "sh"]
        on_first = ["ip", "netns", "exec", f"{prefix}-1", *named]
        yield addresses, on_first, launcher
    finally:
        for i in (1, 2):
            ip(f"netns del {prefix}-{i}")


def test_two_machines_compute_the_surface_of_one(folder, uninterrupted, two_hosts, monkeypatch):
    addresses, on_first, launcher = two_hosts
    (folder / "hosts").write_text("".join(f"{address}:2\n" for address in addresses))
    options = ["-localhost", addresses[0], "-launcher", "ssh", "-launcher-exec", str(launcher),
               "-f", str(folder / "hosts")]
    monkeypatch.setitem(LAUNCHERS, "two hosts", ([*on_first, "mpirun", *options, "-n"], {}))
    job = Job(folder, "two hosts", ranks=4)
    assert job.finish(90) == 0, job.said()
    assert {(folder / f"host.{rank}").read_text() for rank in range(4)} == {"host-1", "host-2"}
    assert_same_surface(job.file, uninterrupted)
    assert read_surface(job.file).provenance["host"] == "host-1"
