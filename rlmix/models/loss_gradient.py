"""Gradients of a classifier's loss, whatever the precision of its passes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

EXPONENTS = (10, 4, -2, -8)
"""Powers of two that the largest gradient of a logit is scaled to, one after the other until nothing overflows float16's 65504."""


def in_float16(images: Tensor, logits: Tensor) -> bool:
    """Whether a pass from ``images`` to ``logits``, just made, computed in float16, whose smallest number is 6e-8."""
    kind = images.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return autocast or torch.float16 in (images.dtype, logits.dtype)


def loss_gradients(
    logits: Float[Tensor, "batch classes"], labels: Shaped[Tensor, "batch *classes"], inputs: Sequence[Tensor], half: bool
) -> tuple[Float[Tensor, ""], list[Tensor | None]]:
    """The batch's mean cross-entropy, and its gradients with respect to ``inputs``; None for one that it does not depend on.

    Args:
        logits: Float32.
        labels: Class indices (B,), or soft targets (B, N).
        inputs: What to differentiate by.
        half: Whether the pass was :func:`in_float16`. There the logits' gradient, which is small in a large batch and for a classifier
            that is sure, is scaled by a power of two, and the gradients are divided in float32 (Micikevicius et al. 2018, "Mixed
            Precision Training"). It costs a synchronisation, to see that nothing overflowed.
    """
    loss = F.cross_entropy(logits, labels)
    if not half:
        return loss, list(torch.autograd.grad(loss, inputs, allow_unused=True))
    (residual,) = torch.autograd.grad(loss, logits, retain_graph=True)
    _, exponent = residual.abs().amax().frexp()
    found: list[Tensor | None] = []
    for power in EXPONENTS:
        scale = torch.ldexp(torch.ones_like(loss), power - exponent)
        scaled = torch.autograd.grad(logits, inputs, residual * scale, retain_graph=True, allow_unused=True)
        found = [None if gradient is None else gradient.float() / scale for gradient in scaled]
        if all(bool(gradient.isfinite().all()) for gradient in found if gradient is not None):
            break
    return loss, found
