"""The family of observations: what is seen of a batch before it is mixed, and the space it lies in.

An observation is its parts by name, in order. Another one is the parts of these and its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmix.common.registry import Registry
from rlmix.envs.process import Decision
from rlmix.envs.rewards import AGENT_PATCHES

LOGIT_LIMIT = float(np.finfo(np.float32).max)
"""Bound of the logits: every finite float32. Gymnasium's checker warns about infinite bounds."""
CLASSES = -1
"""In a part's shape, the number of classes."""


@dataclass(frozen=True)
class Part:
    """One thing that is seen of each image."""

    read: Callable[[Decision], Tensor]
    """Gives it, on the device, with the batch in front; it is seen as float32."""
    shape: tuple[int, ...] = (1,)
    """Of one image's."""
    low: float = 0.0
    high: float = 1.0

    def space(self, shape: tuple[int, ...], num_classes: int) -> spaces.Box:
        """Where it lies, with ``shape`` in front."""
        return spaces.Box(self.low, self.high, (*shape, *self.sizes(num_classes)), np.float32)

    def sizes(self, num_classes: int) -> tuple[int, ...]:
        """Its shape, of one image, with so many classes."""
        return tuple(num_classes if size == CLASSES else size for size in self.shape)


def _map_of(whose: Callable[[Decision], Tensor | slice]) -> Part:
    return Part(lambda decision: decision.patches[whose(decision)], (AGENT_PATCHES, AGENT_PATCHES))


def _logits_of(whose: Callable[[Decision], Tensor | slice]) -> Part:
    return Part(lambda decision: decision.saliency.logits[whose(decision)], (CLASSES,), -LOGIT_LIMIT, LOGIT_LIMIT)


def _own(decision: Decision) -> slice:
    return slice(None)


def _partner(decision: Decision) -> Tensor:
    return decision.pairing.partner


def _host(decision: Decision) -> Tensor:
    return decision.host


def _of_all(number: float | Tensor, decision: Decision) -> Tensor:
    return number * torch.ones_like(decision.saliency.logits[:, :1])


PAPER: Mapping[str, Part] = {"saliency": _map_of(_own), "logits": _logits_of(_own)}
"""Each image's pooled map (8, 8), which sums to 1, and its logits (N,)."""
PAIR: Mapping[str, Part] = {
    **PAPER,
    "partner_saliency": _map_of(_partner),
    "partner_logits": _logits_of(_partner),
    "host_saliency": _map_of(_host),
    "host_logits": _logits_of(_host),
    "lam": Part(lambda decision: _of_all(decision.pairing.lam, decision)),
    "progress": Part(lambda decision: _of_all(decision.progress, decision)),
}
"""Also of the two images that its choice matters to: its ``partner`` is mixed into it, its ``host`` is the image it is mixed into. And
``lam`` (1,), the first image's weight in a blend, and ``progress`` (1,), the part of the training that is over. All of these are settled
before anyone chooses."""
OBSERVATIONS: Registry[Mapping[str, Part]] = Registry("observation")
OBSERVATIONS.add("paper", PAPER, doc="The image's pooled 8x8 saliency map, and its logits.")
OBSERVATIONS.add("pair", PAIR, doc="Also those of its two partners, lam, and the training's progress.")


def observation_space(name: str, shape: tuple[int, ...], num_classes: int) -> spaces.Dict:
    """Give the space of :func:`observe`, with ``shape`` in front of every part."""
    return spaces.Dict({part: own.space(shape, num_classes) for part, own in parts_of(name).items()})


def observe(decision: Decision, name: str) -> dict[str, Tensor]:
    """Give what each image's chooser sees under the observation called so: float32 with the batch in front.

    Raises:
        ValueError: If there is no such observation, or a part has another shape than it says.
    """
    batch_size, num_classes = decision.saliency.logits.shape
    seen: dict[str, Tensor] = {}
    for part, own in parts_of(name).items():
        values: Any = own.read(decision)
        shape = (batch_size, *own.sizes(num_classes))
        if not isinstance(values, Tensor) or values.shape != shape:
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"observation {name} must give {part} of shape {shape}, got {found}")
        seen[part] = values.float()
    return seen


def parts_of(name: str) -> Mapping[str, Part]:
    """Give the parts of the observation called so.

    Raises:
        ValueError: If there is none, or what ``module:attribute`` names is none.
    """
    parts = OBSERVATIONS[name]
    if not isinstance(parts, Mapping) or not parts or not all(isinstance(part, Part) for part in parts.values()):
        raise ValueError(f"observation {name} must be a mapping of names to Parts, got {type(parts).__name__}")
    return parts
