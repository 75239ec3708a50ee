"""Steps whose loss or gradient is not finite: found on the device, never applied, and told of when the device is looked at anyway."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def all_finite(loss: Float[Tensor, ""], parameters: Iterable[nn.Parameter]) -> Bool[Tensor, ""]:
    """Whether the loss and every gradient are finite; stays on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    peaks = torch._foreach_norm(gradients, float("inf"))  # the largest magnitude, in which inf and nan show
    return torch.stack([loss.detach().float(), *(peak.float() for peak in peaks)]).isfinite().all()


def restore_where_not(finite: Bool[Tensor, ""], buffers: list[Tensor], before: list[Tensor]) -> None:
    """Put the values ``before`` back into ``buffers`` unless ``finite``: a step that is left out leaves no running statistics."""
    with torch.no_grad():
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))
