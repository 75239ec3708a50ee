"""What is seen of a batch before it is mixed, by name: tensors on the device, and the space they lie in."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmix.envs.map_rewards import AGENT_PATCHES
from rlmix.envs.process import Decision

LOGIT_LIMIT = float(np.finfo(np.float32).max)
"""Bound of the logits: every finite float32. Gymnasium's checker warns about infinite bounds."""


def observation_space(name: str, shape: tuple[int, ...], num_classes: int) -> spaces.Dict:
    """The space of :func:`observe`, with ``shape`` in front of every part."""
    map = spaces.Box(0, 1, (*shape, AGENT_PATCHES, AGENT_PATCHES), np.float32)
    logits = spaces.Box(-LOGIT_LIMIT, LOGIT_LIMIT, (*shape, num_classes), np.float32)
    unit = spaces.Box(0, 1, (*shape, 1), np.float32)
    parts: dict[str, spaces.Space[Any]] = {"saliency": map, "logits": logits}
    if name == "pair":
        parts |= {"partner_saliency": map, "partner_logits": logits, "host_saliency": map, "host_logits": logits}
        parts |= {"lam": unit, "progress": unit}
    return spaces.Dict(parts)


def observe(decision: Decision, name: str) -> dict[str, Tensor]:
    """What each image's chooser sees, float32 with the batch in front.

    - ``"paper"``: ``saliency`` (8, 8), the image's pooled map, which sums to 1, and its ``logits`` (N,).
    - ``"pair"``: also the two images that its choice matters to. Its ``partner`` is mixed into it; its ``host`` is the image it is mixed
      into: their maps and logits under ``partner_...`` and ``host_...``. And ``lam`` (1,), the first image's weight in a blend, and
      ``progress`` (1,), the part of the training that is over. All of these are settled before anyone chooses.
    """
    maps, logits = decision.patches, decision.saliency.logits
    seen = {"saliency": maps, "logits": logits}
    if name == "pair":
        partner, host, ones = decision.pairing.partner, decision.host, torch.ones_like(logits[:, :1])
        seen |= {"partner_saliency": maps[partner], "partner_logits": logits[partner]}
        seen |= {"host_saliency": maps[host], "host_logits": logits[host]}
        seen |= {"lam": decision.pairing.lam * ones, "progress": decision.progress * ones}
    return seen
