"""Compute the curvature of the loss on a grid of points: largest and smallest eigenvalue of the Hessian.

    python plot_hessian_eigen.py --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --xnorm filter --xignore biasbn
    mpirun -n 4 python plot_hessian_eigen.py --mpi --cuda --model resnet56 --model_file MODEL.t7 \\
        --x=-1:1:51 --y=-1:1:51 --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot
    python plot_hessian_eigen.py ... --x=0:1:1 --trace --topk 10       more about the minimum itself

The flags, the files and the walk over the grid are those of plot_surface.py: the same command after it adds
max_eig and min_eig to the surface file, and killed runs are resumed. At each point stands the Hessian of the mean
training loss with respect to the parameters of two or more dimensions, batch norm in eval mode. --params all: with
respect to all of them. --params REGEX: to those whose name matches, and only those move.

max_eig_res and min_eig_res are the residuals |H u - theta u| of the two eigenvalues; eig_converged is 1 where both are
within the tolerance, 0 where not. All are NaN where the loss is not finite. --plot draws the ratio of the two (Li et
al. 2018, section 6).

--trace and --topk are measured at the minimum, the point (0, 0); they are printed, and kept as JSON in the surface
file's attribute `provenance`, under `centre`.
"""

from losslandscape import command, flags, ranks, run
from losslandscape.choices import DirectionChoice, choose
from losslandscape.measuring.measurement import MAX_PRODUCTS, TOLERANCE, EigenvalueMeasurement, moving_params
from losslandscape.pictures.results import draw_eigenvalues


def make_parser():
    parser = command.Parser(description=__doc__)
    flags.add_surface_flags(parser)
    group = parser.add_argument_group("curvature")
    group.add_argument("--tol", type=command.positive_float, default=TOLERANCE,
                       help=f"largest residual of an eigenvalue, relative to it ({TOLERANCE:g})")
    group.add_argument("--max_products", type=command.positive_int, default=MAX_PRODUCTS, metavar="N",
                       help=f"stop a point after N products with the Hessian ({MAX_PRODUCTS})")
    group.add_argument("--trace", type=command.positive_int, nargs="?", const=30, metavar="SAMPLES",
                       help="trace at the minimum, with its standard error (30 samples)")
    group.add_argument("--topk", type=command.positive_int, metavar="K",
                       help="the K largest eigenvalues at the minimum")
    return parser


def main(argv=None):
    world = ranks.connect()
    with world.guard():
        args = world.together(make_parser().parse_args, argv)
        command.say_that_mpi_is_used(world, args.mpi)

        # --params is about the parameters that are differentiated, and a regular expression also about what moves
        measurement = EigenvalueMeasurement(
            args.loss_name, args.metric, args.bn, args.params or "weights", args.tol, args.max_products,
            trace_samples=args.trace, top=args.topk, noise_seed=args.noise_seed)
        directions = choose(
            DirectionChoice, flags.with_preset(vars(args)) | {"params": moving_params(args.params)})
        job, _ = flags.make_job(world, vars(args), measurement, directions)

        if args.check:
            run.check(world, job)
            return
        surf_files = run.compute(world, job)
        if world.rank == 0:
            flags.draw_results(surf_files, vars(args), draw_eigenvalues)


if __name__ == "__main__":
    command.run(main)
