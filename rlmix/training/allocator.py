"""Memory of large tensors on the CPU."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let glibc reuse large blocks; False where there is no glibc. For commands, not for libraries: it is the whole process's.

    By default each tensor above 32 MB is mapped from the kernel and given back, page by page, at every step. On 2 cores a training
    step of preactresnet18_w16 at batch 100 took 135 ms with that and 118 ms without (medians of 12, interleaved).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
