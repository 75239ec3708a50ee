"""Gradients of a classifier's loss, whatever the precision of its passes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

FACTORS = (2.0**10, 2.0**5, 1.0)
"""By which the loss is multiplied before a backward pass in float16, the next one where the one before overflows."""


def in_float16(images: Tensor) -> bool:
    """Whether a pass of ``images`` computes in float16, whose smallest number is 6e-8."""
    kind = images.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return images.dtype == torch.float16 or autocast


def loss_gradients(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], inputs: Sequence[Tensor], half: bool
) -> tuple[Float[Tensor, ""], list[Tensor | None]]:
    """The batch's mean cross-entropy, and its gradients with respect to ``inputs``; None for one that it does not depend on.

    Args:
        logits: Float32.
        labels: Class indices.
        inputs: What to differentiate by.
        half: Whether the pass was :func:`in_float16`. There an image's part of a mean over the batch underflows: the sum is
            differentiated, times a power of two, and the gradients are divided in float32 (Micikevicius et al. 2018, "Mixed Precision
            Training"). It costs a synchronisation, to see that nothing overflowed.
    """
    loss = F.cross_entropy(logits, labels)
    if not half:
        return loss, list(torch.autograd.grad(loss, inputs, allow_unused=True))
    found: list[Tensor | None] = []
    for factor in FACTORS:
        scale = factor * len(labels)
        scaled = torch.autograd.grad(scale * loss, inputs, retain_graph=factor != FACTORS[-1], allow_unused=True)
        found = [None if gradient is None else gradient.float() / scale for gradient in scaled]
        if all(bool(gradient.isfinite().all()) for gradient in found if gradient is not None):
            break
    return loss, found
