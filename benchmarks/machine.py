"""On what a number was measured."""

import os
import platform


def hardware(cuda=False):
    """The processor, the versions, and how busy the machine was before."""
    import torch

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    found = {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
             "torch": torch.__version__, "load_before": round(os.getloadavg()[0], 2)}
    return found | ({"gpu": torch.cuda.get_device_name()} if cuda else {})
