"""Mixing pairs of images patch by patch: Equations 5 to 7 of R-Mix, the four rules of its Table 12."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rlmix.common.names import check_name
from rlmix.common.registry import Registry
from rlmix.maps.gradient import check_images, check_labels
from rlmix.maps.patches import enlarge, pixel_share

RULES: Registry[Callable[[Tensor, Tensor, Tensor], Tensor]] = Registry("rule")
"""Functions of a patch's own mask and the partner's, bool (B, p, p), and lam, which broadcasts to them: the image's own part of it."""


class Mixed(NamedTuple):
    """A mixed batch: images as the model takes them, and soft targets whose rows sum to 1."""

    images: Float[Tensor, "batch channel height width"]
    targets: Float[Tensor, "batch classes"]


class Pairing(NamedTuple):
    """What chance decides about a batch before anyone chooses a top-k value."""

    partner: Int[Tensor, " batch"]
    """Image i is mixed with image ``partner[i]``; a permutation."""
    lam: float
    """Weight of the first image where the two are blended, in [0, 1]."""
    num_patches: int
    """Patches per side of the masks."""


class Arranged(torch.Generator):
    """A generator under which every method that pairs images takes these partners and this lam, and draws the rest: to compare methods.

    Args:
        partner: Of each image of the batches to come.
        lam: In [0, 1].
        seed: Of what is drawn.
    """

    partner: Tensor
    lam: float

    def __new__(cls, partner: Int[Tensor, " batch"], lam: float, seed: int) -> "Arranged":
        made = super().__new__(cls)
        made.partner, made.lam = partner, lam
        made.manual_seed(seed)
        return made


def sample_partner(batch_size: int, generator: torch.Generator | None = None) -> Int[Tensor, " batch"]:
    """Draw whom each image is mixed with: a permutation."""
    if isinstance(generator, Arranged):
        return generator.partner
    return torch.randperm(batch_size, generator=generator, device=device_of(generator))


def sample_lam(alpha: float, generator: torch.Generator | None = None) -> float:
    """Draw ``lam ~ Beta(alpha, alpha)``; torch's own Beta takes no generator."""
    if isinstance(generator, Arranged):
        return generator.lam
    seed = torch.randint(2**63 - 1, (), generator=generator, device=device_of(generator))
    return float(np.random.default_rng(int(seed)).beta(alpha, alpha))


def sample_pairing(
    batch_size: int, num_patches: tuple[int, ...], alpha: float, generator: torch.Generator | None = None
) -> Pairing:
    """Draw partners, ``lam ~ Beta(alpha, alpha)`` and one of ``num_patches`` for a batch."""
    device = device_of(generator)
    partner = sample_partner(batch_size, generator)
    lam = sample_lam(alpha, generator)
    index = torch.randint(len(num_patches), (), generator=generator, device=device)
    return Pairing(partner, lam, num_patches[int(index)])


def sample_center(batch_size: int, generator: torch.Generator | None = None) -> Float[Tensor, "batch 2"]:
    """Draw where each image's box would lie, everywhere equally likely: parts of the sides, in [0, 1)."""
    return torch.rand(batch_size, 2, dtype=torch.float32, generator=generator, device=device_of(generator))


def top_k_values(num_top_k: int) -> Float[Tensor, " values"]:
    """The top-k values there are to choose from: ``linspace(0, 0.99, num_top_k)``."""
    if num_top_k < 1:
        raise ValueError(f"num_top_k must be at least 1, got {num_top_k}")
    return torch.linspace(0, 0.99, num_top_k, dtype=torch.float32, device="cpu")


def sample_top_k(batch_size: int, num_top_k: int, generator: torch.Generator | None = None) -> Float[Tensor, " batch"]:
    """Draw one of the top-k values for each image, all equally likely: the fixed-random policy of R-Mix."""
    index = torch.randint(num_top_k, (batch_size,), generator=generator, device=device_of(generator))
    return top_k_values(num_top_k).to(index.device)[index]


def mix(
    images: Float[Tensor, "batch channel height width"],
    targets: Shaped[Tensor, "batch *classes"],
    mask: Bool[Tensor, "batch patch patch"],
    partner: Int[Tensor, " batch"],
    lam: float | Float[Tensor, "*batch"],
    rule: str = "mix_top",
    *,
    num_classes: int | None = None,
) -> Mixed:
    """Mix each image with its partner, patch by patch, and its target by the share of pixels it keeps (Eq. 5-7).

    With an image's own mask ``m0`` and its partner's ``m1``, a patch of the result is (Table 12, Strategies 1-4)

    - ``"cut_top"``: the image's where ``m0``, else the partner's;
    - ``"cut_top_least"``: the image's where ``m0 == m1``, else the partner's;
    - ``"mix_top"`` (R-Mix): ``lam * image + (1 - lam) * partner`` where ``m0 == m1``, else the salient one;
    - ``"mix_least"``: the same blend where ``m0 == m1``, else the one that is not salient.

    Args:
        images: The batch.
        targets: Labels (B,) with ``num_classes``, or soft targets (B, N).
        mask: Each image's salient patches, p patches per side, at most as many as the shorter side has pixels. Patch i begins at
            pixel ``floor(i * side / p)``.
        partner: Index of each image's partner in the batch.
        lam: Weight of the first image in a blend, in [0, 1]: one number, or one an image (B,). Tensors are checked on the CPU only, and
            not by compiled code.
        rule: One of the four above.
        num_classes: N, where ``targets`` are labels.

    Returns:
        Mixed images in the images' dtype and float32 targets: an image's weight in its target is exactly its share of the pixels.

    Raises:
        ValueError: If a shape, ``lam`` or ``rule`` is not as stated.
    """
    _validate(images, targets, mask, partner, lam, rule)
    return blend(images, soft_targets(targets, num_classes), patch_weights(mask, mask[partner], lam, rule), partner)


def patch_weights(
    mask: Bool[Tensor, "batch patch patch"],
    theirs: Bool[Tensor, "batch patch patch"],
    lam: float | Float[Tensor, "*batch"],
    rule: str = "mix_top",
) -> Float[Tensor, "batch patch patch"]:
    """How much of each patch is the image's own, in [0, 1], by its mask and its partner's (Table 12).

    Its mean over the pixels is the label's share.
    """
    if isinstance(lam, Tensor):
        both = lam.to(mask.device, torch.float32).reshape(-1, 1, 1)
    else:
        # filled there: a copy from the host would wait for the device
        both = torch.full((1, 1, 1), lam, dtype=torch.float32, device=mask.device)
    return RULES[rule](mask, theirs, both)


@RULES.register("cut_top")
def cut_top(
    own: Bool[Tensor, "batch patch patch"], theirs: Bool[Tensor, "batch patch patch"], lam: Float[Tensor, "#batch 1 1"]
) -> Float[Tensor, "batch patch patch"]:
    """Strategy 1: the own image where it is salient, else the partner."""
    return own.float()


@RULES.register("cut_top_least")
def cut_top_least(
    own: Bool[Tensor, "batch patch patch"], theirs: Bool[Tensor, "batch patch patch"], lam: Float[Tensor, "#batch 1 1"]
) -> Float[Tensor, "batch patch patch"]:
    """Strategy 2: the own image where both or neither are salient, else the partner."""
    return (own == theirs).float()


@RULES.register("mix_top")
def mix_top(
    own: Bool[Tensor, "batch patch patch"], theirs: Bool[Tensor, "batch patch patch"], lam: Float[Tensor, "#batch 1 1"]
) -> Float[Tensor, "batch patch patch"]:
    """Strategy 3, R-Mix: a blend where both or neither are salient, else the salient one."""
    return torch.where(own == theirs, lam, own.float())


@RULES.register("mix_least")
def mix_least(
    own: Bool[Tensor, "batch patch patch"], theirs: Bool[Tensor, "batch patch patch"], lam: Float[Tensor, "#batch 1 1"]
) -> Float[Tensor, "batch patch patch"]:
    """Strategy 4: a blend where both or neither are salient, else the one that is not."""
    return torch.where(own == theirs, lam, theirs.float())


def blend(
    images: Float[Tensor, "batch channel height width"],
    targets: Float[Tensor, "batch classes"],
    weights: Float[Tensor, "batch patch patch"],
    partner: Int[Tensor, " batch"],
) -> Mixed:
    """Each image with its partner, patch by patch in the ratio of ``weights``, and its target by their mean over the pixels."""
    share = pixel_share(weights, images.shape[2:])[:, None]
    wide = torch.promote_types(images.dtype, weights.dtype)  # weights rounded to a half image's type would not be the label's
    pixels, own, theirs = enlarge(weights, images.shape[2:])[:, None].to(wide), images.to(wide), images[partner].to(wide)
    return Mixed(
        (pixels * own + (1 - pixels) * theirs).to(images.dtype),
        share * targets + (1 - share) * targets[partner],
    )


def soft_targets(targets: Shaped[Tensor, "batch *classes"], num_classes: int | None) -> Float[Tensor, "batch classes"]:
    """Labels of any integer type as one-hot rows; soft targets (B, N) as they are. Float32."""
    targets = check_labels(targets, len(targets))
    if targets.ndim == 2:
        return targets
    if num_classes is None:
        raise ValueError("num_classes must be given where targets are labels, got None")
    return F.one_hot(targets, num_classes).float()


def smoothed(
    targets: Shaped[Tensor, "batch *classes"], smoothing: float, num_classes: int | None = None
) -> Float[Tensor, "batch classes"]:
    """Spread a part of every target evenly over the N classes: ``(1 - smoothing) y + smoothing / N`` (Szegedy et al. 2016).

    A mixture of smoothed targets is the smoothed mixture.

    Args:
        targets: Labels (B,) with ``num_classes``, or soft targets (B, N).
        smoothing: The part, in [0, 1).
        num_classes: N, where ``targets`` are labels.
    """
    targets = soft_targets(targets, num_classes)
    return (1 - smoothing) * targets + smoothing / targets.shape[1]


def check_mixing(num_top_k: int, num_patches: tuple[int, ...], alpha: float, rule: str) -> None:
    """Raise ValueError where a parameter of R-Mix is out of range."""
    if num_top_k < 1:
        raise ValueError(f"num_top_k must be at least 1, got {num_top_k}")
    if not num_patches or min(num_patches) < 1:
        raise ValueError(f"num_patches must be one or more numbers of at least 1, got {num_patches}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be above 0, got {alpha}")
    if ":" not in rule:
        check_name("rule", rule, RULES)


def _validate(images: Tensor, targets: Tensor, mask: Tensor, partner: Tensor, lam: float | Tensor, rule: str) -> None:
    check_images(images)
    if targets.ndim not in (1, 2) or len(targets) != len(images):
        raise ValueError(f"targets must have shape ({len(images)},) or ({len(images)}, classes), got {tuple(targets.shape)}")
    batch, height, width = len(images), *images.shape[2:]
    if ":" not in rule:
        check_name("rule", rule, RULES)
    if mask.dtype != torch.bool or mask.ndim != 3 or len(mask) != batch or not mask.shape[1] == mask.shape[2] > 0:
        raise ValueError(f"mask must be bool of shape ({batch}, p, p), got {mask.dtype} of {tuple(mask.shape)}")
    if mask.shape[1] > min(height, width):
        raise ValueError(f"mask must have at most a patch a pixel of {height}x{width}, got {mask.shape[1]} a side")
    if partner.shape != (batch,):
        raise ValueError(f"partner must have shape ({batch},), got {tuple(partner.shape)}")
    if isinstance(lam, Tensor):
        if lam.numel() not in (1, batch):
            raise ValueError(f"lam must be one number or have shape ({batch},), got {tuple(lam.shape)}")
        if lam.device.type != "cpu" or torch.compiler.is_compiling():
            return
    low, high = (float(lam.min()), float(lam.max())) if isinstance(lam, Tensor) else (lam, lam)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"lam must be in [0, 1], got {high if 0 <= low <= 1 else low}")


def device_of(generator: torch.Generator | None) -> torch.device:
    """Where to draw: on the generator's device, and on the host by the global one, whatever torch's default device is."""
    return generator.device if generator is not None else torch.device("cpu")
