"""Loss surfaces as one page to explore in a browser.

    python h52html.py --surf_file S.h5                      writes S.h5.html
    python h52html.py --surf_file S.h5 --proj_file P.h5     with the path of the optimizer
    python h52html.py --surf_file A.h5 B.h5 --labels "ResNet-56" "no shortcuts" --output both.html

The page is one file that works from the disk, without a network: Plotly and the data are inside.
Rotate, zoom, hover for coordinates and values; switch between loss and accuracy, train and test,
linear and log; clip what is too high; contours on the floor; the optimizer's path up to any epoch.
Several surfaces stand side by side with one camera and one colour scale. Points that are not
computed, NaN or infinite are gaps; +inf is drawn at the clip height, if any. An older page is
replaced; any other file is not.
"""

import argparse

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.layouts import read_surface
from losslandscape.pictures.overwrite import refuse_foreign_file
from losslandscape.pictures.page import PagePanel, html_page
from losslandscape.pictures.path_tables import read_path_table


def page_parser():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surf_file", "-f", nargs="+", required=True, metavar="FILE",
                        help="2-D surface files")
    parser.add_argument("--surf_name", default="",
                        help="what the page shows first (default: train_loss, or what the first "
                             "file has)")
    parser.add_argument("--proj_file", nargs="+", default=[], metavar="FILE",
                        help="projected trajectories, one per surface, in order; 'none' for a "
                             "surface without one")
    parser.add_argument("--labels", "--label", nargs="+", default=[], metavar="NAME",
                        help="headings of the surfaces (default: the network, data set or file "
                             "that tells them apart)")
    parser.add_argument("--output", metavar="FILE",
                        help="the page (default: the first surface file + .html)")
    return parser


def require_one_each(flag, texts, count):
    """A flag with one text per surface may be left out, but not given in part."""
    if texts and len(texts) != count:
        raise InputError(f"expected as many {flag} as surfaces ({count}), got {len(texts)}")


def read_panel(surf_file, label, proj_file):
    projection = None
    if proj_file != "none":
        projection = read_path_table(proj_file)
    return PagePanel(read_surface(surf_file), label, surf_file, projection)


def main(argv=None):
    args = page_parser().parse_args(argv)
    count = len(args.surf_file)
    require_one_each("--proj_file", args.proj_file, count)
    require_one_each("--labels", args.labels, count)
    output = args.output or args.surf_file[0] + ".html"
    refuse_foreign_file(output, "html", chosen=bool(args.output))

    labels = args.labels or [""] * count
    proj_files = args.proj_file or ["none"] * count
    panels = [read_panel(*files) for files in zip(args.surf_file, labels, proj_files, strict=True)]

    page = html_page(panels, args.surf_name)
    write_file(output, page.encode("utf-8", "replace"))
    print(output)


if __name__ == "__main__":
    run(main)
