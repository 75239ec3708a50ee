"""Input mix-up: every image blended with its partner."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, sample_lam, soft_targets


def interpolate(values: Float[Tensor, "batch *rest"], partner: Int[Tensor, " batch"], lam: float) -> Float[Tensor, "batch *rest"]:
    """``lam * values + (1 - lam) * values[partner]``, row by row, in the dtype of ``values``: images, features or targets."""
    return torch.lerp(values[partner], values, lam)


class InputMixup:
    """Blend images and targets with those of a random partner: ``lam * x + (1 - lam) * x[partner]``, ``lam ~ Beta(alpha, alpha)``.

    One permutation and one ``lam`` a batch. An image that is its own partner stays; so does a batch of one. Cost: 1 pass.

    Args:
        alpha: Parameter of the Beta distribution, > 0; 1 is the paper's for CIFAR.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization". The published code adds the cross-entropies of the two
    labels, weighted; that of the mixed target is the same number.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha = alpha

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
        partner = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
        lam = sample_lam(self.alpha, generator)
        targets = soft_targets(labels, num_classes)
        return Mixed(interpolate(images, partner, lam), interpolate(targets, partner, lam))
