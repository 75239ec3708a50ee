"""What is collected between two updates: how long it is, and a buffer of Stable-Baselines3 that can be saved half full."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer

SLOT_ROLLOUT, JOINT_ROLLOUT = 10, 1000
"""Steps between two updates where ``rollout_steps`` is not given: of a decision an image, and of the joint one."""


def split_epoch(steps_per_epoch: int, rollout_steps: int) -> list[int]:
    """Lengths of an epoch's rollouts: as few as the bound allows, all but equal, and ending with the epoch."""
    num_rollouts = -(-steps_per_epoch // rollout_steps)
    return [len(part) for part in np.array_split(np.arange(steps_per_epoch), num_rollouts)]


_TRANSITION = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs")


class Rollout(RolloutBuffer):
    """A rollout that can be saved and refilled while it is being collected."""

    on_add: Callable[[], None] = staticmethod(lambda: None)
    """Called after each transition but the last: nothing is half done then."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **kwargs)
        if not self.full:
            self.on_add()

    def collected(self, updated: bool = True) -> dict[str, torch.Tensor]:
        """The transitions so far; where the rollout is complete and the policy ``updated`` on it, none."""
        count = 0 if self.full and updated else self.pos
        if not count:  # of one shape, whether an update has laid the buffer out anew or not
            return {name: torch.empty(0) for name in _TRANSITION}
        return {name: torch.from_numpy(getattr(self, name)[:count].copy()) for name in _TRANSITION}

    def refill(self, transitions: dict[str, torch.Tensor]) -> None:
        """The inverse of :meth:`collected`, on an empty rollout."""
        for name in _TRANSITION:
            self.pos = len(transitions[name])
            if self.pos:
                getattr(self, name)[: self.pos] = transitions[name].numpy()
