"""AlignMix: features of two images mixed after one has been moved, position by position, to where the other has the like."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above, at_least
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, device_of, sample_lam, sample_partner, soft_targets
from rlmix.mixing.objective import Objective, Scored
from rlmix.mixing.registry import METHODS, Setting
from rlmix.models.outputs import logits_of
from rlmix.models.stages import maps_of, stage, transformed, with_maps


class AlignDraw(NamedTuple):
    """What chance decides about a batch."""

    partner: Int[Tensor, " batch"]
    """Image i is mixed with image ``partner[i]``; a permutation."""
    lam: float
    """Weight of the first image."""
    align: bool
    """Whether aligned features are mixed; else the images are."""
    move_partner: bool
    """Whether the partner's features are moved to the image's positions; else the image's to the partner's."""


@METHODS.register("alignmix", reads=("stages",))
@dataclass(frozen=True)
class AlignMix:
    """AlignMix (Venkataramanan et al., CVPR 2022, "AlignMixup: Improving Representations By Interpolating Aligned Features").

    A fair coin decides between Input Mix-up, ``lam x + (1 - lam) x'``, and mixing the last stage's features ``A`` and ``A'``
    (C channels, n positions) after aligning them. A second coin decides which of the two is moved:

        lam A + (1 - lam) A' R^T    or    lam A R + (1 - lam) A',    R = n P,

    where ``P`` is the plan of the entropic optimal transport of the positions, all of equal weight, under the squared L2 distance
    of their features: log-domain Sinkhorn, eps 0.1, 100 iterations, no gradient through the plan. Targets are
    ``lam y + (1 - lam) y'`` either way; ``lam ~ Beta(2, 2)``, one lam, one permutation and one throw of the coins a batch.

    Cost: one pass, and 200 normalisations of a 16x16 matrix an image in half of the steps.

    Differences from the published code. There, every iteration ends with the columns, and stops once the potentials change by less
    than 0.1. On features that are not normalised even 100 iterations are far from converged (after an epoch on digits, some rows of
    R sum to 8 instead of 1), so that ``A' R^T`` has positions of many times the features' size, and empty ones. Here the iteration
    ends on the side that is summed over: every aligned feature is a mean of features. It always runs to the end, for to look
    whether it has converged is to wait for the device. Once converged, the plans are the same.

    A batch of one is its own partner: the plan then aligns an image with itself. Any batch size will do, odd ones too.

    Args:
        alpha: Of ``lam ~ Beta(alpha, alpha)``, above 0.
        eps: Weight of the plan's entropy, above 0.
        num_iterations: Of Sinkhorn's algorithm, at least 1.
    """

    alpha: Annotated[float, above(0)] = 2.0
    eps: Annotated[float, above(0)] = 0.1
    num_iterations: Annotated[int, at_least(1)] = 100

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "AlignMix":
        """For a training's classifier, which must have stages."""
        stage(setting.model, "last")
        return cls(**hyperparameters)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed | Objective:
        """Mix a batch: :class:`Mixed` images, or an :class:`Objective` that mixes features on their way.

        Raises:
            ValueError: If the model has no stages.
        """
        check_images(images)
        stage(model, "last")  # fails at the first batch, not at the first one that is aligned
        draw = sample_align(len(images), self.alpha, generator)
        partner, lam = to_device(draw.partner, images.device), draw.lam
        targets = soft_targets(labels, num_classes)
        targets = lam * targets + (1 - lam) * targets[partner]
        if not draw.align:
            return Mixed(lam * images + (1 - lam) * images[partner], targets)

        def mix(features: Tensor) -> Tensor:
            maps = maps_of(features, images.shape[2:])
            mixed = mix_aligned(maps, partner, lam, draw.move_partner, self.eps, self.num_iterations)
            # a class token has no position to be moved from
            return mixed if maps is features else with_maps(lam * features + (1 - lam) * features[partner], mixed)

        def score(network: nn.Module) -> Scored:
            with transformed(model, "last", mix):
                logits = logits_of(network(images)).float()
            return Scored(F.cross_entropy(logits, targets), logits)

        return Objective(targets, score)


def sample_align(batch_size: int, alpha: float, generator: torch.Generator | None = None) -> AlignDraw:
    """Draw partners, ``lam ~ Beta(alpha, alpha)`` and the two coins of a batch, on the host."""
    partner = sample_partner(batch_size, generator)
    lam = sample_lam(alpha, generator)
    align, move_partner = torch.randint(2, (2,), generator=generator, device=device_of(generator)).bool().tolist()
    return AlignDraw(partner, lam, align, move_partner)


def mix_aligned(
    features: Float[Tensor, "batch channel height width"],
    partner: Int[Tensor, " batch"],
    lam: float,
    move_partner: bool,
    eps: float = 0.1,
    num_iterations: int = 100,
) -> Float[Tensor, "batch channel height width"]:
    """``lam A + (1 - lam) A' R^T`` with ``move_partner``, else ``lam A R + (1 - lam) A'``."""
    own = features.flatten(2)
    theirs = own[partner]
    if move_partner:
        mixed = lam * own + (1 - lam) * aligned(theirs, own, eps, num_iterations)
    else:
        mixed = lam * aligned(own, theirs, eps, num_iterations) + (1 - lam) * theirs
    return mixed.reshape(features.shape)


def aligned(
    source: Float[Tensor, "batch channel from"],
    target: Float[Tensor, "batch channel to"],
    eps: float = 0.1,
    num_iterations: int = 100,
) -> Float[Tensor, "batch channel to"]:
    """The source's features moved to the positions of the target's: at each, a mean of the source's weighted by the plan."""
    with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
        plan = sinkhorn(squared_distances(source.float(), target.float()), eps, num_iterations)
        weights = plan * target.shape[2]
    return source @ weights.to(source.dtype)


def squared_distances(
    first: Float[Tensor, "batch channel from"], second: Float[Tensor, "batch channel to"]
) -> Float[Tensor, "batch from to"]:
    """Squared L2 distance of every position of the first to every one of the second."""
    products = torch.bmm(first.mT, second)
    return (first.square().sum(1)[:, :, None] + second.square().sum(1)[:, None] - 2 * products).clamp(min=0)


def sinkhorn(cost: Float[Tensor, "batch from to"], eps: float = 0.1, num_iterations: int = 100) -> Float[Tensor, "batch from to"]:
    """Plans of the entropic transport between uniform weights, by Sinkhorn's iteration in the log domain.

    They minimise ``sum_ij P_ij (cost_ij + eps log P_ij)``. Columns sum to 1/to exactly, rows to 1/from as far as it has converged.
    """
    log_plan = cost / -eps
    for _ in range(num_iterations):  # of the plan itself: rounding errors of potentials grow with the cost, these do not
        log_plan = log_plan.log_softmax(2).log_softmax(1)
    return log_plan.exp() / cost.shape[2]
