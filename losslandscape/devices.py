"""What a device can do: precisions, memory, layouts, CUDA graphs, waiting."""

import contextlib
import ctypes
import time

import torch

from losslandscape.errors import InputError

# dtype of convolutions and linear layers (None: as the network has them), TF32 on or off (None: as torch has it)
PRECISIONS = {"": (None, None), "fp32": (None, False), "tf32": (None, True), "bf16": (torch.bfloat16, None)}


def precision_name(precision, device):
    """The name under which a precision is recorded: what '' means depends on the device."""
    if precision not in PRECISIONS:
        raise InputError(f"expected --precision {', '.join(filter(None, PRECISIONS))}; got {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise InputError("expected a CUDA device for --precision tf32; take fp32 or bf16 on the CPU")
    if precision:
        return precision
    return "fp32" if device.type == "cpu" else "torch default (TF32 in convolutions)"


def slow_precision(precision, device):
    """Words for the user where the processor has no instructions for a precision and emulates it, else ''."""
    if precision != "bf16" or device.type != "cpu":
        return ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        if "bf16" not in f.read():
            return " (slow: this processor has no bf16 instructions)"
    return ""


@contextlib.contextmanager
def tf32(allow):
    """Switch TF32 for convolutions and matrix products; None leaves torch's own choice."""
    if allow is None:
        yield
        return
    old = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = old


def keep_memory():
    """Have the C library keep freed memory for the next batch instead of giving it back to the kernel.

    By default glibc maps and unmaps every large activation, and the kernel zeroes its pages each time: that costs up to
    a third of the time of a forward pass. Harmless where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30) or mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD; older ones refuse more than 32 MB
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def fits(size, device):
    """Do `size` bytes of data fit on the device beside the network and its activations? What does not is streamed."""
    return device.type != "cuda" or size < 0.7 * torch.cuda.mem_get_info(device)[0]


def captured(run, device):
    """`run` as one CUDA graph: the launches of a whole pass cost one call. Where it can't be captured, `run` itself."""
    try:
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()  # warm-up: libraries choose their algorithms outside the capture
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                sums = run()
    except RuntimeError:  # a network that waits for the device, or draws random numbers
        return run

    def replay(_):
        graph.replay()
        return sums

    return replay


def layout(net, example):
    """channels_last for images if the network gives the same with it (one that calls .view on features does not)."""
    if example.dim() != 4:
        return torch.contiguous_format
    try:
        with torch.no_grad():
            expected, got = net(example), net(example.contiguous(memory_format=torch.channels_last))
        if torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), equal_nan=True):
            return torch.channels_last
    except (RuntimeError, TypeError):
        pass
    return torch.contiguous_format


def wait(devices, idle):
    """Return when the devices have done what was started on them; idle() is called meanwhile."""
    for device in devices:
        if device.type == "cuda":
            done = torch.cuda.current_stream(device).record_event()
            while not done.query():  # not synchronize(): the other ranks want answers meanwhile
                idle()
                time.sleep(0.0002)
