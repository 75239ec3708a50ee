"""Where a classifier sees an object, without having been told: class activation maps, and how often their boxes hit.

Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization"; :mod:`rlmix.evaluation.protocols` draws the boxes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlmix.data.augmentation import normalize
from rlmix.data.dataset import Dataset
from rlmix.evaluation.prediction import evaluating, measured_batch_size
from rlmix.evaluation.protocols import Box, protocol_of
from rlmix.models.stages import stage


@dataclass(frozen=True)
class Localization:
    """Percent of the images whose predicted box overlaps a true one by at least half (IoU)."""

    gt_known: float
    """With the map of the true class."""
    top1: float
    """With the map of the predicted class, where that is the true one; a misclassified image counts as missed."""
    whole_image: float
    """With the whole image as every box: what one learns from the boxes' sizes alone, the control."""
    num_images: int


def classifier_of(model: nn.Module) -> nn.Linear:
    """The linear layer that ends a network.

    Raises:
        ValueError: If the network does not end in a linear layer on its last stage's channels.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    stage(model, "last")
    if not linear:
        raise ValueError(f"class activation maps need a network that ends in a linear layer, got {type(model).__name__}")
    return linear[-1]


def activation_maps(
    model: nn.Module, images: Float[Tensor, "batch channel height width"]
) -> tuple[Float[Tensor, "batch classes height2 width2"], Float[Tensor, "batch classes"]]:
    """Class activation maps ``M_c(x, y) = sum_k w_ck f_k(x, y)`` of every class, and the logits, which are their means plus the bias.

    ``f`` are the features that the last stage gives, ``w`` the weights of the linear layer that takes their mean.

    Raises:
        ValueError: If the network is not of that form.
    """
    linear, seen = classifier_of(model), {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        seen["features"] = features

    handle = stage(model, "last").register_forward_hook(keep)
    try:
        logits = model(images).float()
    finally:
        handle.remove()
    if seen["features"].ndim != 4:
        shape = tuple(seen["features"].shape)
        raise ValueError(f"class activation maps need a last stage that gives maps, got {shape} of {type(model).__name__}")
    features = seen["features"].float()
    pooled = features.mean((2, 3))
    weight, bias = linear.weight.float(), 0 if linear.bias is None else linear.bias.float()
    fits = pooled.shape[1] == weight.shape[1] and torch.allclose(pooled @ weight.T + bias, logits, rtol=0.05, atol=0.05)
    if not fits:
        raise ValueError(
            f"class activation maps need a network whose logits are a linear layer of its last stage's mean, got {type(model).__name__}"
        )
    return torch.einsum("bkhw,ck->bchw", features, weight), logits


def iou(first: Box, second: Box) -> float:
    """Intersection over union, in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (first, second))
    return shared / (areas - shared)


def localize(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, " batch"],
    protocol: str = "comixup",
    threshold: float | None = None,
) -> tuple[list[Box], list[bool]]:
    """For each image the box of its true class's map, by ``protocol``, and whether that class is predicted."""
    drawn = protocol_of(protocol)
    maps, logits = activation_maps(model, images)
    own = maps[torch.arange(len(labels), device=labels.device), labels]
    own = drawn.enlarge(own, (images.shape[2], images.shape[3]))
    part = drawn.threshold if threshold is None else threshold
    return [drawn.box(map, part) for map in own.detach().cpu().numpy()], (logits.argmax(1) == labels).tolist()


def localization_accuracy(
    model: nn.Module,
    data: Dataset,
    boxes: Mapping[int, list[Box]],
    protocol: str = "comixup",
    threshold: float | None = None,
    split: str = "test",
    batch_size: int | None = None,
) -> Localization:
    """Weakly supervised localization on the images of a split that have boxes.

    Args:
        model: Ends in average pooling and a linear layer.
        data: The images.
        boxes: True boxes by the image's position in the split; any of them may be hit.
        protocol: One of :data:`~rlmix.evaluation.protocols.PROTOCOLS`: comixup (the paper's), zhou.
        threshold: In (0, 1); the protocol's own where None.
        split: Name of the split.
        batch_size: Images at a time.

    Raises:
        ValueError: If ``threshold`` is out of range, there is no box, or the network is of another form.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    if not boxes:
        raise ValueError("boxes must hold at least one box of an image of the split, got none")
    position = known = top1 = whole = 0
    height, width = data.image_size
    everything = (0.0, 0.0, float(width), float(height))
    with evaluating(model), torch.inference_mode():
        for pixels, labels in data.batches(split, batch_size or measured_batch_size(data)):
            rows = [row for row in range(len(labels)) if position + row in boxes]
            if rows:
                images = normalize(pixels[rows], data.mean, data.std)
                for row, box, right in zip(rows, *localize(model, images, labels[rows], protocol, threshold), strict=True):
                    hit = any(iou(box, true) >= 0.5 for true in boxes[position + row])
                    known += hit
                    top1 += hit and right
                    whole += any(iou(everything, true) >= 0.5 for true in boxes[position + row])
            position += len(labels)
    scale = 100 / len(boxes)
    return Localization(scale * known, scale * top1, scale * whole, len(boxes))
