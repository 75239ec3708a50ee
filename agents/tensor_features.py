"""What a policy reads of an observation, where that lies: :mod:`rlmix.agents.features` in torch."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rlmix.agents.features import LOG_PROBABILITY_FLOOR, NUM_LOGITS, columns
from rlmix.envs.rewards import AGENT_PATCHES


def tensor_features(seen: Mapping[str, Tensor]) -> Float[Tensor, "batch features"]:
    """Give what :func:`~rlmix.agents.features.policy_features` gives, on the observation's device."""
    return torch.cat(columns(seen, map_features, logit_features, angle), 1)


def map_features(maps: Float[Tensor, "batch patch patch"]) -> Float[Tensor, "batch patches"]:
    """Maps that sum to 1, scaled to a mean of a tenth."""
    return maps.flatten(1) * AGENT_PATCHES**2 / 10


def logit_features(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch 10"]:
    """The ten largest log-probabilities, sorted, over 10."""
    largest = logits.log_softmax(1).topk(min(NUM_LOGITS, logits.shape[1]), 1).values.clamp(min=LOG_PROBABILITY_FLOOR)
    return F.pad(largest, (0, NUM_LOGITS - largest.shape[1]), value=LOG_PROBABILITY_FLOOR) / 10


def angle(maps: Float[Tensor, "batch patch patch"], others: Float[Tensor, "batch patch patch"]) -> Float[Tensor, "batch 1"]:
    """In radians, in [0, pi / 2]; maps sum to 1, so none is zero."""
    first, second = maps.flatten(1), others.flatten(1)
    norms = (first.square().sum(1, keepdim=True) * second.square().sum(1, keepdim=True)).sqrt()
    return ((first * second).sum(1, keepdim=True) / norms).clamp(0, 1).arccos()
