"""Checkpoints of a training for its path: written while it runs, by a line in any loop.

    with losslandscape.Recorder(net, "run/") as recorder:       # run/epoch=0.pt: before the training
        for epoch in range(1, 301):
            ...
            recorder.step(epoch=epoch)                           # run/epoch=1.pt, ...

    python plot_trajectory.py --model mine.py:net --checkpoints 'run/epoch=*.pt'

For Lightning and for the Trainer of Hugging Face there are callbacks: LightningRecorder and
TransformersRecorder, with the same arguments.

A step costs a copy of the weights; files are written meanwhile, by a thread. A file is whole at
every moment. A disk that is full costs records, never the training.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import torch

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.names import RECORD_UNITS, record_file_name, recorded_numbers
from losslandscape.messages import say
from losslandscape.networks.own import unwrapped


class Recorder:
    """Writes FOLDER/epoch=N.pt (or step=N.pt), which plot_trajectory.py takes as --checkpoints.

    net: the network, or what DataParallel, DistributedDataParallel or torch.compile made of it.
    every: records each so-manieth epoch (or step). unit: 'epoch' or 'step'.
    dtype: torch.float16 or torch.bfloat16 halves the files: tensors of two or more dimensions are
        rounded. The path is the same up to the rounding of the weights (float16: a relative 5e-4
        of each). The last record, from which surfaces are computed, is in full precision.
    resume: go on in a folder that has records; numbers go on from the last one.

    Of several processes the one of rank 0 writes, the others do nothing. Raises InputError for a
    folder that has records without `resume`, or can't be written, and for sharded weights.
    """

    def __init__(self, net, folder, every=1, unit="epoch", dtype=None, resume=False):
        if unit not in RECORD_UNITS:
            raise InputError(f"expected unit 'epoch' or 'step', got {unit!r}; give one of them")
        if not isinstance(every, int) or every < 1:
            raise InputError(f"expected a whole number of at least 1 as every, got {every!r}")
        if dtype is not None and not getattr(dtype, "is_floating_point", False):
            raise InputError(f"expected a dtype such as torch.float16, got {dtype!r}")
        self.net = unwrapped(net)
        refuse_shards(self.net)
        self.folder, self.every, self.unit, self.dtype = str(folder), every, unit, dtype

        self.number = 0  # of the last epoch or step
        self._last_file = None  # number of the last record
        self._has_warned = False
        self._writer, self._pending = None, None
        self._is_writer = is_first_process()
        if self._is_writer:
            self._begin(resume)

    def _begin(self, resume):
        """Make the folder, and record the weights before the training."""
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise InputError(f"can't make the folder {self.folder} ({error.strerror}); "
                             "name another place") from None
        if not os.access(self.folder, os.W_OK):
            raise InputError(f"can't write to {self.folder}; make it writable")

        numbers = recorded_numbers(self.folder, self.unit)
        if numbers and not resume:
            raise InputError(
                f"expected a folder without records of another training, {self.folder} has "
                f"{len(numbers)}; give another one, or resume=True to go on")
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")
        if numbers:
            self.number = self._last_file = max(numbers)
        else:
            self._record({}, self.dtype)

    def step(self, *, epoch=None, step=None, **scores):
        """Call it after each epoch (or step); records those that `every` leads to.

        epoch, step: the number, else one more than the last. scores: numbers that are kept beside
        the weights, such as train_loss=0.1.
        """
        for unit, number in (("epoch", epoch), ("step", step)):
            if number is not None and unit != self.unit:
                raise InputError(f"expected {self.unit}=N, as unit={self.unit!r} says, "
                                 f"got {unit}={number}; make a Recorder with unit={unit!r}")
        number = epoch if epoch is not None else step
        if number is None:
            number = self.number + 1
        self.number = int(number)
        if self._is_writer and self.number % self.every == 0:
            self._record(scores, self.dtype)

    def close(self):
        """Record the last state, in full precision, and wait until all is written."""
        if self._writer is None:
            return
        is_rounded = self.dtype is not None
        if is_rounded or self._last_file != self.number:
            self._record({}, None)
        self._wait()
        self._writer.shutdown()
        self._writer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ writing

    def _record(self, scores, dtype):
        if self._writer is None:
            raise InputError("expected a Recorder that is not closed yet; make another one")
        # one record is on its way at a time, so that memory does not grow
        self._wait()
        content = {"state_dict": copy_of_state(self.net, dtype), self.unit: self.number, **scores}
        path = os.path.join(self.folder, record_file_name(self.unit, self.number))
        self._pending = self._writer.submit(_write, path, content)
        self._last_file = self.number

    def _wait(self):
        """Wait for the record that is being written; say once where that failed."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
            self._has_warned = False
        except InputError as error:
            if not self._has_warned:
                say(f"warning: a record of the training is lost: {error}")
            self._has_warned = True


def _write(path, content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getbuffer())


def copy_of_state(net, dtype=None):
    """{name: tensor on the CPU}: a copy of the state dict; tied tensors are copied once.

    dtype: of floating-point tensors of two or more dimensions, where they fit into it.
    """
    copies, state = {}, {}
    for name, value in net.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            continue
        if id(value) not in copies:
            copies[id(value)] = _copied(value.detach(), dtype)
        state[name] = copies[id(value)]
    return state


def _copied(tensor, dtype):
    if dtype is not None and tensor.is_floating_point() and tensor.dim() > 1:
        rounded = tensor.to(dtype)
        if rounded.element_size() < tensor.element_size() and rounded.isfinite().all():
            return rounded.cpu()
    return tensor.to("cpu", copy=True)


def is_first_process():
    """Is this the process of rank 0, or the only one?"""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"  # torchrun's, before the processes have met


def refuse_shards(net):
    """Raises InputError where no process has the whole weights."""
    for name, parameter in net.named_parameters():
        if hasattr(parameter, "full_tensor") or "_flat_param" in name:
            raise InputError(
                f"expected whole weights, {name} is sharded (FSDP); write full state dicts with "
                "torch.distributed.checkpoint.state_dict.get_model_state_dict")
