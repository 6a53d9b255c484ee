"""A loss surface as a ParaView file, a lit 3-D picture, and a mesh for Blender or a 3-D printer.

    python h52vtp.py -f S.h5 --zmax 10 --log                          the ParaView file (.vtp)
    python h52vtp.py -f S.h5 --zmax 10 --log --png                    and a picture beside it
    python h52vtp.py -f S.h5 --log --png --view top --size 1200x900   another view and size
    python h52vtp.py -f S.h5 --log --png --view=-30,55 --transparent  azimuth, elevation in degrees
    python h52vtp.py -f S.h5 --log --orbit surface.gif                a turntable, GIF or MP4
    python h52vtp.py -f S.h5 --log --export stl                       obj, stl or glb

The files are named SURF_FILE_SURFNAME(_zmax=Z)(_log).vtp, .png and so on. The heights are, in this
order, resampled to N x N points by a cubic spline (--interp N), clipped at --zmax, and turned into
log(z + 0.1) (--log). Quads that touch a point without a finite value (not computed, NaN, infinite)
are left out, and counted on stderr.

In pictures and meshes the surface is as high as --zscale times the longer side of its plane,
whatever its values are; the ParaView file has the values themselves. Thin dark lines are level
lines at even steps of the height. Pictures need no screen: they are drawn off-screen through EGL,
OSMesa or X, whichever VTK finds.
"""

import argparse
import math

import numpy as np

from losslandscape.command import Parser, natural_int, positive_float, run
from losslandscape.files.layouts import read_surface
from losslandscape.files.names import export_stem
from losslandscape.pictures.lit import (
    CONTOURS,
    FILM_SIZE,
    MAX_PIXELS,
    VIEWS,
    WIDTH,
    Appearance,
    film_writer,
    lit_picture,
    png_bytes,
    turntable,
)
from losslandscape.pictures.mesh import (
    FLOAT32_LARGEST,
    LOG_SHIFT,
    MESH_WRITERS,
    ZSCALE,
    box_mesh,
    grid_quads,
    shading_colours,
    surface_heights,
    surface_mesh,
    vtp_bytes,
)
from losslandscape.pictures.overwrite import replace_outputs
from losslandscape.pictures.style import note


def export_parser():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surf_file", "-f", required=True, metavar="FILE",
                        help="a 2-D surface file")
    parser.add_argument("--surf_name", default="",
                        help="which values: train_loss, test_loss, train_err, ... (default: "
                             "train_loss, or what the file has)")
    parser.add_argument("--zmax", type=float, default=-1, help="clip the heights here (-1: no)")
    parser.add_argument("--interp", type=int, default=-1, metavar="N",
                        help="resample to N x N points (-1: no)")
    parser.add_argument("--log", action="store_true", help="heights are log(z + 0.1)")

    parser.add_argument("--png", action="store_true", help="draw a lit picture")
    parser.add_argument("--orbit", metavar="FILE", help="write a turntable to FILE.gif or FILE.mp4")
    parser.add_argument("--export", choices=MESH_WRITERS,
                        help="write a mesh: obj, stl (a solid for printing) or glb")

    parser.add_argument("--zscale", type=positive_float, default=ZSCALE,
                        help="height of picture and mesh, relative to the longer side of the plane")
    parser.add_argument("--view", type=view_direction, default="default",
                        help=f"{', '.join(VIEWS)}, or --view=AZIMUTH,ELEVATION in degrees")
    parser.add_argument("--size", type=pixel_size,
                        help=f"WIDTHxHEIGHT (default: {WIDTH} wide, as high as needed; "
                             f"orbit: {FILM_SIZE[0]}x{FILM_SIZE[1]})")
    parser.add_argument("--cmap", default="viridis", help="colour map of matplotlib")
    parser.add_argument("--contours", type=natural_int, default=CONTOURS,
                        help="level lines on the surface (0: none)")
    parser.add_argument("--transparent", action="store_true", help="picture without background")
    return parser


def view_direction(text):
    """argparse type: a name of VIEWS, or AZIMUTH,ELEVATION in degrees."""
    if text in VIEWS:
        return VIEWS[text]
    try:
        azimuth, elevation = (float(part) for part in text.split(","))
    except ValueError:
        azimuth = elevation = math.nan
    if not (math.isfinite(azimuth) and -90 <= elevation <= 90):
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(VIEWS)} or AZIMUTH,ELEVATION in degrees, such as --view=-60,40; "
            f"got {text!r}")
    return azimuth, elevation


def pixel_size(text):
    """argparse type: WIDTHxHEIGHT in pixels."""
    sides = text.split("x")
    if len(sides) == 2 and all(side.isdecimal() for side in sides):
        width, height = map(int, sides)
        if 16 <= width <= MAX_PIXELS and 16 <= height <= MAX_PIXELS:
            return width, height
    raise argparse.ArgumentTypeError(
        f"expected WIDTHxHEIGHT, each from 16 to {MAX_PIXELS} pixels, such as 1600x1200; "
        f"got {text!r}")


def unless_minus_one(number):
    """None for -1, with which the flags say "no"."""
    if number == -1:
        return None
    return number


def zmax_in_name(zmax):
    """'10.0' for the names of files, also '0.0'; '' for no clipping."""
    if zmax is None:
        return ""
    return str(zmax)


def gap_note(heights):
    """What is left out of the surface, in words; '' for nothing."""
    quads, left_out = grid_quads(heights.z)
    if not left_out:
        return ""
    gaps = int((~heights.finite).sum())
    return (f"{left_out} of {len(quads) + left_out} quads are left out: they touch {gaps} points "
            f"that are not computed, NaN, infinite or beyond {FLOAT32_LARGEST:g}")


def flat_note(heights, log):
    """A hint where nearly all of the picture would be flat ground; '' elsewhere.

    log: the heights are logarithms already.
    """
    values = heights.z[heights.finite]
    low_part = np.quantile(values, 0.9) - values.min()
    share = low_part / (np.ptp(values) or 1)
    if not 0 < share < 0.2:
        return ""
    cure = "--log or --zmax shows"
    if log or values.min() <= -LOG_SHIFT:
        cure = "--zmax shows"
    return (f"nine tenths of the points lie in the lowest {100 * share:.2g} % of the height; "
            f"{cure} them")


def note_if_any(text):
    """A note to the user, where there is one."""
    if text:
        note(text)


def main(argv=None):
    args = export_parser().parse_args(argv)
    in_a_box = args.png or args.orbit or args.export

    # what can't work is refused before the work
    if args.orbit:
        film_bytes = film_writer(args.orbit)
    if in_a_box:
        shading_colours(args.cmap)

    # the heights, and the ParaView file
    surface = read_surface(args.surf_file)
    name = args.surf_name or surface.main_name
    zmax = unless_minus_one(args.zmax)
    heights = surface_heights(surface, name, zmax, args.log, unless_minus_one(args.interp))
    stem = export_stem(args.surf_file, name, zmax_in_name(zmax), args.log)
    files = {stem + ".vtp": vtp_bytes(surface_mesh(heights))}
    note_if_any(gap_note(heights))

    # mesh, picture and film of the surface in a box
    if in_a_box:
        mesh = box_mesh(heights, args.zscale)
        note_if_any(flat_note(heights, args.log))
    if args.export:
        files[f"{stem}.{args.export}"] = MESH_WRITERS[args.export](mesh, args.cmap)
    if args.png:
        look = Appearance(args.cmap, args.contours, args.transparent)
        files[stem + ".png"] = png_bytes(lit_picture(mesh, args.view, args.size, look))
    if args.orbit:
        look = Appearance(args.cmap, args.contours)
        files[args.orbit] = film_bytes(turntable(mesh, args.view, args.size, look))

    # everything is made before anything is written: an error leaves no file behind
    replace_outputs(files)
    print("\n".join(files))


if __name__ == "__main__":
    run(main)
