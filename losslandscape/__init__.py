"""Loss landscapes of neural networks, after Li et al., *Visualizing the Loss Landscape of Neural Nets*, NeurIPS 2018.

    import losslandscape

    axes = losslandscape.directions(net)                        # two random, filter-normalized ones
    measure = losslandscape.losses(inputs, targets)             # or any function(net) -> {name: number}
    surface = losslandscape.surface(net, axes, measure, x="-1:1:21", y="-1:1:21")
    losslandscape.plot(surface, path="surface.png")             # a matplotlib figure
    losslandscape.save(surface, "surface.h5")                   # for plot_2D.py, h52vtp.py, h52html.py, ...

    losslandscape.Recorder(net, "run/").step()                  # checkpoints of a training, for plot_trajectory.py

The command line is `losslandscape` (or the scripts of a clone); losslandscape/__main__.py lists its subcommands.
Names are loaded when they are used (PEP 562): importing this package costs neither torch nor matplotlib nor MPI.
"""

import importlib

__version__ = "2.0.0"

# public name -> the module that has it
_HOMES = {
    "directions": "losslandscape.api",
    "losses": "losslandscape.api",
    "surface": "losslandscape.api",
    "plot": "losslandscape.pictures.api",
    "read": "losslandscape.files.api",
    "save": "losslandscape.files.api",
    "Directions": "losslandscape.files.layouts",
    "Grid": "losslandscape.files.grid",
    "Surface": "losslandscape.files.grid",
    "InputError": "losslandscape.errors",
    "Recorder": "losslandscape.training.recorder",
}
# of these each needs a library that is no requirement
_CALLBACKS = {
    "LightningRecorder": "losslandscape.training.lightning_recorder",
    "TransformersRecorder": "losslandscape.training.transformers_recorder",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    homes = _HOMES | _CALLBACKS
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(homes[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__, *_CALLBACKS])
