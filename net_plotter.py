"""Make a direction file without a surface, or say what is in one.

    python net_plotter.py --model resnet56 --model_file MODEL.t7 --xnorm filter --xignore biasbn
    python net_plotter.py ... --dimensions 2 --ynorm filter --yignore biasbn    # with a y axis
    python net_plotter.py --model vgg9 --model_file A.t7 --model_file2 B.t7     # from A to B

    python net_plotter.py DIRECTIONS.h5         # norms, the angle between the axes, made from what
    python net_plotter.py DIRECTIONS.h5 --model resnet56                          # tensors by name
    python net_plotter.py DIRECTIONS.h5 --model resnet56 --model_file MODEL.t7    # and beside weights

The file has the name and the contents that plot_surface.py gives it with the same flags, and
plot_surface.py uses it. Scripts that were written for the original program can import its functions
from this file.
"""

import math
import os

from losslandscape import command, flags, ranks
from losslandscape.choices import DirectionChoice, Job, NetworkChoice, choose
from losslandscape.describe import directions_in_words, provenance_in_words
from losslandscape.direction_norms import angle, norms_table
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import read_directions, write_directions
from losslandscape.measuring.measurement import LossMeasurement
from losslandscape.messages import printable, tell
from losslandscape.original_api import (  # noqa: F401
    get_diff_states,
    get_diff_weights,
    get_random_states,
    get_random_weights,
    get_weights,
    ignore_biasbn,
    load_directions,
    name_direction_file,
    normalize_directions_for_states,
    normalize_directions_for_weights,
    set_states,
    set_weights,
)
from losslandscape.original_api import normalize_in_place as normalize_direction  # noqa: F401
from losslandscape.original_api import setup_direction_of_flags as setup_direction  # noqa: F401

# handed on, as create_..._direction are, to scripts that were written for the original program
from losslandscape.origins import describe_origin, read_or_make_directions
from losslandscape.output_folders import make_out
from losslandscape.plan import check_places, plan
from losslandscape.weight_space import (
    DIR_TYPES,
    build_seeded,
    check_shapes,
    create_random_direction,  # noqa: F401
    create_target_direction,  # noqa: F401
    names_of,
    tensors_of,
)


def make_parser():
    parser = command.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="DIRECTIONS.h5",
                        help="direction files to describe; without any, one is made")
    parser.add_argument("--dimensions", type=int, choices=(1, 2),
                        help="number of axes (1; 2 with --y)")
    parser.add_argument("--y", metavar="MIN:MAX:NUM",
                        help="as of plot_surface.py: there are two axes")
    flags.add_network_flags(parser)
    flags.add_direction_flags(parser)
    parser.set_defaults(model="")
    return parser


def main(argv=None):
    world = ranks.connect()
    with world.guard():
        args = world.together(make_parser().parse_args, argv)
        model = args.model or NetworkChoice.model
        network = choose(NetworkChoice, vars(args) | {"model": model})
        dimensions = args.dimensions or 1
        if args.dimensions is None and args.y:
            dimensions = 2
        directions = choose(DirectionChoice, flags.with_preset(vars(args), "xy"[:dimensions]))

        if args.files:
            origin = None
            if args.model or args.model_file:
                origin = network
            lines = world.on_root(describe_files, args.files, origin)
        else:
            lines = world.on_root(make_files, network, directions, dimensions, args.out)

        if world.rank == 0:
            tell("\n".join(lines))


# ---------------------------------------------------------------- making


def make_files(network, choice, dimensions, out=""):
    """Make the direction file, or one for each repeat; lines that say what was made.

    network: a NetworkChoice, choice: a DirectionChoice, out: as --out. Raises InputError where they can't be made,
    and where a file of the same name was made from something else.
    """
    if dimensions == 1 and (choice.ynorm or choice.yignore or choice.same_dir):
        raise InputError("expected --dimensions 2 with --ynorm, --yignore and --same_dir, which are "
                         "about the y direction; add it")

    # a job as for a surface; the limits of its grid have no part in the directions
    limits = ["-1:1:2"] * dimensions
    job = Job(LossMeasurement(), Grid.parse(*limits), network, directions=choice, out=out)

    lines = []
    for experiment in plan(job):
        check_places(experiment.dir_file, out=out)
        is_new = not os.path.exists(experiment.dir_file)

        net = build_seeded(network.load, experiment.recipe.idx)
        origin = describe_origin(job, experiment.recipe, net)
        directions = read_or_make_directions(job, experiment, net, origin, write=False)
        if is_new:
            make_out(out)
            write_directions(experiment.dir_file, directions)

        table = norms_table(directions, weights=tensors_as_arrays(net, choice.dir_type))
        lines += [table[0], table[-1], *angle_in_words(directions)]
        line = f"direction file: {experiment.dir_file}"
        if not is_new:
            line += " (it was there before)"
        lines.append(line)
    return lines


def tensors_as_arrays(net, dir_type):
    return [tensor.detach().float().numpy() for tensor in tensors_of(net, dir_type)]


def angle_in_words(directions):
    """A line about the angle between two axes; none for one axis."""
    if directions.y is None:
        return []
    degrees = angle(directions)
    if degrees is None:
        return ["no angle between the axes: one of them is zero"]
    return [f"angle between the axes: {degrees:.4g} degrees"]


# ---------------------------------------------------------------- describing


def describe_files(paths, network=None):
    """Lines that say what is in direction files.

    network: the NetworkChoice of the origin, for names and, where it has a file, for its weights.
    """
    lines = []
    for path in paths:
        directions = read_directions(path)
        names = weights = None
        if network is not None:
            names, weights = names_and_weights(path, directions, network)
        lines += [
            path,
            *directions_in_words(directions),
            *norms_table(directions, names, weights),
            *angle_in_words(directions),
            *provenance_in_words(directions.provenance),
        ]
    return [printable(line, math.inf) for line in lines]


def names_and_weights(path, directions, network):
    """(names, weights) of the tensors of a direction file; no weights for a network without a file.

    Raises InputError where the directions have the shapes neither of the parameters nor of the
    states.
    """
    if not network.model_file:
        net = network.architecture.build()
        return names_of(net, dir_type_of(path, directions, net)), None

    net = network.load()
    dir_type = dir_type_of(path, directions, net)
    return names_of(net, dir_type), tensors_as_arrays(net, dir_type)


def dir_type_of(path, directions, net):
    """'weights' or 'states', whichever has the shapes of the directions."""
    refusals = []
    for dir_type in DIR_TYPES:
        try:
            check_shapes(path, directions, net, dir_type, need_y=False)
            return dir_type
        except InputError as refusal:
            refusals.append(refusal)
    raise refusals[0]


if __name__ == "__main__":
    command.run(main)
