"""Draw 2-D surfaces: contours, filled contours, heat map, 3-D figure; optimizer paths; comparisons.

    python plot_2D.py --surf_file SURFACE.h5 --surf_name train_loss      # ..._train_loss_2dcontour.pdf and three more
    python plot_2D.py --surf_file SURFACE.h5 --log --format png          # levels spaced evenly in the logarithm
    python plot_2D.py --surf_file SURFACE.h5 --proj_file PROJ.h5 --dir_file DIRECTIONS.h5    # a path over the contours
    python plot_2D.py --proj_file PROJ.h5 --dir_file DIRECTIONS.h5       # the path alone
    python plot_2D.py --compare SHORTCUTS.h5 NO_SHORTCUTS.h5 --vmax 10   # side by side on one scale, flatness below

--surf_name is any value of the file: train_loss, train_acc, train_err, test_loss, ..., max_eig, min_eig, or a metric of
your own; of the summary of repeats also train_loss_low, train_loss_high and train_loss_iqr.
A file with max_eig and min_eig gives maps of their ratio as well. A file that is still being computed is drawn from the
points that are there, and the title says how many.
"""

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.pictures import style as figures
from losslandscape.pictures.comparison import *  # noqa: F403
from losslandscape.pictures.panel import *  # noqa: F403
from losslandscape.pictures.paths import *  # noqa: F403
from losslandscape.pictures.scales import *  # noqa: F403
from losslandscape.pictures.surfaces import *  # noqa: F403


def main(argv=None):
    parser = Parser(description=__doc__.split("\n\n")[0], epilog="Figures are written beside the surface file.")
    parser.add_argument("--surf_file", "-f", default="", metavar="FILE", help="2-D surface")
    parser.add_argument("--dir_file", default="", metavar="FILE", help="PCA directions, for the labels of the axes")
    parser.add_argument("--proj_file", nargs="+", default=[], metavar="FILE", help="projected optimizer paths")
    parser.add_argument("--surf_name", default="", help="what to draw (default train_loss, or what the file has)")
    parser.add_argument("--vmax", type=float, default=None, help="highest contour (default 10 for a loss)")
    parser.add_argument("--vmin", type=float, default=None, help="lowest contour (default 0.1 for a loss)")
    parser.add_argument("--vlevel", type=float, default=None, help="step between contours (default 0.5 for a loss)")
    parser.add_argument("--zlim", type=float, default=None, help="top of the 3-D figure (default 10 for a loss)")
    parser.add_argument("--log", action="store_true", help="log-spaced levels, log colours, log height")
    parser.add_argument("--compare", nargs="+", default=[], metavar="FILE", help="surfaces side by side on one scale")
    figures.add_arguments(parser)
    args = parser.parse_args(argv)

    modes = bool(args.compare) + bool(args.surf_file or args.proj_file)
    if modes == 0:
        raise InputError("expected --surf_file FILE, --proj_file FILE or --compare FILE FILE, got none; see --help")
    if modes == 2:
        raise InputError("expected --compare without --surf_file and --proj_file; give all surfaces to --compare")
    if args.output:
        if not (args.compare or args.proj_file):
            raise InputError("expected --output only with --compare or --proj_file, which draw a single figure")
        figures.format_of(args.output)
    first = args.surf_file or next(iter(args.compare), "")
    surface = read_2d(first) if first else None
    name = args.surf_name or (surface.main_name if surface else "")
    levels = {"surf_name": name, "vmin": args.vmin, "vmax": args.vmax, "vlevel": args.vlevel, "log": args.log}
    common = {"show": args.show, "fmt": args.format, "title": args.title}
    single = common | {"labels": args.label, "output": args.output}
    if args.compare:
        written = plot_2d_compare(args.compare, **levels, **single)
    elif args.proj_file and args.surf_file:
        written = plot_contour_trajectory(args.surf_file, args.dir_file, args.proj_file, **levels, **single)
    elif args.proj_file:
        written = plot_trajectory(args.proj_file, args.dir_file, **single)
    else:
        has_eigenvalues = {"min_eig", "max_eig"} <= surface.values.keys()
        written = []
        if args.surf_name or not has_eigenvalues or figures.is_loss(name):
            written += plot_2d_contour(args.surf_file, **levels, zlim=args.zlim, dir_file=args.dir_file, **common)
        if has_eigenvalues:
            written += plot_2d_eig_ratio(args.surf_file, **common)
    print("\n".join(written))


if __name__ == "__main__":
    run(main)
