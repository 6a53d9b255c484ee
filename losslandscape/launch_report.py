"""Do the processes of a launcher work together? What each has, and what is wrong.

    rank = look_around(world, cuda=False)     what this rank has
    report = world.comm.allgather(rank)       of all ranks
    table(report)                             lines of text
    problems(report)                          sentences: [what slows a run down], [what ends it]
"""

import os
import socket
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import torch

from losslandscape.errors import InputError
from losslandscape.ranks import free_memory, own_cores

RING_TIMEOUT = 20.0  # seconds that a rank waits for the message


@dataclass(frozen=True)
class RankReport:
    """What one rank has."""

    rank: int
    local_rank: int  # its number within the host
    host: str
    pid: int
    cores: frozenset  # names of the physical cores that it may run on
    threads: int  # that it computes with
    memory: int  # bytes that the host has free
    gpus: tuple = ()  # of each of its GPUs: (what identifies it on the host, words about it)
    refusal: str = ""  # why it has not the GPUs that it should have


def look_around(world, cuda=False, ngpu=1):
    """RankReport of this rank, with the threads and the devices that a run would use; collective."""
    gpus, refusal = (), ""
    try:
        devices = world.devices(cuda, ngpu)
        gpus = tuple(gpu_in_words(device) for device in devices if device.type == "cuda")
    except InputError as error:
        refusal = str(error)
    return RankReport(
        rank=world.rank,
        local_rank=world.local_rank,
        host=socket.gethostname(),
        pid=os.getpid(),
        cores=frozenset(own_cores()),
        threads=world.share_threads(),
        memory=free_memory(),
        gpus=gpus,
        refusal=refusal,
    )


def gpu_in_words(device):
    """(what identifies a GPU on its host, its number, name and free memory in words)."""
    properties = torch.cuda.get_device_properties(device)
    free, _ = torch.cuda.mem_get_info(device)
    identity = str(getattr(properties, "uuid", device))
    return identity, f"{device} {properties.name}, {gigabytes(free)} free"


def gigabytes(count):
    return f"{count / 2**30:.1f} GiB"


def table(report):
    """Lines of text: a heading, and one line for each rank."""
    rows = [("rank", "local", "host", "pid", "cores", "threads", "memory free", "device")]
    for entry in report:
        device = "; ".join(words for _, words in entry.gpus) or "cpu"
        if entry.refusal:
            device = "none"
        rows.append((
            str(entry.rank),
            str(entry.local_rank),
            entry.host,
            str(entry.pid),
            str(len(entry.cores)),
            str(entry.threads),
            gigabytes(entry.memory),
            device,
        ))

    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def problems(report):
    """(what slows a run down, what ends it): two lists of sentences."""
    by_host = defaultdict(list)
    for entry in report:
        by_host[entry.host].append(entry)

    # what shares a host shares its cores and GPUs
    slow = []
    for host, entries in by_host.items():
        slow += crowded_cores(host, entries)
        slow += crowded_gpus(host, entries)

    # one sentence for all ranks that lack the same
    fatal = list(dict.fromkeys(entry.refusal for entry in report if entry.refusal))
    return slow, fatal


def crowded_cores(host, entries):
    """A sentence where the ranks of a host compute with more threads than they have cores."""
    cores = frozenset().union(*(entry.cores for entry in entries))
    threads = sum(entry.threads for entry in entries)
    if len(entries) > len(cores):
        return [f"{host}: {len(entries)} ranks on {counted(len(cores), 'core')}, which slows all of "
                f"them; start at most {len(cores)}"]

    if threads > len(cores):
        per_rank = max(1, len(cores) // len(entries))
        return [f"{host}: {threads} threads on {counted(len(cores), 'core')}; unset "
                f"OMP_NUM_THREADS, or OMP_NUM_THREADS={per_rank}"]

    # a launcher may have bound several ranks to the same cores, or one to fewer than it has threads
    for entry in entries:
        if entry.threads > len(entry.cores):
            return [f"{host}: rank {entry.rank} computes with {entry.threads} threads, but is bound "
                    f"to {len(entry.cores)} of the cores; mpirun --bind-to none frees it"]
    return []


def crowded_gpus(host, entries):
    """A sentence for each GPU of a host that several ranks use."""
    ranks_of = defaultdict(list)
    words_of = {}
    for entry in entries:
        for identity, words in entry.gpus:
            ranks_of[identity].append(str(entry.rank))
            words_of[identity] = words

    sentences = []
    for identity, ranks in ranks_of.items():
        if len(ranks) > 1:
            gpu = words_of[identity].split(",")[0]
            sentences.append(f"{host}: ranks {', '.join(ranks)} share the GPU {gpu}, and take turns "
                             "on it; start one rank per GPU")
    return sentences


def hosts_in_words(report):
    """'4 ranks on 2 hosts: a (2), b (2)'."""
    counts = Counter(entry.host for entry in report)
    hosts = ", ".join(f"{host} ({count})" for host, count in counts.items())
    return f"{len(report)} ranks on {counted(len(counts), 'host')}: {hosts}"


def counted(count, noun):
    """'1 core', '2 cores'."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}s"


# ---------------------------------------------------------------- a message around the ring


def ring(world):
    """Seconds that a message takes from rank 0 over all ranks back to rank 0; collective.

    Raises InputError on a rank that waits for it in vain.
    """
    seconds = 0.0
    for _ in range(2):  # the first one makes the connections
        world.bcast()
        start = time.perf_counter()

        if world.rank == 0:
            world.send(1, [0])
            path = wait_for_message(world)
            seconds = time.perf_counter() - start
            if path != list(range(world.size)):
                raise InputError(f"expected a message to pass all {world.size} ranks in order, it "
                                 f"passed {path}; MPI mixes them up")
        else:
            path = wait_for_message(world)
            world.send((world.rank + 1) % world.size, [*path, world.rank])
    return seconds


def wait_for_message(world):
    """The message that arrives next. Raises InputError where none does."""
    end = time.monotonic() + RING_TIMEOUT
    while time.monotonic() < end:
        arrived = world.receive()
        if arrived is not None:
            return arrived[1]
        time.sleep(0)

    before = (world.rank - 1) % world.size
    raise InputError(f"expected a message from rank {before} to rank {world.rank} within "
                     f"{RING_TIMEOUT:g} s, none came; check the network between their hosts")
