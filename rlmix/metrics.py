"""How good a classifier is: accuracy, calibration, robustness. All in percent, 0 to 100."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rlmix.augmentation import normalize
from rlmix.datasets import ImageData


def topk_correct(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], k: int) -> Int[Tensor, ""]:
    """How many images have their label among the k largest logits (all of them where there are fewer classes)."""
    best = logits.topk(min(k, logits.shape[1])).indices
    return (best == labels[:, None]).any(1).sum()


def expected_calibration_error(
    probabilities: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over ``num_bins`` equal bins ``(i/M, (i+1)/M]`` of confidence, in percent.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", Eq. 3.
    """
    confidence, prediction = probabilities.double().max(1)
    correct = (prediction == labels).double()
    bins = (confidence * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
    gap = torch.zeros(num_bins, dtype=torch.float64, device=bins.device).index_add_(0, bins, correct - confidence)
    return 100 * float(gap.abs().sum()) / len(labels)


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
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs).float(), labels), inputs)
    return (images + epsilon * gradient.sign()).clamp(0, 1)


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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, the former mode after."""
    training = [module for module in model.modules() if module.training]  # one by one: a frozen batch norm stays in eval mode
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def predict(model: nn.Module, data: ImageData, batch_size: int = 500) -> Float[Tensor, "test classes"]:
    """Logits of every test image, in eval mode."""
    with evaluating(model), torch.inference_mode():
        batches = [normalize(images, data.mean, data.std) for images in data.test_images.split(batch_size)]
        return torch.cat([model(batch).float() for batch in batches])


def accuracy(logits: Float[Tensor, "test classes"], labels: Int[Tensor, " test"]) -> dict[str, float]:
    """``test_loss``, and ``test_top1`` and ``test_top5`` in percent."""
    return {
        "test_loss": float(F.cross_entropy(logits, labels)),
        "test_top1": 100 * float(topk_correct(logits, labels, 1)) / len(labels),
        "test_top5": 100 * float(topk_correct(logits, labels, 5)) / len(labels),
    }


def fgsm_error(model: nn.Module, data: ImageData, epsilon: float = 8 / 255, batch_size: int = 500) -> float:
    """Top-1 error on the test images after :func:`fgsm`, in percent."""
    attacked = PixelModel(model, data.mean, data.std)
    wrong = 0
    with evaluating(model):
        for images, labels in zip(data.test_images.split(batch_size), data.test_labels.split(batch_size), strict=True):
            moved = fgsm(attacked, _pixels(images), labels, epsilon)
            with torch.inference_mode():
                wrong += len(labels) - int(topk_correct(attacked(moved), labels, 1))
    return 100 * wrong / len(data.test_labels)


def _pixels(images: UInt8[Tensor, "batch height width channel"]) -> Float[Tensor, "batch channel height width"]:
    return images.float().div_(255).permute(0, 3, 1, 2)
