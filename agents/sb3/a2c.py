"""Stable-Baselines3's A2C on either form of the environment."""

from typing import Any

from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.agents.sb3.rollout import Rollout
from rlmix.option_groups import PPOConfig


class HostA2C(A2C):
    """Which takes the advantage of a rollout of one transition as it is: it has no deviation to be divided by."""

    def train(self) -> None:
        self.normalize_advantage = self.rollout_buffer.buffer_size * self.n_envs > 1
        super().train()


@ALGORITHMS.register(
    "a2c",
    reads=("learning_rate", "gamma", "entropy_coefficient", "policy_layers", "value_layers", "rollout_steps"),
    layers=r"mlp_extractor\.policy_net\.\d+|action_net(\.linear)?",
)
class A2CAgent(PPOAgent):
    """Advantage actor-critic (Mnih et al. 2016): one gradient step a rollout, so short rollouts suit it."""

    algorithm = "a2c"

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        common |= {"n_steps": self.rollouts[0], "ent_coef": config.entropy_coefficient, "rollout_buffer_class": Rollout}
        return HostA2C(policy, vec_env, normalize_advantage=True, **common)
