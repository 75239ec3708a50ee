"""Rewards that compare saliency maps, and who earns them. docs/rewards.md tells every reward's reason and source."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.maps.gradient import gradient_map, patch_saliency
from rlmix.maps.patches import pool

AGENT_PATCHES = 8
"""Patches per side of the map that an agent sees and is rewarded on (the paper's)."""


@dataclass(frozen=True)
class Reaction:
    """How a classifier reacts to a mixed batch."""

    clean: Float[Tensor, "batch height width"]
    """Saliency maps of the clean images."""
    gradient: Float[Tensor, "batch channel height width"] | None
    """Of the step's loss with respect to the mixed images; None where the reward does not read it."""
    partner: Int[Tensor, " batch"]
    share: Float[Tensor, " batch"]
    """Each image's own part of its mixed target."""

    @cached_property
    def mixed(self) -> Float[Tensor, "batch height width"]:
        """Input-gradient maps of the mixed images."""
        if self.gradient is None:
            raise ValueError("gradient must be kept for a reward that compares maps, got None")
        return gradient_map(self.gradient)


def cosine(clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """Cosine similarity of the pooled 8x8 maps, image by image, in [0, 1]: the paper's reward with the credit where it belongs."""
    return F.cosine_similarity(patch_saliency(clean, AGENT_PATCHES).flatten(1), patch_saliency(mixed, AGENT_PATCHES).flatten(1))


def cosine_full(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """The same pixel by pixel, without pooling: stricter, and noisier."""
    return F.cosine_similarity(clean.flatten(1), mixed.flatten(1), eps=0)


def cosine_batch(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """One cosine for the flattened batch of pooled maps, each of which sums to 1: every image counts alike. Given to every image."""
    flat = [patch_saliency(map, AGENT_PATCHES).flatten() for map in (clean, mixed)]
    return F.cosine_similarity(flat[0], flat[1], dim=0).expand(len(clean))


def cosine_published(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """One cosine for the flattened batch of pooled maps as they are, given to every image: the paper's published code.

    Images of large gradients, the hard ones, outweigh the others. Both maps are of losses that are means over the batch, whose size a
    cosine does not see.
    """
    flat = [pool(map, AGENT_PATCHES).flatten() for map in (clean, mixed)]
    return F.cosine_similarity(flat[0], flat[1], dim=0, eps=1e-12).expand(len(clean))


def standardize(rewards: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """``(r - mean) / std`` over the batch: what the classifier's progress and lam do to everyone alike is gone. Zero where all are equal.

    One image hardly moves the mean of many, so to its chooser it is a baseline (Williams 1992), and the best choice stays the best.
    """
    deviation = rewards - rewards.mean()
    return deviation / deviation.square().mean().sqrt().clamp(min=1e-6)


def cosine_label(
    clean: Float[Tensor, "batch height width"],
    mixed: Float[Tensor, "batch height width"],
    partner: Int[Tensor, " batch"],
    share: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Cosine with both images' pooled maps added in the proportion of the label: ``cos(s m_i + (1 - s) m_j, mixed)``.

    A mixed image is trained towards both labels, so its gradient ought to point at both. The paper's reward knows the first alone.
    """
    maps = patch_saliency(clean, AGENT_PATCHES).flatten(1)
    wanted = share[:, None] * maps + (1 - share[:, None]) * maps[partner]
    return F.cosine_similarity(wanted, patch_saliency(mixed, AGENT_PATCHES).flatten(1))


def cosine_shares(
    clean: Float[Tensor, "batch height width"],
    mixed: Float[Tensor, "batch height width"],
    partner: Int[Tensor, " batch"],
    share: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Both images' cosines, in the proportion of the label: ``s cos(m_i, mixed) + (1 - s) cos(m_j, mixed)``."""
    return share * cosine(clean, mixed) + (1 - share) * cosine(clean[partner], mixed)


MAP_REWARDS: dict[str, Callable[[Reaction], Tensor]] = {
    "cosine": lambda reaction: cosine(reaction.clean, reaction.mixed),
    "cosine_full": lambda reaction: cosine_full(reaction.clean, reaction.mixed),
    "cosine_batch": lambda reaction: cosine_batch(reaction.clean, reaction.mixed),
    "cosine_published": lambda reaction: cosine_published(reaction.clean, reaction.mixed),
    "cosine_standard": lambda reaction: standardize(cosine(reaction.clean, reaction.mixed)),
    "cosine_label": lambda reaction: cosine_label(reaction.clean, reaction.mixed, reaction.partner, reaction.share),
    "cosine_shares": lambda reaction: cosine_shares(reaction.clean, reaction.mixed, reaction.partner, reaction.share),
}
"""The rewards that need nothing but maps and shares."""


def share_credit(rewards: Float[Tensor, " batch"], partner_of: Float[Tensor, " batch"], credit: str) -> Float[Tensor, " batch"]:
    """Who earns a reward. An image's choice mixes two images: its own, and the one it is the partner of.

    Args:
        rewards: Of each mixed image.
        partner_of: Of the mixed image in which each image is the partner.
        credit: ``"own"``, ``"pair"`` (the mean of both), or ``"batch"`` (the mean of all).
    """
    if credit == "pair":
        return (rewards + partner_of) / 2
    if credit == "batch":
        return rewards.mean().expand(len(rewards))
    return rewards


def rarity(choices: Int[Tensor, " batch"], num_choices: int) -> Float[Tensor, " batch"]:
    """How rare each choice is in its batch, ``-log(share of the batch that chose the same) / log K``.

    Its mean is the entropy of the batch's choices, from 0 (all the same) to 1 (all K equally frequent). 0 where there is no choice.
    """
    counts = torch.bincount(choices, minlength=num_choices)
    return (len(choices) / counts[choices]).log() / math.log(max(num_choices, 2))
