"""Draw 2-D surfaces: contours, filled contours, heat map, 3-D figure; optimizer paths; comparisons.

    # SURFACE.h5_train_loss_2dcontour.pdf and three more; then with levels even in the logarithm
    python plot_2D.py --surf_file SURFACE.h5 --surf_name train_loss
    python plot_2D.py --surf_file SURFACE.h5 --log --format png

    # the path of an optimizer, over the contours and alone
    python plot_2D.py --surf_file SURFACE.h5 --proj_file PROJ.h5 --dir_file DIRECTIONS.h5
    python plot_2D.py --proj_file PROJ.h5 --dir_file DIRECTIONS.h5

    # side by side on one scale, flatness below
    python plot_2D.py --surf_file SHORTCUTS.h5 NO_SHORTCUTS.h5 --vmax 10

--surf_name is any value of the file: train_loss, train_acc, train_err, test_loss, ..., max_eig,
min_eig, or a metric of your own; of the summary of repeats also train_loss_low, train_loss_high and
train_loss_iqr. A file with max_eig and min_eig gives maps of their ratio as well. A file that is
still being computed is drawn from its computed points, and the title says how many they are.
"""

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.pictures.comparison import plot_2d_compare
from losslandscape.pictures.panel import read_2d
from losslandscape.pictures.paths import plot_contour_trajectory, plot_trajectory
from losslandscape.pictures.style import check_chosen_name, picture_flags
from losslandscape.pictures.surfaces import plot_2d_contour, plot_2d_eig_ratio
from losslandscape.pictures.words import is_loss


def make_parser():
    """The flags of plot_2D.py."""
    p = Parser(description=(__doc__ or "").split("\n\n")[0],
               epilog="Figures are written beside the surface file.")
    p.add_argument("--surf_file", "-f", nargs="+", action="extend", default=[], metavar="FILE",
                   help="2-D surface; several are drawn side by side on one scale")
    p.add_argument("--compare", nargs="+", default=[], metavar="FILE",
                   help="the same as several --surf_file")
    p.add_argument("--dir_file", default="", metavar="FILE",
                   help="PCA directions, for the labels of the axes")
    p.add_argument("--proj_file", nargs="+", default=[], metavar="FILE",
                   help="projected optimizer paths")
    p.add_argument("--surf_name", default="",
                   help="what to draw (default train_loss, or what the file has)")
    p.add_argument("--vmax", type=float, help="highest contour (default 10 for a loss)")
    p.add_argument("--vmin", type=float, help="lowest contour (default 0.1 for a loss)")
    p.add_argument("--vlevel", type=float, help="step between contours (default 0.5 for a loss)")
    p.add_argument("--zlim", type=float, help="top of the 3-D figure (default 10 for a loss)")
    p.add_argument("--log", action="store_true", help="log-spaced levels, log colours, log height")
    picture_flags(p)
    return p


def main(argv=None):
    args = make_parser().parse_args(argv)
    check_combination(args.surf_file, args.compare, args.proj_file)
    surf_files, proj_files = args.compare or args.surf_file, args.proj_file
    is_comparison = bool(args.compare) or len(surf_files) > 1
    if args.output:
        if not is_comparison and not proj_files:
            raise InputError("expected --output only with several --surf_file, --compare or "
                             "--proj_file, which draw a single figure")
        check_chosen_name(args.output)

    # what to draw, where nothing is chosen, is what the first file has
    surface, name = None, args.surf_name
    if surf_files:
        surface = read_2d(surf_files[0])
        name = args.surf_name or surface.main_name

    levels = {"vmin": args.vmin, "vmax": args.vmax, "vlevel": args.vlevel, "log": args.log}
    common = {"show": args.show, "fmt": args.format, "title": args.title}
    one_figure = common | {"labels": args.labels, "output": args.output}
    if is_comparison:
        written = plot_2d_compare(surf_files, name, **levels, **one_figure)
    elif surf_files and proj_files:
        written = plot_contour_trajectory(surf_files[0], args.dir_file, proj_files, name,
                                          **levels, **one_figure)
    elif proj_files:
        written = plot_trajectory(proj_files, args.dir_file, **one_figure)
    else:
        # curvature without a loss has its ratios to show, unless one of the two is asked for
        has_eigenvalues = {"min_eig", "max_eig"} <= surface.values.keys()
        written = []
        if args.surf_name or not has_eigenvalues or is_loss(name):
            written += plot_2d_contour(surf_files[0], name, zlim=args.zlim, dir_file=args.dir_file,
                                       **levels, **common)
        if has_eigenvalues:
            written += plot_2d_eig_ratio(surf_files[0], **common)
    print("\n".join(written))


def check_combination(surf_files, compared, proj_files):
    """Raises InputError for files that make no figure together."""
    if not surf_files and not proj_files and not compared:
        raise InputError("expected --surf_file FILE, --proj_file FILE or --compare FILE FILE, "
                         "got none; see --help")
    if compared and (surf_files or proj_files):
        raise InputError("expected --compare without --surf_file and --proj_file; "
                         "give all surfaces to --compare")
    if len(surf_files) > 1 and proj_files:
        raise InputError(f"expected one --surf_file with --proj_file, got {len(surf_files)}; "
                         "paths are drawn over a single surface")


if __name__ == "__main__":
    run(main)
