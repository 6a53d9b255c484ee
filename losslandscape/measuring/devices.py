"""What evaluation needs of a device: precision, memory, CUDA graphs, waiting, batch sizes."""

import contextlib
import ctypes
import time

import torch

from losslandscape.errors import InputError

# --precision: dtype of convolutions and linear layers (None: as the network has them),
# TF32 on or off (None: as torch has it)
PRECISIONS = {
    "": (None, None),
    "fp32": (None, False),
    "tf32": (None, True),
    "bf16": (torch.bfloat16, None),
}

# parameters of glibc's mallopt
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

SHARE_FOR_DATA = 0.7  # of a device's free memory; the rest is for the network and its activations


# ---------------------------------------------------------------- precision


def precision_name(precision, device):
    """The name under which a precision is recorded: what '' means depends on the device.

    Raises InputError for one that is unknown, or that the device does not have.
    """
    if precision not in PRECISIONS:
        names = ", ".join(name for name in PRECISIONS if name)
        raise InputError(f"expected --precision {names}; got {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise InputError(
            "expected a CUDA device for --precision tf32; take fp32 or bf16 on the CPU")

    if precision:
        return precision
    if device.type == "cpu":
        return "fp32"
    return "torch default (TF32 in convolutions)"


def slow_precision(precision, device):
    """Words for the user where the processor has to emulate a precision, else ''."""
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

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = allow
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def dtype_of(net):
    """The dtype in which a network takes its inputs: that of its first floating-point parameter."""
    for parameter in net.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


# ---------------------------------------------------------------- memory


def keep_memory():
    """Have the C library keep freed memory for the next batch, not give it back to the kernel.

    By default glibc maps and unmaps every large activation, and the kernel zeroes its pages each
    time: that costs up to a third of the time of a forward pass. Harmless where there is no
    glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        accepted = mallopt(M_MMAP_THRESHOLD, 1 << 30)
        if not accepted:  # older ones refuse more than 32 MB
            mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def fits(size, device):
    """Do `size` bytes of data fit on the device beside the network and its activations?"""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size < SHARE_FOR_DATA * free


def choose_memory_format(net, example):
    """channels_last for images (B, channels, height, width), if the network gives the same with it.

    A network that calls .view on its features does not.
    """
    if example.dim() != 4:
        return torch.contiguous_format
    try:
        with torch.no_grad():
            expected = net(example)
            got = net(example.contiguous(memory_format=torch.channels_last))
        tolerance = 1e-3 * float(expected.abs().max())
        if torch.allclose(expected, got, rtol=1e-3, atol=tolerance, equal_nan=True):
            return torch.channels_last
    except Exception:  # whatever a foreign network raises; or its output is no tensor
        pass
    return torch.contiguous_format


# ---------------------------------------------------------------- time


def captured(run, device, net):
    """run(idle) -> tensor as one CUDA graph, so that a whole pass costs one launch.

    `run` itself where it can't be captured: where the network waits for the device, or draws random
    numbers.

    A graph repeats the kernels of one pass, on the same memory. It follows the tensors of `net` as
    long as these are changed in place; where one of them lies elsewhere than at the capture, the
    graph is captured anew. Numbers that a network makes of its tensors on the CPU can't be captured:
    they wait for the device.
    """
    try:
        graph, result = capture(run, device)
    except RuntimeError:
        return run
    tensors = tensors_by_module(net)
    places = memory_places(tensors)

    def replay(idle):
        nonlocal graph, result, places
        places_now = memory_places(tensors)
        if places_now != places:
            try:
                graph, result = capture(run, device)
            except RuntimeError:
                return run(idle)
            places = places_now
        graph.replay()
        return result

    return replay


def capture(run, device):
    """(CUDA graph of run(), its result). Raises RuntimeError where a pass can't be captured.

    The graph does not hold the memory that `run` has from elsewhere: keep `run` as long as it.
    """
    with torch.cuda.device(device):
        # libraries choose their algorithms in a first run, outside of the capture
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
    return graph, result


def tensors_by_module(net):
    """The {name: tensor or None} in which the modules of a network hold their tensors."""
    return [
        tensors for module in net.modules() for tensors in (module._parameters, module._buffers)
        if tensors]


def memory_places(tensors_of_modules):
    """The addresses of the tensors in [{name: tensor or None}]; 0.1 ms for 600 tensors."""
    return [
        tensor.data_ptr()
        for tensors in tensors_of_modules for tensor in tensors.values() if tensor is not None]


def wait_for(devices, idle):
    """Return when the devices have done what was started on them; idle() is called meanwhile."""
    for device in devices:
        if device.type != "cuda":
            continue
        done = torch.cuda.current_stream(device).record_event()
        while not done.query():  # not synchronize(): the other ranks want answers meanwhile
            idle()
            time.sleep(0.0002)


def batch_sizes_to_try(sizes, device, count):
    """The batch sizes of `sizes`, {device type: batch sizes}, that `count` samples can fill."""
    candidates = sizes.get(device.type, (128,))
    filled = [batch_size for batch_size in candidates if batch_size <= count]
    return filled or [count]
