"""torch.compile for the two passes of a step; where it cannot work, the plain network with one warning."""

import warnings
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


def can_compile(device: torch.device) -> bool:
    """Try torch.compile on a line of code; a RuntimeWarning says why it failed (most often there is no C++ compiler)."""
    try:
        torch.compile(lambda values: values.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # whatever the compiler's own tools stumble over
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"torch.compile does not work here, training goes on without it: {reason}", RuntimeWarning, stacklevel=2)
        return False
    return True


def compile_training(network: nn.Module) -> nn.Module:
    """The network of the training step, whose graphs are reused from step to step; hooks on its stages are not noticed."""
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled


def compile_saliency(model: nn.Module) -> Forward:
    """A forward pass whose backward graph leads to the images alone: compiled with the weights detached.

    Compiled as it stands, a network has one backward graph, which would compute every weight's gradient too.
    """
    compiled = torch.compile(lambda state, images: torch.func.functional_call(model, state, images))

    def forward(images: Tensor) -> Tensor:
        return compiled({name: value.detach() for name, value in chain(model.named_parameters(), model.named_buffers())}, images)

    return forward
