"""Saliency maps and the masks cut from them: Equations 2, 3 and 4 of R-Mix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Saliency(NamedTuple):
    """What one saliency pass gives: the map of every image, and the logits that came with it."""

    map: Float[Tensor, "batch height width"]
    logits: Float[Tensor, "batch classes"]


def saliency(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Saliency:
    """How strongly each pixel moves the loss (Eq. 2): ``sqrt(mean_c (d loss / d image)^2)``.

    The loss is the batch's mean cross-entropy. Only the input gradient is computed, in the mode the model is in. The model is
    left as found: ``.grad``, ``.training``, the running statistics of its batch norms and the random state.

    Args:
        model: Any classifier, images to logits. Pass the inner module of a DDP wrapper.
        images: As the model takes them (normalised).
        labels: Class indices in [0, N).
        forward: How to run ``model`` where that is not to call it, such as :func:`rlmix.compilation.compile_saliency`.

    Returns:
        The map (B, H, W), >= 0, and the logits (B, N), both float32 and detached.

    Raises:
        ValueError: If the shapes disagree.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (batch, channel, height, width), got {tuple(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape ({len(images)},), got {tuple(labels.shape)}")
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad(), frozen_statistics(model):
        inputs = images.detach().requires_grad_()
        logits = (forward or model)(inputs).float()
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), inputs)
    return Saliency(gradient_map(gradient), logits.detach())


def gradient_map(gradient: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch height width"]:
    """Channel-wise root mean square of an input gradient (Eq. 2), float32."""
    squares = torch.zeros_like(gradient[:, 0], dtype=torch.float32, memory_format=torch.contiguous_format)
    for channel in gradient.unbind(1):  # one reduction over neighbours in memory takes three times as long
        squares.addcmul_(channel.float(), channel.float())
    return squares.div_(gradient.shape[1]).sqrt_()


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms in training mode go on normalising by the batch, but do not record it."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    norms = [module for module in norms if module.training]  # in eval mode the flag would change what they compute
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def patch_saliency(map: Float[Tensor, "batch height width"], num_patches: int) -> Float[Tensor, "batch patch patch"]:
    """Average-pool each map to ``num_patches`` patches per side and make it sum to 1 (Eq. 3).

    A map that is zero everywhere, or not finite somewhere, says nothing about its image and becomes uniform, ``1 / p^2``.

    Raises:
        ValueError: If ``num_patches`` does not divide the height and the width.
    """
    height, width = map.shape[1:]
    if num_patches < 1 or height % num_patches or width % num_patches:
        raise ValueError(f"num_patches must divide the image size {height}x{width}, got {num_patches}")
    pooled = F.avg_pool2d(map.float()[:, None], (height // num_patches, width // num_patches))[:, 0]
    total = pooled.sum((1, 2), keepdim=True)
    defined = total.isfinite() & (total > 0)
    return torch.where(defined, pooled / total, 1 / num_patches**2)


def salient_mask(
    patches: Float[Tensor, "batch patch patch"], top_k: Float[Tensor, " batch"]
) -> Bool[Tensor, "batch patch patch"]:
    """Which patches are salient (Eq. 4): those at or above their own image's ``top_k`` quantile.

    The quantile interpolates linearly, as ``torch.quantile`` does; ``top_k`` 0 makes every patch salient, 0.99 about one.

    Args:
        patches: Patch saliency.
        top_k: One quantile an image, in [0, 1). The range is checked on the CPU only: on a GPU it would cost a synchronisation.

    Raises:
        ValueError: If ``top_k`` has another shape or a value outside [0, 1).
    """
    if top_k.shape != patches.shape[:1]:
        raise ValueError(f"top_k must have shape ({len(patches)},), got {tuple(top_k.shape)}")
    if top_k.device.type == "cpu" and not bool(((top_k >= 0) & (top_k < 1)).all()):
        wrong = top_k[~((top_k >= 0) & (top_k < 1))][0].item()
        raise ValueError(f"top_k must be in [0, 1), got {wrong}")
    ordered = patches.flatten(1).sort(1).values
    position = top_k.to(ordered.dtype) * (ordered.shape[1] - 1)
    lower = position.floor()
    below = ordered.gather(1, lower.long()[:, None])
    above = ordered.gather(1, position.ceil().long()[:, None])
    quantile = torch.lerp(below, above, (position - lower)[:, None])
    return patches >= quantile[:, :, None]
