"""The module inside of what wraps a classifier for many devices, other precisions or a compiler."""

import sys
from typing import Any

from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.parallel import DataParallel, DistributedDataParallel


def inner(model: nn.Module) -> nn.Module:
    """The classifier itself: out of DistributedDataParallel, DataParallel, Fabric's module and torch.compile's, however nested.

    A pass through a DDP wrapper that is not followed by its own backward pass leaves the ranks' gradients unsynchronised.
    """
    wrapped: Any = model
    while isinstance(wrapped, (OptimizedModule, DistributedDataParallel, DataParallel, *_fabric_modules())):
        wrapped = getattr(wrapped, "_orig_mod" if isinstance(wrapped, OptimizedModule) else "module")
    found: nn.Module = wrapped
    return found


def _fabric_modules() -> tuple[type, ...]:
    """Fabric's wrapper, by either name of its package; no import where nobody has imported it."""
    found = [sys.modules.get(name) for name in ("lightning_fabric.wrappers", "lightning.fabric.wrappers")]
    return tuple(wrappers._FabricModule for wrappers in found if wrappers is not None)
