"""Cutout: a square hole in every image."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, soft_targets
from rlmix.mixing.cutmix import box_mask, sample_centers


def erase(
    images: Float[Tensor, "batch channel height width"], mask: Bool[Tensor, "#batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Images with zeros where ``mask`` is set."""
    return images.masked_fill(mask[:, None], 0)


class Cutout:
    """Set one square of each image to zero, the mean of normalised images; labels unchanged.

    Every image has a square of its own, ``side`` pixels a side around a uniform centre, clipped at the border (a side beyond the
    image's may erase it all). A batch of one is treated like any other. Cost: 1 pass.

    Args:
        side: Pixels a side, >= 1. The paper's: 16 for CIFAR-10, 8 for CIFAR-100.

    Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout". The published code draws
    image by image in the data loader; an odd ``side`` there loses a pixel, here it does not.
    """

    def __init__(self, side: int = 8) -> None:
        if side < 1:
            raise ValueError(f"side must be at least 1, got {side}")
        self.side = side

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Int[Tensor, " batch"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        check_images(images)
        size = images.shape[2:]
        centers = sample_centers(len(images), size, generator).to(images.device, non_blocking=True)
        holes = box_mask(centers, (self.side, self.side), size)
        return Mixed(erase(images, holes), soft_targets(labels, num_classes))
