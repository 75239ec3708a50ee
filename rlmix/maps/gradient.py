"""Saliency maps and the masks cut from them: Equations 2, 3 and 4 of R-Mix."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from rlmix.maps.patches import pool
from rlmix.models.as_found import frozen_statistics
from rlmix.models.loss_gradient import in_float16, loss_gradients
from rlmix.models.outputs import logits_of
from rlmix.models.wrappers import inner_forward


class Saliency(NamedTuple):
    """What one saliency pass gives: the map of every image, and the logits that came with it."""

    map: Float[Tensor, "batch height width"]
    logits: Float[Tensor, "batch classes"]


def saliency(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Shaped[Tensor, "batch *classes"],
    forward: Callable[[Tensor], Any] | None = None,
) -> Saliency:
    """How strongly each pixel moves the loss (Eq. 2): ``sqrt(mean_c (d loss / d image)^2)``.

    The loss is the batch's mean cross-entropy. Only the input gradient is computed, in the mode the model is in. The model is
    left as found: ``.grad``, ``.training``, all that a pass writes (:func:`rlmix.models.as_found.frozen_statistics`) and the random state.

    Args:
        model: Any classifier, images to logits; wrappers (DDP, Fabric, compiled) are taken off; Fabric's precision is kept.
        images: As the model takes them (normalised).
        labels: Class indices in [0, N) of any integer type, or soft targets (B, N).
        forward: How to run ``model`` where that is not to call it, such as :func:`rlmix.training.compilation.compile_saliency`.

    Returns:
        The map (B, H, W), >= 0, and the logits (B, N), both float32 and detached.

    Raises:
        ValueError: If the shapes disagree, the images are no tensor of floating-point numbers, or the model gives no logits.
    """
    check_images(images)
    labels = check_labels(labels, len(images))
    model, run = inner_forward(model)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices), frozen_statistics(model):
        images, labels = (value.clone() if value.is_inference() else value for value in (images, labels))
        inputs = images.detach().requires_grad_()
        output = logits_of((forward or run)(inputs))
        if labels.ndim == 2 and labels.shape != output.shape:
            raise ValueError(f"labels must have shape {tuple(output.shape)} where they are soft, got {tuple(labels.shape)}")
        _, (gradient,) = loss_gradients(output.float(), labels, [inputs], in_float16(inputs, output))
    if gradient is None:
        raise ValueError(f"model must give logits that depend on its images, and those of {type(model).__name__} do not")
    return Saliency(gradient_map(gradient), output.detach().float())


def check_images(images: Tensor) -> None:
    """Raise ValueError where ``images`` are not what a model takes: a (B, C, H, W) tensor of floating-point numbers."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a torch tensor, got {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(f"images must have shape (batch, channel, height, width), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers, as the model takes them, got {images.dtype}")


def check_labels(labels: Tensor, batch_size: int) -> Tensor:
    """Labels (B,) as int64, or soft targets (B, N) as float32.

    Raises:
        ValueError: If they are neither, or not as many as the images.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a torch tensor, got {type(labels).__name__}")
    if labels.ndim not in (1, 2) or len(labels) != batch_size:
        raise ValueError(f"labels must have shape ({batch_size},) or ({batch_size}, classes), got {tuple(labels.shape)}")
    if labels.ndim == 2:
        return labels.float()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers where they are class indices, got {labels.dtype}")
    return labels.long()


def gradient_map(gradient: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch height width"]:
    """Channel-wise root mean square of an input gradient (Eq. 2), float32."""
    squares = torch.zeros_like(gradient[:, 0], dtype=torch.float32, memory_format=torch.contiguous_format)
    for channel in gradient.unbind(1):  # one reduction over neighbours in memory takes three times as long
        squares.addcmul_(channel.float(), channel.float())
    return squares.div_(gradient.shape[1]).sqrt_()


def patch_saliency(map: Float[Tensor, "batch height width"], num_patches: int) -> Float[Tensor, "batch patch patch"]:
    """Average-pool each map to ``num_patches`` patches per side and make it sum to 1 (Eq. 3).

    Patch i of p begins at pixel ``floor(i * side / p)``: where p does not divide a side, patches differ by a pixel, none overlap.
    A map that is zero everywhere, or not finite somewhere, says nothing about its image and becomes uniform, ``1 / p^2``.

    Raises:
        ValueError: If ``num_patches`` is not in [1, the shorter side].
    """
    pooled = pool(map, num_patches)
    total = pooled.sum((1, 2), keepdim=True)
    defined = total.isfinite() & (total > 0)
    return torch.where(defined, pooled / total, 1 / num_patches**2)


def salient_mask(
    patches: Float[Tensor, "batch patch patch"], top_k: Float[Tensor, " batch"]
) -> Bool[Tensor, "batch patch patch"]:
    """Which patches are salient (Eq. 4): those at or above their own image's ``top_k`` quantile.

    The quantile interpolates linearly, as ``torch.quantile`` does, in float32 at least; ``top_k`` 0 makes every patch salient, 0.99 about
    one.

    Args:
        patches: Patch saliency.
        top_k: One quantile an image, in [0, 1). The range is checked on the CPU only, and not by compiled code: on a GPU it would cost a
            synchronisation, and in a compiled function a break of its graph.

    Raises:
        ValueError: If ``top_k`` has another shape or a value outside [0, 1).
    """
    if top_k.shape != patches.shape[:1]:
        raise ValueError(f"top_k must have shape ({len(patches)},), got {tuple(top_k.shape)}")
    looks = top_k.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and not bool(((top_k >= 0) & (top_k < 1)).all()):
        wrong = top_k[~((top_k >= 0) & (top_k < 1))][0].item()
        raise ValueError(f"top_k must be in [0, 1), got {wrong}")
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    ordered = patches.flatten(1).sort(1).values
    position = top_k.to(ordered.dtype) * (ordered.shape[1] - 1)
    lower = position.floor()
    below = ordered.gather(1, lower.long()[:, None])
    above = ordered.gather(1, position.ceil().long()[:, None])
    quantile = torch.lerp(below, above, (position - lower)[:, None])
    return patches >= quantile[:, :, None]
