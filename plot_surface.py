"""Compute a loss surface: loss and accuracy of a network on a grid of points along one or two directions.

    python plot_surface.py --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --xnorm filter --xignore biasbn --plot
    mpirun -n 4 python plot_surface.py --mpi --cuda --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --y=-1:1:51 \\
        --dir_type weights --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot
    srun -n 8 python plot_surface.py --mpi --cuda ...        on several machines, one rank per GPU
    python plot_surface.py --measure mine.py:robustness ...  any numbers of the network in place of the loss

Makes (or reads) the direction file, then the surface file beside it. Killed runs are resumed by the same command.
"""

from losslandscape import command, flags, ranks, run
from losslandscape.choices import DirectionChoice, choose
from losslandscape.pictures.results import Paths, draw_losses


def make_parser():
    parser = command.Parser(description=__doc__)
    flags.add_surface_flags(parser)
    flags.add_estimation_flags(parser)
    flags.add_measure_flags(parser)
    return parser


def main(argv=None):
    world = ranks.connect()
    with world.guard():
        args = world.together(make_parser().parse_args, argv)
        command.say_that_mpi_is_used(world, args.mpi)

        # everything that decides what is computed, checked before anything is written
        measurement = world.together(flags.choose_measurement, vars(args))
        directions = choose(DirectionChoice, flags.with_preset(vars(args)))
        job, limits = flags.make_job(world, vars(args), measurement, directions, args.place)

        # a minute's look at whether the plot is going to be right
        if args.check:
            run.check(world, job)
            return

        # the points, spread over all ranks, into the surface file
        surf_files = run.compute(world, job)

        # the pictures
        if world.rank == 0:
            name = "train_loss"
            if args.measure:
                name = ""  # the first of its results
            elif args.eval_set == "test":
                name = "test_loss"
            paths = Paths(limits.proj_files, args.dir_file)
            flags.draw_results(surf_files, vars(args), lambda file, look: draw_losses(file, look, name, paths))


if __name__ == "__main__":
    command.run(main)
