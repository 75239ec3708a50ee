"""What an epoch has chosen and earned so far, on the device, and read when it is looked at anyway."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.mixing.actions import Action


class EpochRecord:
    """One rank's choices and rewards, step by step.

    Args:
        measured: Whether a reward is measured; figures of it are told only then.
    """

    def __init__(self, measured: bool) -> None:
        self.measured = measured
        self._rewards: list[Tensor] = []
        self._top_k: list[Tensor] = []
        self._others: dict[str, list[Tensor]] = {}

    def begin(self) -> None:
        """Forget the epoch before."""
        self._rewards, self._top_k, self._others = [], [], {}

    def add(self, rewards: Float[Tensor, " batch"], chosen: Action) -> None:
        """Keep a step's rewards, before credit is shared and nan where they count for nothing, and what they were earned by."""
        self._rewards.append(rewards)
        self._top_k.append(chosen.top_k)
        for name, column in chosen.others.items():
            self._others.setdefault(name, []).append(column.float())

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Over all ranks' images: ``reward_mean`` and ``reward_std``, and the mean of each thing that was chosen."""
        others = {f"{name}_mean": float(_gathered(values, ranks).mean()) for name, values in self._others.items()}
        figures = {}
        if self.measured:
            rewards = _finite(_gathered(self._rewards, ranks))
            figures = {"reward_mean": float(rewards.mean()), "reward_std": float(rewards.std(correction=0))}
        return figures | {"top_k_mean": float(self.top_k(ranks).mean())} | others

    def last_means(self, steps: int, ranks: Ranks) -> dict[str, float]:
        """Means over all ranks' images of the last ``steps``: ``reward``, where one is measured, and ``top_k`` in [0, 1)."""
        rewards, top_k = (_gathered(values[-steps:], ranks) for values in (self._rewards, self._top_k))
        measured = {"reward": float(_finite(rewards).mean())} if self.measured else {}
        return measured | {"top_k": float(top_k.mean())}

    def top_k(self, ranks: Ranks) -> Float[Tensor, " images"]:
        """Every top-k value, on the host."""
        return _gathered(self._top_k, ranks).flatten()

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """All ranks' values, a row a rank: ``rewards`` and ``top_k`` (ranks, images), of so many steps, and ``others`` by name."""
        others = {name: _gathered(values, ranks) for name, values in self._others.items()}
        figures = {"rewards": _gathered(self._rewards, ranks), "top_k": _gathered(self._top_k, ranks), "others": others}
        return figures | {"recorded_steps": len(self._rewards)}

    def load_state_dict(self, state: dict[str, Any], ranks: Ranks, device: torch.device) -> None:
        """This rank's part of each step; of another number of ranks, parts that give the same figures together.

        A state of before steps were counted is taken as one step.
        """

        def own(values: Tensor, steps: int = 1) -> list[Tensor]:
            if not steps:
                return []
            by_step = values.unflatten(1, (steps, -1)).transpose(0, 1).flatten(1)
            return list(by_step.chunk(ranks.size, 1)[ranks.rank].to(device))

        self._rewards, self._top_k = (own(state[name], state.get("recorded_steps", 1)) for name in ("rewards", "top_k"))
        self._others = {name: own(values) for name, values in state.get("others", {}).items()}


def _gathered(values: list[Tensor], ranks: Ranks) -> Float[Tensor, "rank images"]:
    return ranks.gather(torch.cat(values) if values else torch.empty(0))


def _finite(rewards: Tensor) -> Tensor:
    return rewards[rewards.isfinite()]
