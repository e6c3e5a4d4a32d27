"""What the work runs on: the device, the processor's cores, and on a CPU memory that is kept.

More than half of PyTorch's eager time on a CPU goes into pages handed back to the kernel and zeroed again: glibc returns
every large block at once, and each layer's activations are such blocks. Raising its thresholds keeps the pages for the next
layer; the resident set stays at the largest amount in use. Elsewhere than on glibc nothing happens.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

from solution.files import STRICT, Complaints

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
# One of them is there where torch could see a GPU: NVIDIA's driver, its own boards', that of Windows below Linux, AMD's.
DRIVERS = "/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvmap", "/dev/dxg", "/dev/kfd"


def chosen(device: str, complaints: Complaints = STRICT) -> str:
    """`cpu` or `cuda` for auto, cpu or cuda; complains where cuda is asked for and is not there.

    Torch is asked, and so imported, only where the answer is not known without it: ONNX Runtime starts without torch.
    """
    chosen = "cuda" if (device == "cuda" or device == "auto" and may_have_cuda()) and has_cuda() else "cpu"
    if chosen != "cuda" and device == "cuda":
        complaints.add("--device cuda: torch sees no CUDA device here; --device cpu or auto works on the CPU")
    if chosen == "cpu":
        keep_pages()
    elif "LOCAL_RANK" in os.environ:
        own_gpu()
    return chosen


def may_have_cuda() -> bool:
    return sys.platform != "linux" or any(Path(driver).exists() for driver in DRIVERS)


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def own_gpu() -> None:
    """Of the GPUs of a machine, each of the processes that torchrun has started there takes one."""
    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def sharers() -> int:
    """The processes of torchrun's that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def keep_pages() -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # older glibcs refuse more than 32 MiB
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # else each thread has a heap of its own, which keeps no block above 64 MiB


def cores() -> int:
    """Of the processor, that this process may use; OMP_NUM_THREADS, where it is set, has the last word."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What it can do, on which the last digits of a computation depend: architecture and, on Linux, instructions."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return " ".join([platform.machine(), next((line for line in lines if line.startswith(("flags", "Features"))), "")])


def default_workers(device: str) -> int:
    """Processes that decode for a training: a GPU is fed by up to eight; on a CPU one overlaps reading with the arithmetic."""
    return min(os.cpu_count() or 1, 8) if device == "cuda" else 1


def decoders() -> int:
    """Threads that decode for a prediction. On a CPU too one a core: where photographs are large, the models wait for them."""
    return min(cores(), 8)
