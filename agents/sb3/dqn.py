"""Stable-Baselines3's DQN on the vector form of the environment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rlmix.agents.algorithms import ALGORITHMS, check_discrete
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.envs.env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig

MEMORY = 25_000
"""Transitions that DQN keeps."""
TARGET_INTERVAL = 1000
"""Transitions after which the network that says what comes next is renewed."""
_TRANSITION = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@ALGORITHMS.register(
    "dqn",
    reads=("learning_rate", "gamma", "passes", "minibatch_size", "policy_layers", "rollout_steps"),
    layers=r"q_net\.q_net\.\d+",
    greedy=True,
)
class DQNAgent(PPOAgent):
    """Deep Q-learning (Mnih et al. 2015); with gamma 0 it regresses the reward, and explores by an epsilon that falls over the training.

    ``passes`` over as many transitions as a rollout has follow each rollout. The last :data:`MEMORY` transitions are part of its
    state: up to 46 MB of the pair's observation, 15 of the paper's.
    """

    algorithm = "dqn"

    def __init__(self, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> None:
        check_discrete(env, self.algorithm)
        super().__init__(env, config, seed)

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        if policy != "MlpPolicy":
            raise ValueError("granularity must be image under dqn, which has no joint action, got batch")
        steps = max(1, config.passes * self.rollouts[0] * self.num_envs // config.minibatch_size)
        common["policy_kwargs"]["net_arch"] = list(config.policy_layers)
        common |= {"learning_starts": 0, "buffer_size": MEMORY, "batch_size": config.minibatch_size, "gradient_steps": steps}
        common |= {"train_freq": self.rollouts[0], "replay_buffer_class": Memory}
        return QLearning(policy, vec_env, exploration_fraction=0.5, target_update_interval=TARGET_INTERVAL, **common)

    def watch(self, on_step: Callable[[], None]) -> None:
        training = self.process.require_training()
        ends = (0, *np.cumsum(self.rollouts))  # an update follows; after an epoch's last step the next epoch has begun

        def tell() -> None:
            if training.trained not in ends:
                on_step()

        self.ppo.on_step_done = tell

    def plan_rollout(self, steps: int) -> None:
        self.ppo.train_freq = TrainFreq(steps, TrainFrequencyUnit.STEP)

    def begin_rollout(self, steps: int) -> None:
        """Its memory has one size."""

    def collected(self) -> dict[str, Tensor]:
        """The memory."""
        memory: Memory = self.ppo.replay_buffer
        return memory.collected()

    def update_metrics(self) -> dict[str, float]:
        """The mean loss of the last update's steps."""
        return {"value_loss": float(self.ppo.logger.name_to_value["train/loss"])}

    def state_dict(self) -> dict[str, Any]:
        draws: Any = self.ppo.action_space.np_random.bit_generator
        exploration = {"rate": self.ppo.exploration_rate, "draws": draws.state}
        return super().state_dict() | {"exploration": exploration, "num_calls": self.ppo._n_calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.ppo.replay_buffer.refill(state["rollout"])
        self.ppo.exploration_rate = state["exploration"]["rate"]
        self.ppo.action_space.np_random.bit_generator.state = state["exploration"]["draws"]
        self.ppo._n_calls = state["num_calls"]  # by which the target network is renewed


class QLearning(DQN):
    """Tells of a step when the target network and epsilon have followed it."""

    on_step_done: Callable[[], None]

    def _on_step(self) -> None:
        super()._on_step()
        self.on_step_done()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "on_step_done"]


class Memory(ReplayBuffer):
    """Transitions to learn from again, which can be saved."""

    def collected(self) -> dict[str, Tensor]:
        """Those it holds, and where the next one goes."""
        transitions = {name: torch.from_numpy(getattr(self, name)[: self.size()].copy()) for name in _TRANSITION}
        return transitions | {"position": torch.tensor(self.pos)}

    def refill(self, transitions: dict[str, Tensor]) -> None:
        """The inverse of :meth:`collected`."""
        for name in _TRANSITION:
            getattr(self, name)[: len(transitions[name])] = transitions[name].numpy()
        self.pos, self.full = int(transitions["position"]), len(transitions["rewards"]) == self.buffer_size
