"""Stable-Baselines3's PPO as it is built here: hyperparameters, minibatches, an update on one thread, and an entropy that is kept."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from rlmix.agents.sb3.rollout import Rollout
from rlmix.option_groups import PPOConfig

UNDRAWABLE = ("of distribution", "probability tensor")
"""What torch's errors say of scores that nothing can be drawn from."""


def fitting_minibatch(total: int, wanted: int) -> int:
    """A minibatch's size near ``wanted`` that divides a rollout of ``total`` decisions, so that no small rest is left over."""
    number = max(1, round(total / wanted))
    counts = [count for count in range(1, total // 2 + 1) if total % count == 0] or [1]
    return total // min(counts, key=lambda count: abs(count - number))


def shared_arguments(config: PPOConfig) -> dict[str, Any]:
    """Arguments that all algorithms of Stable-Baselines3 take, by the agent's hyperparameters."""
    layers = {"pi": list(config.policy_layers), "vf": list(config.value_layers)}
    adam = {"eps": 1e-5, "fused": True}  # Stable-Baselines3's epsilon; fused, an update takes 4/5 of the time
    policy = {"net_arch": layers, "activation_fn": nn.Tanh, "optimizer_kwargs": adam}
    # on the host: of a few thousand parameters a copy to the GPU costs more than the pass
    return {"learning_rate": config.learning_rate, "gamma": config.gamma, "policy_kwargs": policy, "device": "cpu"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread: of a few thousand parameters several only wait for each other, and on a busy machine long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


FIRST_COEFFICIENT = 1.0
"""Weight of the entropy that an adapted one begins at, where none is given: from below, the policy would first settle on one value."""
COEFFICIENTS = (1e-4, 10.0)
"""Least and greatest weight that it may come to."""


def adapted(coefficient: float, entropy: float, target: float) -> float:
    """The weight of the entropy after an update that has found the policy at ``entropy``: dual ascent on its logarithm, of rate 1.

    Args:
        coefficient: The weight so far, above 0.
        entropy: Of the policy, in nats.
        target: What it is to be, in nats.

    Source: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", Section 5, with whose temperature it is the same.
    """
    low, high = COEFFICIENTS
    return min(high, max(low, coefficient * math.exp(target - entropy)))


class HostPPO(PPO):
    """Whose update takes one thread, and may keep the policy's entropy."""

    target: float | None = None
    """Of the entropy, in nats."""

    def _maybe_recommend_cpu(self, mlp_class_name: str = "") -> None:
        """Where it computes has been chosen."""

    def train(self) -> None:
        with one_thread():
            super().train()
        self.keep_entropy(-float(self.logger.name_to_value["train/entropy_loss"]))

    def keep_entropy(self, entropy: float) -> None:
        """Adapt the entropy's weight to what an update has found, where there is a target."""
        if self.target is not None and math.isfinite(entropy):
            self.ent_coef = adapted(self.ent_coef, entropy, self.target)


def build_ppo(policy: Any, vec_env: VecEnv, config: PPOConfig, steps: int, arguments: dict[str, Any]) -> PPO:
    """Stable-Baselines3's PPO with rollouts of so many ``steps`` and the agent's hyperparameters."""
    total = steps * vec_env.num_envs
    ppo = HostPPO(
        policy,
        vec_env,
        n_steps=steps,
        batch_size=fitting_minibatch(total, config.minibatch_size),
        n_epochs=config.passes,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.entropy_coefficient,
        normalize_advantage=total > 1,
        rollout_buffer_class=Rollout,
        **arguments,
    )
    if config.target_entropy is not None:
        space: Any = vec_env.action_space
        ppo.target = config.target_entropy * float(np.log(np.asarray(getattr(space, "nvec", [getattr(space, "n", 1)]))).sum())
        ppo.ent_coef = config.entropy_coefficient or FIRST_COEFFICIENT
    return ppo
