"""No mixing: the baseline of every comparison."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, soft_targets
from rlmix.mixing.registry import METHODS


@METHODS.register("vanilla")
@dataclass(frozen=True)
class Vanilla:
    """The batch as it is, with one-hot targets."""

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
        return Mixed(images, soft_targets(labels, num_classes))
