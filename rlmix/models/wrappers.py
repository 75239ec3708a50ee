"""The module inside of what wraps a classifier for many devices, other precisions or a compiler."""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def inner(model: nn.Module) -> nn.Module:
    """The classifier itself: out of DistributedDataParallel, DataParallel, Fabric's module and torch.compile's, however nested.

    A pass through a DDP wrapper that is not followed by its own backward pass leaves the ranks' gradients unsynchronised.
    """
    return inner_forward(model)[0]


def inner_forward(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The classifier itself, and how to run it: at the precision of Fabric's module, where it was in one."""
    wrapped: Any = model
    if isinstance(model, _known("OptimizedModule", "torch._dynamo.eval_frame")):
        return inner_forward(wrapped._orig_mod)
    if isinstance(model, DistributedDataParallel | DataParallel):
        return inner_forward(wrapped.module)
    if isinstance(model, _known("_FabricModule", "lightning_fabric.wrappers", "lightning.fabric.wrappers")):
        found, run = inner_forward(wrapped._forward_module)
        return found, _at_precision(run, wrapped._strategy.precision)
    return model, model


def _at_precision(run: Callable[[Tensor], Tensor], precision: Any) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        with precision.forward_context():
            output: Tensor = precision.convert_output(run(precision.convert_input(images)))
        return output

    return forward


def _known(name: str, *homes: str) -> tuple[type, ...]:
    """The classes called so in those of ``homes`` that somebody has imported: what nobody has imported wraps nothing."""
    return tuple(getattr(sys.modules[home], name) for home in homes if home in sys.modules)
