"""Where directions and surfaces come from, and how directions are made from it.

    origin = describe_origin(job, recipe, net)                  weights, code, what moves
    axes = read_or_make_directions(job, experiment, net, origin)        read from their file, or made
"""

import os

from losslandscape import user_code, weight_space
from losslandscape.files.names import fits_file_system
from losslandscape.files.provenance import circumstances
from losslandscape.messages import say
from losslandscape.networks.checkpoints import checkpoint_hash
from losslandscape.networks.loading import weights_hash


def describe_origin(job, recipe, net):
    """Where directions and surface come from: part of the provenance of both files."""
    network = job.network
    origin = {"model": str(network.architecture), "model_file": recipe.model_file}

    # the weights
    if network.model_file:
        origin["checkpoint"] = checkpoint_hash(recipe.model_file)
    else:
        origin["checkpoint"] = weights_hash(net)
    if recipe.x.model_file:
        origin["checkpoint2"] = checkpoint_hash(recipe.x.model_file)
    if recipe.y and recipe.y.model_file:
        origin["checkpoint3"] = checkpoint_hash(recipe.y.model_file)
    whole_name = os.path.basename(recipe.whole_file_name())
    if not fits_file_system(whole_name) and not job.directions.dir_file:
        origin["whole_name"] = whole_name

    # the user's code, and what moves
    optional = {
        **user_code.code_hashes("model", network.model),
        "params": recipe.params,
        "freeze": recipe.freeze,
        "checkpoint_key": network.checkpoint_key,
    }
    origin |= {key: value for key, value in optional.items() if value}
    return origin | circumstances()


def read_or_make_directions(job, experiment, net, origin, write=True):
    """The directions of an experiment, read from their file or made."""
    recipe = experiment.recipe
    user_named_the_file = bool(job.directions.dir_file)
    if not user_named_the_file:
        warn_about_unnormalized(recipe)

    # a file that the user names may come from elsewhere (a PCA, another network's plane): only its shapes must fit
    provenance = origin
    if not user_named_the_file:
        provenance = origin | {"dir_type": recipe.dir_type}
    return weight_space.setup_direction(
        experiment.dir_file, recipe, net, lambda path: job.network.load_other(path, net), provenance,
        check=not user_named_the_file, write=write)


def warn_about_unnormalized(recipe):
    """Warn where a random direction is not scaled to the weights."""
    for axis in (recipe.x, recipe.y):
        if axis is not None and not axis.model_file and axis.norm == "":
            say("warning: a random direction without normalization (--preset paper, --xnorm filter) says little about "
                "the network: the scale of the weights decides the picture (Li et al. 2018, section 4)")
            return
