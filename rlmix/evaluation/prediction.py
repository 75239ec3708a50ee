"""What a classifier says about a split, and how often it is right."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlmix.data.augmentation import normalize
from rlmix.data.dataset import Dataset

BATCH_PIXELS = 500 * 64 * 64
"""Most pixels in a batch that is measured, so that large images do not need much more memory than small ones."""


def topk_correct(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], k: int) -> Int[Tensor, ""]:
    """How many images have their label among the k largest logits (all of them where there are fewer classes), and no nan in them."""
    best = logits.topk(min(k, logits.shape[1])).indices
    return ((best == labels[:, None]).any(1) & ~logits.isnan().any(1)).sum()


def accuracy(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], split: str = "test") -> dict[str, float]:
    """``test_loss``, and ``test_top1`` and ``test_top5`` in percent; the names begin with the split's."""
    return {
        f"{split}_loss": float(F.cross_entropy(logits, labels)),
        f"{split}_top1": 100 * float(topk_correct(logits, labels, 1)) / len(labels),
        f"{split}_top5": 100 * float(topk_correct(logits, labels, 5)) / len(labels),
    }


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


def measured_batch_size(data: Dataset) -> int:
    """500 images, or fewer where they are larger than 64 pixels a side."""
    height, width = data.image_size
    return max(1, min(500, BATCH_PIXELS // (height * width)))


def predict(
    model: nn.Module, data: Dataset, split: str = "test", batch_size: int | None = None
) -> Float[Tensor, "images classes"]:
    """Logits of every image of a split, in eval mode."""
    with evaluating(model), torch.inference_mode():
        batches = data.batches(split, batch_size or measured_batch_size(data))
        return torch.cat([model(normalize(images, data.mean, data.std)).float() for images, _ in batches])
