"""Rewards that compare saliency maps. docs/rewards.md tells every reward's reason and source."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from rlmix.envs.rewards import AGENT_PATCHES, REWARDS
from rlmix.maps.gradient import patch_saliency
from rlmix.maps.patches import pool


@REWARDS.register("cosine")
def cosine(clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """Cosine similarity of the pooled 8x8 maps, image by image, in [0, 1]: the paper's reward with the credit where it belongs."""
    return F.cosine_similarity(patch_saliency(clean, AGENT_PATCHES).flatten(1), patch_saliency(mixed, AGENT_PATCHES).flatten(1))


@REWARDS.register("cosine_full")
def cosine_full(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """The same pixel by pixel, without pooling: stricter, and noisier."""
    return F.cosine_similarity(clean.flatten(1), mixed.flatten(1), eps=0)


@REWARDS.register("cosine_batch")
def cosine_batch(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """One cosine for the flattened batch of pooled maps, each of which sums to 1: every image counts alike. Given to every image."""
    flat = [patch_saliency(map, AGENT_PATCHES).flatten() for map in (clean, mixed)]
    return F.cosine_similarity(flat[0], flat[1], dim=0).expand(len(clean))


@REWARDS.register("cosine_published")
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


@REWARDS.register("cosine_standard")
def cosine_standard(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """The cosine less the batch's mean, over its deviation."""
    return standardize(cosine(clean, mixed))


@REWARDS.register("cosine_label")
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


@REWARDS.register("cosine_shares")
def cosine_shares(
    clean: Float[Tensor, "batch height width"],
    mixed: Float[Tensor, "batch height width"],
    partner: Int[Tensor, " batch"],
    share: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Both images' cosines, in the proportion of the label: ``s cos(m_i, mixed) + (1 - s) cos(m_j, mixed)``."""
    return share * cosine(clean, mixed) + (1 - share) * cosine(clean[partner], mixed)


@REWARDS.register("cosine_even")
def cosine_even(
    clean: Float[Tensor, "batch height width"], mixed: Float[Tensor, "batch height width"], share: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The cosine less what the amount of mixing explains of it in the batch: to mix less, or more, pays nothing in itself.

    With ``h`` the entropy of an image's share of its target, ``r - b (h - mean h)``, b the least-squares slope of the cosine r on h. It is
    what a Lagrange multiplier on the mean entropy leaves of the cosine, estimated anew from every batch.
    """
    rewards = cosine(clean, mixed)
    amount = torch.special.entr(share) + torch.special.entr(1 - share)
    deviation = amount - amount.mean()
    slope = (deviation * rewards).mean() / deviation.square().mean().clamp(min=1e-6)
    return rewards - slope * deviation


def rarity(choices: Shaped[Tensor, "batch *columns"], num_choices: int) -> Float[Tensor, " batch"]:
    """How rare each choice is in its batch, ``-log(share of the batch that chose the same) / log K``.

    Its mean is the entropy of the batch's choices, from 0 (all the same) to 1 (all K equally frequent). 0 where there is no choice.
    A choice of several columns is the same where all of them are.
    """
    same = (choices[:, None] == choices).unsqueeze(-1).flatten(2).all(2)
    alike = same.sum(1)  # torch.bincount would wait for the device
    return (len(choices) / alike).log() / math.log(max(num_choices, 2))
