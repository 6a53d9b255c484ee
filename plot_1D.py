"""Draw 1-D surfaces: loss and accuracy along a line through the trained network.

    python plot_1D.py --surf_file SURFACE.h5            # ..._1d_loss_acc.pdf and the single curves
    python plot_1D.py --surf_file SURFACE.h5 --log --xmin=-0.5 --xmax=0.5 --loss_max 2
    python plot_1D.py --surf_file SURFACE.h5 --surf_name train_acc      # this curve alone
    python plot_1D.py --surf_file SMALL.h5 LARGE.h5 --labels "batch 128" "batch 8192"
    python plot_1D.py --prefix model_300.t7_weights_xignore=biasbn_xnorm=filter --idx_max 5

The last one draws the repeats that `plot_surface.py --idx 1`, `--idx 2`, ... wrote: median and
quantile band. --prefix is one of their surface files, or the beginning that the names of all of
them have in common. A file with max_eig and min_eig gives the ratio of the two as well
(..._1d_eig_ratio.pdf, _1d_eig_abs_ratio.pdf).
"""

import numpy as np

from losslandscape.command import Parser, natural_int, run
from losslandscape.errors import InputError
from losslandscape.pictures.curves import (
    plot_1d_compare,
    plot_1d_loss_err,
    plot_1d_loss_err_repeat,
)
from losslandscape.pictures.style import check_chosen_name, picture_flags


def make_parser():
    """The flags of plot_1D.py."""
    parser = Parser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Figures are written beside the surface file.",
    )
    add = parser.add_argument
    add("--surf_file", "-f", nargs="+", action="extend", default=[], metavar="FILE",
        help="1-D surface; several are drawn into one figure")
    add("--surf_name", default="", help="the one value to draw (default: all that the file has)")
    add("--log", action="store_true", help="log loss axis")
    add("--xmin", type=float, help="left end (default: of the data; often -1)")
    add("--xmax", type=float, help="right end (default: of the data; often 1)")
    add("--loss_max", type=float,
        help="top of the loss axis (default 5, or what the curves need; all of a log axis)")
    add("--prefix", default="", help="repeats: a surface file, or how the names of all begin")
    add("--idx_min", type=natural_int, default=1, help="repeats: first --idx (default 1)")
    add("--idx_max", type=natural_int, default=10, help="repeats: last --idx (default 10)")
    picture_flags(parser)
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    surf_files, prefix, output = args.surf_file, args.prefix, args.output

    # what is asked for makes sense
    for flag, end in (("--xmin", args.xmin), ("--xmax", args.xmax)):
        if end is not None and not np.isfinite(end):
            raise InputError(f"expected a finite {flag}, got {end}")
    if args.surf_name and (len(surf_files) != 1 or prefix):
        raise InputError("expected --surf_name with one --surf_file; leave it out, or give one")
    if not surf_files and not prefix:
        raise InputError(
            "expected --surf_file FILE (or --prefix for repeats), got neither; see --help")
    if output:
        several_surfaces = len(surf_files) > 1 and not prefix
        repeats_alone = prefix and not surf_files
        if not several_surfaces and not repeats_alone:
            raise InputError(
                "expected --output only where one figure is drawn: "
                "several --surf_file, or --prefix alone")
        check_chosen_name(output)

    # the figures
    axes = {"xmin": args.xmin, "xmax": args.xmax, "loss_max": args.loss_max, "log": args.log}
    common = axes | {"show": args.show, "fmt": args.format, "title": args.title}
    written = []
    if len(surf_files) == 1:
        written += plot_1d_loss_err(surf_files[0], surf_name=args.surf_name, **common)
    elif surf_files:
        written += plot_1d_compare(surf_files, args.labels, output=output, **common)
    if prefix:
        written += plot_1d_loss_err_repeat(
            prefix, args.idx_min, args.idx_max, output=output, **common)
    print("\n".join(written))


if __name__ == "__main__":
    run(main)
