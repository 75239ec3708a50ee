"""Cutout: a square hole in every image."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import at_least
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, soft_targets
from rlmix.mixing.cutmix import box_mask, sample_centers
from rlmix.mixing.registry import METHODS, Setting


def erase(
    images: Float[Tensor, "batch channel height width"], mask: Bool[Tensor, "#batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Images with zeros where ``mask`` is set."""
    return images.masked_fill(mask[:, None], 0)


@METHODS.register("cutout")
@dataclass(frozen=True)
class Cutout:
    """Set one square of each image to zero, the mean of normalised images; labels unchanged.

    Every image has a square of its own, ``side`` pixels a side around a uniform centre, clipped at the border (a side beyond the
    image's may erase it all). A batch of one is treated like any other. Cost: 1 pass.

    Args:
        side: Pixels a side, >= 1. The paper's: 16 for CIFAR-10, 8 for CIFAR-100.

    Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout". The published code draws
    image by image in the data loader; an odd ``side`` there loses a pixel, here it does not.
    """

    side: Annotated[int, at_least(1)] = 8

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "Cutout":
        """The paper's side for CIFAR-10, 16; elsewhere a quarter of the image's, its 8 for CIFAR-100."""
        side = 16 if setting.data == "cifar10" else max(1, setting.image_size[1] // 4)
        return cls(**{"side": side} | hyperparameters)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        check_images(images)
        size = images.shape[2:]
        centers = to_device(sample_centers(len(images), size, generator), images.device)
        holes = box_mask(centers, (self.side, self.side), size)
        return Mixed(erase(images, holes), soft_targets(labels, num_classes))
