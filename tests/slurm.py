"""A Slurm of one node for the tests: its daemons run on ports of their own, below one folder.

    with slurm.cluster() as cluster:
        cluster.run("srun", "-n", "2", "hostname")

The numbers of its jobs begin at random: MPICH names the memory that ranks share after them, what a killed job left of
it stays, and makes another job of that number fail.

A requeued job waits until its first credential has expired: here for 5 s, usually for 2 minutes.
Debian's packages: apt-get install --no-install-recommends slurm-wlm munge. It needs neither systemd nor cgroups.
"""

import contextlib
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SECONDS_TO_START = 30
MAX_FIRST_JOB = 60_000_000  # Slurm counts up to 67 million
CPUS = 4  # that the node says it has, whatever the machine has

CONFIGURATION = """\
ClusterName=test
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmi2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=0
JobRequeue=1
KillWait=5
OverTimeLimit=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus} CoresPerSocket={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """Slurm can't be had here; the message says why."""


@contextlib.contextmanager
def cluster():
    """A running Cluster, whose daemons end with the block. Raises Unavailable."""
    for program in ("munged", "slurmctld", "slurmd", "srun"):
        if not path_of(program):
            raise Unavailable(f"no Slurm here: {program} is missing; apt-get install slurm-wlm munge")

    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: it holds sockets
    folder.chmod(0o755)
    started = Cluster(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def path_of(program):
    """Where a program is, daemons' folders included; None where it is not."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/local/sbin")


def free_ports(count):
    """Ports of this host that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Cluster:
    """munged, slurmctld and slurmd below `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self.daemons = []  # Popen, in the order of their start
        controller_port, node_port = free_ports(2)
        self.host = socket.gethostname().partition(".")[0]
        self.configuration = folder / "slurm.conf"
        self.configuration.write_text(CONFIGURATION.format(
            folder=folder, host=self.host, user=getpass.getuser(), cpus=CPUS, controller_port=controller_port,
            node_port=node_port, first_job=random.randrange(1, MAX_FIRST_JOB)))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            "SLURM_CONF": str(self.configuration),
        }

    def start(self):
        """Start the daemons and wait for the node. Raises Unavailable."""
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        self.daemon(
            "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")
        self.wait_for(lambda: (munge / "socket").exists())
        self.daemon("slurmctld", "-D", "-f", self.configuration)
        self.daemon("slurmd", "-D", "-f", self.configuration)
        self.wait_for(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T").stdout)

    def daemon(self, program, *options):
        with open(self.folder / f"{program}.out", "w") as output:
            self.daemons.append(subprocess.Popen(
                [path_of(program), *map(str, options)], stdout=output, stderr=output, env=self.environment,
                start_new_session=True))

    def wait_for(self, is_ready):
        end = time.monotonic() + SECONDS_TO_START
        while not is_ready():
            ended = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if ended or time.monotonic() > end:
                raise Unavailable(f"Slurm does not start here: {self.complaints()}")
            time.sleep(0.1)

    def complaints(self):
        """The last line of every daemon."""
        lines = []
        for file in sorted(self.folder.glob("*.out")):
            lines += [f"{file.stem}: {line}" for line in file.read_text(errors="replace").splitlines()[-1:]]
        return "; ".join(lines) or "no daemon says why"

    def stop(self):
        """End all jobs and the daemons."""
        if len(self.daemons) == 3:
            self.run("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full")
            self.run("scancel", "--user", getpass.getuser())
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    # ------------------------------------------------------------ jobs

    def run(self, *command, env=None, timeout=60, **options):
        """A command of Slurm's, or one that calls them; the finished process, with text output."""
        return subprocess.run(
            list(map(str, command)), env={**self.environment, **(env or {})}, capture_output=True, text=True,
            timeout=timeout, **options)

    def submit(self, script, *options, **more):
        """The number of a new batch job."""
        done = self.run("sbatch", "--parsable", *options, script, **more)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return int(done.stdout)

    def describe(self, job):
        """{field: value} of a job, as scontrol says."""
        text = self.run("scontrol", "show", "--oneliner", "job", job).stdout
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def wait_for_state(self, job, *states, seconds=60):
        """The description of a job as soon as it is in one of the states."""
        end = time.monotonic() + seconds
        while True:
            description = self.describe(job)
            if description.get("JobState") in states:
                return description
            if time.monotonic() > end:
                raise TimeoutError(f"job {job} is {description.get('JobState')}, not {' or '.join(states)}")
            time.sleep(0.1)
