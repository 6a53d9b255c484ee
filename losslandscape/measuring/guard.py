"""A network that a user's function gets, and may change: afterwards it is what it was.

    guard = Guard(net, plane.moved)
    function(net)                     quantizes weights, swaps layers, leaves gradients and hooks behind
    guard.restore()

Put back are the network's parameters and buffers (which ones there are, where they lie, what they
hold, whether they require gradients), its modules with their classes, modes, hooks and the names of
their attributes; gradients are thrown away. What a module keeps otherwise (a counter, a list) is
the function's own affair.

Tensors that the plane moves are not copied: the plane writes them anew at the next point. All others
are held twice; copying them back costs what placing a point does.
"""

import torch

from losslandscape.errors import InputError

# of a module: what it is made of, and what is called with it
TABLES = (
    "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
    "_backward_pre_hooks")


class Guard:
    """Remembers a network as it is now; moved: those of its tensors whose values need no copy."""

    def __init__(self, net, moved=()):
        self._modules = [_Module(module) for module in net.modules()]
        self._tensors = []
        self._still, self._values = [], []

        moved_ids = {id(tensor) for tensor in moved}
        for tensor in unique([*net.parameters(), *net.buffers()]):
            self._tensors.append(_Tensor(tensor))
            if id(tensor) not in moved_ids:
                self._still.append(tensor.data)
                self._values.append(tensor.data.clone())

    @torch.no_grad()
    def restore(self):
        """Put back what was changed since."""
        for module in self._modules:
            if module.is_changed():
                module.restore()
        for tensor in self._tensors:
            if tensor.is_changed():
                tensor.restore()
        if self._still:
            torch._foreach_copy_(self._still, self._values)


class _Module:
    """One module: its class, mode, tables, and the names of its attributes."""

    def __init__(self, module):
        self._module, self._class = module, type(module)
        self._training = module.training
        self._attributes = vars(module)
        self._names = set(self._attributes)

        # tables of the module, what they hold, and these entries one by one
        self._tables, self._lengths, self._entries = [], [], []
        for name in TABLES:
            table = self._attributes.get(name)
            if table is not None:
                self._tables.append((table, dict(table)))
                self._lengths.append((table, len(table)))
                self._entries += [(table, key, entry) for key, entry in table.items()]

    def is_changed(self):
        module = self._module
        if (
            module.training != self._training
            or len(self._attributes) != len(self._names)
            or type(module) is not self._class
        ):
            return True
        for table, length in self._lengths:
            if len(table) != length:
                return True
        for table, key, entry in self._entries:
            if table.get(key) is not entry:
                return True
        return False

    def restore(self):
        self._module.__class__ = self._class
        self._module.training = self._training
        # a plain attribute would hide a parameter of its name
        for name in self._attributes.keys() - self._names:
            del self._attributes[name]
        for table, entries in self._tables:
            table.clear()
            table.update(entries)


class _Tensor:
    """One parameter or buffer: where it lies, and whether it requires gradients."""

    def __init__(self, tensor):
        self._tensor, self._memory = tensor, tensor.data
        self._address = tensor.data_ptr()
        self._shape, self._dtype = tensor.shape, tensor.dtype
        self._requires_grad, self._grad = tensor.requires_grad, tensor.grad

    def is_changed(self):
        tensor = self._tensor
        return (
            tensor.data_ptr() != self._address
            or tensor.grad is not self._grad
            or tensor.requires_grad != self._requires_grad
            or tensor.dtype != self._dtype
            or tensor.shape != self._shape
        )

    def restore(self):
        self._tensor.data = self._memory
        self._tensor.grad = self._grad
        self._tensor.requires_grad_(self._requires_grad)


def unique(tensors):
    """Each tensor once, in order."""
    return list({id(tensor): tensor for tensor in tensors}.values())


class GuardedPlane:
    """A WeightPlane whose network is handed to the user's functions.

    context: of the functions; it is told the point. place_function: a UserFunction that acts on the
    network after it was placed (--place), or None. plane.net: the network.
    """

    def __init__(self, net, plane, context, place_function=None):
        self.net, self.context = net, context
        self._plane = plane
        self._guard = Guard(net, plane.moved)
        self._is_changed = False
        self._place_function = None
        if place_function is not None:
            self._place_function = place_function.ready(net, context)
            self._guard.restore()

    def place(self, x, y=0.0):
        """Put the network at (x, y), whatever was done to it before, and let --place act on it."""
        self.restore()
        self._plane.place(x, y)
        self.context.point = (x, y)
        if self._place_function is not None:
            self._is_changed = True
            treat(self.net, self._place_function, self.context)

    def call(self, function, **options):
        """What a UserFunction gives for the network where it is; the network is restored."""
        self._is_changed = True
        try:
            return function(self.net, self.context, **options)
        finally:
            self.restore()

    def restore(self):
        """The network as it was before a user's function; its moved weights wait for the next place."""
        if self._is_changed:
            self._guard.restore()
            self._is_changed = False

    def release(self):
        """Put the network back to the origin, each tensor in memory of its own."""
        self.restore()
        self._plane.release()


def treat(net, place_function, context):
    """Let --place act on a network, which is in eval mode afterwards.

    Raises InputError where it returns something else than the network that it got.
    """
    result = place_function(net, context)
    if result is not None and result is not net:
        raise InputError(
            f"expected {place_function.flag} {place_function.name} to change the network that it gets, but it "
            f"returns another {type(result).__name__}, which would be lost; change net itself")
    net.eval()


def after_place_function(net, place_function, context, evaluate):
    """evaluate(...) of a network that stands somewhere, and that --place acts on meanwhile.

    Returns a function with the arguments of `evaluate`.
    """

    def evaluate_treated(*arguments):
        guard = Guard(net)
        treat(net, place_function.ready(net, context), context)
        try:
            return evaluate(*arguments)
        finally:
            guard.restore()

    return evaluate_treated
