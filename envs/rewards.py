"""Rewards by name: how well a mixed image keeps what its clean image's gradient points at, one number an image."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlmix.maps import patch_saliency
from rlmix.names import check_name

Reward = Callable[[Tensor, Tensor], Tensor]

AGENT_PATCHES = 8
"""Patches per side of the map that an agent sees and is rewarded on (the paper's)."""


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
    """One cosine for the flattened batch of pooled maps, given to every image: the paper's published code."""
    flat = [patch_saliency(map, AGENT_PATCHES).flatten() for map in (clean, mixed)]
    return F.cosine_similarity(flat[0], flat[1], dim=0).expand(len(clean))


REWARDS: dict[str, Reward] = {"cosine": cosine, "cosine_full": cosine_full, "cosine_batch": cosine_batch}


def reward_function(name: str) -> Reward:
    """The reward called ``name``; ValueError for an unknown one."""
    check_name("reward", name, REWARDS)
    return REWARDS[name]


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
