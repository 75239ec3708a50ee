"""A training of its own inside of somebody else's program."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Inside, torch is as a training needs it, whatever the caller has set: also a decorator.

    Gradients are recorded and tensors are no inference tensors, under ``torch.no_grad`` and ``torch.inference_mode`` too; the caller's
    autocast is off, so that the configuration's own precision counts; new tensors are float32 and on the CPU.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                # within a caller's autocast the casts of weights would be kept from step to step
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
