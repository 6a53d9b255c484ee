"""Do the ranks see each other, and what does each have? Run it as you would run plot_surface.py.

    mpirun -n 4 python mpi4pytorch.py
    mpirun -n 4 python mpi4pytorch.py --cuda      # and a GPU each?
    srun -n 8 python mpi4pytorch.py --cuda --ngpu 2

Prints host, cores, threads, memory and device of every rank, sends a message around, and says in
words what is wrong. Exit code 2 where a run would not work: MPI's processes don't see each other, or
a GPU is missing. Scripts that were written for the original program can import its functions from
this file.
"""

from losslandscape import command
from losslandscape.command import positive_int
from losslandscape.errors import InputError
from losslandscape.launch_report import hosts_in_words, look_around, problems, ring, table
from losslandscape.messages import tell
from losslandscape.original_api import (  # noqa: F401
    barrier,
    broadcast,
    reduce_max,
    reduce_min,
    setup_MPI,
)
from losslandscape.ranks import connect, launcher, mpi_library

ALONE = """one process: no launcher was used, so a run would use one rank
several are started with   mpirun -n 4 python mpi4pytorch.py   (or srun -n 4 in a Slurm job);
mpirun must be that of the MPI library of mpi4py: pip install mpi4py mpich brings both"""

ALONE_UNDER_LAUNCHER = """one process, started by {launcher}: a run would use one rank
mpirun -n 4 and srun -n 4 start four"""


def make_parser():
    parser = command.Parser(description=__doc__)
    parser.add_argument("--mpi", "-m", action="store_true",
                        help="as of plot_surface.py; makes no difference")
    parser.add_argument("--cuda", "-c", action="store_true", help="look at GPUs")
    parser.add_argument("--ngpu", type=positive_int, default=1, help="GPUs per rank (1)")
    return parser


def main(argv=None):
    world = connect()  # says so where launcher and mpi4py don't belong together
    with world.guard():
        args = world.together(make_parser().parse_args, argv)

        # what each rank has
        report = world.allgather(look_around(world, args.cuda, args.ngpu))
        if world.rank == 0:
            tell(title(world, report))
            tell("\n".join(table(report)))

        # do messages arrive?
        if world.size > 1:
            seconds = ring(world)
            if world.rank == 0:
                per_hop = 1e3 * seconds / world.size
                tell(f"a message around all ranks: {per_hop:.3g} ms from one to the next")

        # what is wrong
        slow, fatal = problems(report)
        if world.rank == 0:
            for sentence in slow:
                tell(f"warning: {sentence}")
            if not slow and not fatal:
                tell("nothing is wrong")
        if fatal:
            world.on_root(refuse, fatal)


def title(world, report):
    """How many processes there are, and how they were started."""
    if world.size > 1:
        return f"{hosts_in_words(report)}; {mpi_library()}, started by {launcher()}"
    if launcher():
        return ALONE_UNDER_LAUNCHER.format(launcher=launcher())
    return ALONE


def refuse(sentences):
    raise InputError("; ".join(sentences))


if __name__ == "__main__":
    command.run(main)
