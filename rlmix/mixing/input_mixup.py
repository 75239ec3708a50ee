"""Input mix-up: every image blended with its partner."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, sample_lam, sample_partner, soft_targets
from rlmix.mixing.registry import METHODS


def interpolate(values: Float[Tensor, "batch *rest"], partner: Int[Tensor, " batch"], lam: float) -> Float[Tensor, "batch *rest"]:
    """``lam * values + (1 - lam) * values[partner]``, row by row, in the dtype of ``values``: images, features or targets."""
    return torch.lerp(values[partner], values, lam)


@METHODS.register("input_mixup")
@dataclass(frozen=True)
class InputMixup:
    """Blend images and targets with those of a random partner: ``lam * x + (1 - lam) * x[partner]``, ``lam ~ Beta(alpha, alpha)``.

    One permutation and one ``lam`` a batch. An image that is its own partner stays; so does a batch of one. Cost: 1 pass.

    Args:
        alpha: Parameter of the Beta distribution, > 0; 1 is the paper's for CIFAR.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization". The published code adds the cross-entropies of the two
    labels, weighted; that of the mixed target is the same number.
    """

    alpha: Annotated[float, above(0)] = 1.0

    def __post_init__(self) -> None:
        check_values(self)

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
        partner = to_device(sample_partner(len(images), generator), images.device)
        lam = sample_lam(self.alpha, generator)
        targets = soft_targets(labels, num_classes)
        return Mixed(interpolate(images, partner, lam), interpolate(targets, partner, lam))
