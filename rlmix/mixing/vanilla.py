"""No mixing: the baseline of every comparison."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, soft_targets


class Vanilla:
    """The batch as it is, with one-hot targets."""

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
        return Mixed(images, soft_targets(labels, num_classes))
