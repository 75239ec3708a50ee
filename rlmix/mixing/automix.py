"""AutoMix: a mask made by a small attention block over an averaged copy of the classifier, trained along with it."""

import copy
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rlmix.common.seeding import drawing_from
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, sample_lam, sample_partner, soft_targets
from rlmix.mixing.objective import Objective, Scored, score
from rlmix.mixing.registry import METHODS, Setting
from rlmix.models.outputs import logits_of
from rlmix.models.stages import maps_of, stage


class Pair(NamedTuple):
    """Whom the images are mixed with, and how much of them is meant to stay."""

    partner: Int[Tensor, " batch"]
    """Image i is mixed with image ``partner[i]``; a permutation."""
    lam: float
    """Weight of the first image's label."""


@METHODS.register("automix", reads=("stages",))
class AutoMix(nn.Module):
    """AutoMix (Liu et al., ECCV 2022, "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers").

    An averaged copy ``k`` of the classifier ``q`` gives the features ``z`` of the clean images after stage 3. From them the mix block
    makes the mask, the share of the partner at each pixel (Q and K one shared 1x1 convolution to C/2 channels, V one to a single
    channel), and the images are mixed by it:

        mask = sigmoid(enlarge(softmax(Q(z) K(z')^T / sqrt(C/2)) V(z'))),    mixed = (1 - mask) x + mask x',

    once for the classifier and once, with another permutation and another lam, for the block; ``lam ~ Beta(2, 2)``. With targets
    ``lam y + (1 - lam) y'`` the loss is

        CE(q(x)) + CE(q(mixed)) + CE(k(mixed)) + 0.1 max(|1 - mean mask - lam| - 0.1, 0),

    where the classifier's mask is detached, and k's weights are constant: the last two terms train the block alone. After every step
    k's weights become ``m k + (1 - m) q`` with m rising from 0.999 to 0.999999 along half a cosine: call :meth:`after_step`.

    Cost: two passes of q with their gradients, one of k through three stages without, and one of k with the input gradient on the
    share of the batch that trains the block: 2.4 times vanilla at the default share of an eighth, 2.5 at a quarter, 3.1 at 1
    (preactresnet18_w16, batch 100, CPU).

    Differences from the published code, in its configuration for CIFAR (which, unlike that for ImageNet, does not show lam to the
    block): q has one head for both of its losses instead of two; the block is trained on an eighth of the batch, whose order is
    random, at an eighth of the cost and with more noise (``block_share=1`` is the published loss, at 3.1 passes); masks are not
    replaced by a constant where lam is within 0.08 of 0 or 1; the momentum rises from the first step instead of after a tenth of
    the run; k, always in training mode, keeps no running statistics, and stops after stage 3 where only the features are needed.

    Any batch size will do. A batch of one is its own partner: it is mixed with itself, and its mask tells nothing. At least two
    pairs, where there are two, train the block.

    Args:
        model: The classifier, copied; its weights at this moment are k's first.
        num_steps: Steps of the run, over which the momentum rises; it stays at the end afterwards.
        image_size: Height and width the model is used with.
        alpha: Of ``lam ~ Beta(alpha, alpha)``, above 0.
        momentum: The first and the last, in [0, 1].
        mask_weight: Weight of the mask's loss, at least 0.
        mask_margin: How far the mean mask may be from ``1 - lam`` for nothing, at least 0.
        block_share: Share of the batch that trains the block, in (0, 1].
        seed: Of the block's initial weights.

    Raises:
        ValueError: If the model has no stage 3, or a parameter is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        num_steps: int,
        image_size: tuple[int, int] = (32, 32),
        alpha: float = 2.0,
        momentum: tuple[float, float] = (0.999, 0.999999),
        mask_weight: float = 0.1,
        mask_margin: float = 0.1,
        block_share: float = 0.125,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if not 0 <= momentum[0] <= momentum[1] <= 1:
            raise ValueError(f"momentum must be two rising numbers in [0, 1], got {momentum}")
        if not 0 <= mask_weight < math.inf:
            raise ValueError(f"mask_weight must be at least 0, got {mask_weight}")
        if not 0 <= mask_margin < math.inf:
            raise ValueError(f"mask_margin must be at least 0, got {mask_margin}")
        if not 0 < block_share <= 1:
            raise ValueError(f"block_share must be in (0, 1], got {block_share}")
        self.num_steps, self.alpha, self.momentum = num_steps, alpha, momentum
        self.mask_weight, self.mask_margin, self.block_share = mask_weight, mask_margin, block_share
        self.steps = 0
        self.encoder = averaged_copy(model)
        with drawing_from(torch.Generator().manual_seed(seed)):
            self.block = MixBlock(_num_channels(self.encoder, image_size)).to(next(self.encoder.parameters()).device)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "AutoMix":
        """For a training's classifier, length, images and seed."""
        return cls(setting.model, setting.num_steps, setting.image_size, seed=setting.seed, **hyperparameters)

    def forward(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Objective:
        """Mix a batch twice; the objective's targets and logits are those of the classifier's mixed images."""
        check_images(images)
        mine, blocks = (_to(sample_pair(len(images), self.alpha, generator), images.device) for _ in range(2))
        targets = soft_targets(labels, num_classes)
        with torch.no_grad():
            features = features_after(self.encoder, images, "stage3")
            mixed = blend(images, targets, self.block(features, features[mine.partner], images.shape[2:]), mine)
        first = slice(max(2, math.ceil(self.block_share * len(images))))  # batch norm may need two

        def score_all(network: nn.Module) -> Scored:
            clean = F.cross_entropy(logits_of(network(images)).float(), targets)
            loss, logits = score(mixed, network)
            return Scored(clean + loss + self.block_loss(images, targets, features, blocks, first), logits)

        return Objective(mixed.targets, score_all, mixed.images)

    def block_loss(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Float[Tensor, "batch classes"],
        features: Float[Tensor, "batch channel2 height2 width2"],
        pair: Pair,
        rows: slice = slice(None),
    ) -> Float[Tensor, ""]:
        """What trains the block: k's cross-entropy on these rows' mixed images, and the loss of their masks."""
        mask = self.block(features[rows], features[pair.partner[rows]], images.shape[2:])
        mixed = blend(images, targets, mask, pair, rows)
        return score(mixed, self.encoder).loss + self.mask_weight * mask_loss(mask, pair.lam, self.mask_margin)

    def after_step(self, model: nn.Module) -> None:
        """Move k towards the classifier; to be called after every step of the optimizer."""
        weight = 1 - rising_momentum(self.steps, self.num_steps, *self.momentum)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.encoder.parameters()), list(model.parameters()), weight)
        self.steps += 1

    def train(self, mode: bool = True) -> "AutoMix":
        """The encoder is in training mode always: it normalises by the batch at hand."""
        super().train(mode)
        self.encoder.train()
        return self

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken, for :meth:`state_dict`."""
        return {"steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """The inverse of :meth:`get_extra_state`."""
        self.steps = state["steps"]


class MixBlock(nn.Module):
    """Attention from the image's positions to the partner's: where in the image the partner is to be shown.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 2, 1), 1)
        self.value = nn.Conv2d(channels, 1, 1)
        for convolution in (self.query, self.value):
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(
        self,
        features: Float[Tensor, "batch channel height width"],
        partners: Float[Tensor, "batch channel height width"],
        size: tuple[int, ...],
    ) -> Float[Tensor, "batch height2 width2"]:
        """The partner's share at each of ``size`` pixels, float32 whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            features, partners = features.float(), partners.float()
            query, key = self.query(features).flatten(2), self.query(partners).flatten(2)
            attention = (query.mT @ key / math.sqrt(query.shape[1])).softmax(2)
            score = attention @ self.value(partners).flatten(2).mT
            mask = score.reshape(-1, 1, *features.shape[2:]).sigmoid()
            return F.interpolate(mask, size=tuple(size), mode="nearest")[:, 0]


def sample_pair(batch_size: int, alpha: float, generator: torch.Generator | None = None) -> Pair:
    """Draw partners and ``lam ~ Beta(alpha, alpha)``, on the host."""
    return Pair(sample_partner(batch_size, generator), sample_lam(alpha, generator))


def blend(
    images: Float[Tensor, "batch channel height width"],
    targets: Float[Tensor, "batch classes"],
    mask: Float[Tensor, "rows height width"],
    pair: Pair,
    rows: slice = slice(None),
) -> Mixed:
    """``(1 - mask) x + mask x'`` with targets ``lam y + (1 - lam) y'``, for some rows of the batch."""
    partner, share = pair.partner[rows], mask[:, None].to(images.dtype)
    return Mixed(
        torch.lerp(images[rows], images[partner], share),
        pair.lam * targets[rows] + (1 - pair.lam) * targets[partner],
    )


def mask_loss(mask: Float[Tensor, "batch height width"], lam: float, margin: float = 0.1) -> Float[Tensor, ""]:
    """``max(|1 - mean mask - lam| - margin, 0)`` over the batch."""
    return ((1 - mask.mean() - lam).abs() - margin).clamp(min=0)


def rising_momentum(step: int, num_steps: int, first: float = 0.999, last: float = 0.999999) -> float:
    """From ``first`` to ``last`` along half a cosine."""
    return last - (last - first) * (1 + math.cos(math.pi * min(step / num_steps, 1))) / 2


def averaged_copy(model: nn.Module) -> nn.Module:
    """A copy whose weights are constants to autograd and whose batch norms, in training mode, record nothing."""
    encoder = copy.deepcopy(model).requires_grad_(False).train()
    for module in encoder.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
    return encoder


class _ReachedError(Exception):
    """Carries features out of a network that need not run on."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


def features_after(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], name: str
) -> Float[Tensor, "batch channel2 height2 width2"]:
    """The maps that the stage ``name`` gives, see :func:`rlmix.models.stages.maps_of`; the rest of the network does not run."""

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        raise _ReachedError(features)

    handle = stage(model, name).register_forward_hook(leave)
    try:
        model(images)
    except _ReachedError as reached:
        return maps_of(reached.features, images.shape[2:])
    finally:
        handle.remove()
    raise ValueError(f"stage must be one that {type(model).__name__} runs through, got {name!r}")


def _num_channels(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Of the features after stage 3, found by a trial."""
    stem = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    images = torch.zeros(2, stem.shape[1], *image_size, dtype=stem.dtype, device=stem.device)
    with torch.no_grad():
        return features_after(model, images, "stage3").shape[1]


def _to(pair: Pair, device: torch.device) -> Pair:
    return pair._replace(partner=to_device(pair.partner, device))
