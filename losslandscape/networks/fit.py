"""Do these weights belong to this network? Compared are names and shapes of two state dicts."""

from dataclasses import dataclass

# An entry of batch norm that evaluation doesn't use; PyTorch before 0.4.1 did not save it.
BATCH_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Mismatch:
    """The names in which a state dict differs from that of a network; empty where it fits."""

    missing: tuple = ()
    unexpected: tuple = ()
    misshaped: tuple = ()

    def __bool__(self):
        return bool(self.missing or self.unexpected or self.misshaped)

    def describe(self, expected, state_dict):
        """The differences in words: how many, and the first with both shapes."""
        first = (*self.misshaped, *self.missing, *self.unexpected)[0]
        shapes = f"expected {_shape_of(first, expected)}, got {_shape_of(first, state_dict)}"
        return (
            f"{len(self.missing)} keys are missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshaped)} of another shape (first: {first}, {shapes})")


def compare(expected, state_dict):
    """Mismatch of `state_dict` with `expected`, the state dict of a network; names in their order.

    Nothing is missing where a batch counter is (it keeps its value), or where the tensor of a
    missing name stands in `state_dict` under another one: with tied weights one tensor of
    `expected` has several names, and a file may hold it once. To see that, make `expected` with
    keep_vars=True.
    """
    supplied = {id(tensor) for name, tensor in expected.items() if name in state_dict}
    missing = [
        name for name, tensor in expected.items()
        if id(tensor) not in supplied and not name.endswith(BATCH_COUNTER)
    ]
    unexpected = [name for name in state_dict if name not in expected]
    misshaped = [
        name for name, tensor in expected.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    return Mismatch(tuple(missing), tuple(unexpected), tuple(misshaped))


def _shape_of(name, state_dict):
    if name not in state_dict:
        return "nothing"
    return str(tuple(state_dict[name].shape))
