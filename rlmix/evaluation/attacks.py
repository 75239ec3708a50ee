"""Images changed a little so that a classifier errs. Attacks work on pixels in [0, 1], in eval mode."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rlmix.common.seeding import stream
from rlmix.data.dataset import Dataset
from rlmix.evaluation.prediction import evaluating, measured_batch_size, topk_correct
from rlmix.models.loss_gradient import in_float16, loss_gradients

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


class PixelModel(nn.Module):
    """A classifier that takes pixels in [0, 1]: the normalisation goes inside, so that attacks work on pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        return self.model((pixels - self.mean) / self.std)


def fgsm(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    epsilon: float = 8 / 255,
) -> Float[Tensor, "batch channel height width"]:
    """Images moved by ``epsilon`` along the sign of the loss's gradient (Goodfellow et al. 2015), within [0, 1].

    Args:
        model: Takes pixels in [0, 1]; see :class:`PixelModel`.
        images: Pixels in [0, 1].
        labels: Class indices.
        epsilon: Size of the step in the L-infinity norm.
    """
    return (images + epsilon * _gradient(model, images, labels).sign()).clamp(0, 1)


def pgd(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    epsilon: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 7,
    noise: Float[Tensor, "batch channel height width"] | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """``num_steps`` steps along the sign of the gradient, each brought back within ``epsilon`` of the image and [0, 1].

    Args:
        model: Takes pixels in [0, 1]; see :class:`PixelModel`.
        images: Pixels in [0, 1].
        labels: Class indices.
        epsilon: How far a pixel may move.
        step_size: Of each step.
        num_steps: At least 1.
        noise: Where to start from, as an offset within ``epsilon``; None starts from the image itself.

    Source: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks"; their 7 steps of 2/255 for CIFAR.
    """
    moved = images if noise is None else (images + noise).clamp(0, 1)
    for _ in range(num_steps):
        moved = moved + step_size * _gradient(model, moved, labels).sign()
        moved = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return moved


def attack_error(model: nn.Module, data: Dataset, attack: Attack, split: str = "test", batch_size: int | None = None) -> float:
    """Top-1 error on a split's images after ``attack(model, pixels, labels)``, in percent."""
    attacked = PixelModel(model, data.mean, data.std)
    wrong = total = 0
    with evaluating(model):
        for images, labels in data.batches(split, batch_size or measured_batch_size(data)):
            moved = attack(attacked, _pixels(images), labels)
            with torch.inference_mode():
                wrong += len(labels) - int(topk_correct(attacked(moved), labels, 1))
            total += len(labels)
    return 100 * wrong / total


def fgsm_error(
    model: nn.Module, data: Dataset, epsilon: float = 8 / 255, split: str = "test", batch_size: int | None = None
) -> float:
    """:func:`attack_error` of :func:`fgsm`."""
    return attack_error(model, data, partial(fgsm, epsilon=epsilon), split, batch_size)


def pgd_error(
    model: nn.Module, data: Dataset, epsilon: float = 8 / 255, split: str = "test", batch_size: int | None = None
) -> float:
    """:func:`attack_error` of :func:`pgd` with 7 steps of ``epsilon / 4`` from a uniform start, the same at every call."""
    generator = stream(0, "pgd")

    def attack(attacked: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        noise = (2 * torch.rand(pixels.shape, generator=generator) - 1) * epsilon
        return pgd(attacked, pixels, labels, epsilon, epsilon / 4, noise=noise.to(pixels.device))

    return attack_error(model, data, attack, split, batch_size)


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        logits = model(inputs)
        _, (gradient,) = loss_gradients(logits.float(), labels, [inputs], in_float16(inputs, logits))
    if gradient is None:
        raise ValueError(f"model must give logits that depend on its images, and those of {type(model).__name__} do not")
    return gradient


def _pixels(images: UInt8[Tensor, "batch height width channel"]) -> Float[Tensor, "batch channel height width"]:
    return images.float().div_(255).permute(0, 3, 1, 2)
