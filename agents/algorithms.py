"""The learning algorithms by name. Another one of Stable-Baselines3 is one class with one call."""

from collections.abc import Callable
from typing import Any, Protocol

from stable_baselines3 import A2C, DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlmix.agents.bandit import BanditAgent
from rlmix.agents.ppo import PPOAgent, PPOConfig, Rollout
from rlmix.envs.process import MixingProcess
from rlmix.envs.rlmix_env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.names import check_name


class Agent(Protocol):
    """Learns while the classifier trains."""

    process: MixingProcess

    @property
    def policy(self) -> nn.Module: ...

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class A2CAgent(PPOAgent):
    """Advantage actor-critic (Mnih et al. 2016): one gradient step a rollout, so short rollouts suit it."""

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        common |= {"n_steps": self.rollouts[0], "ent_coef": config.entropy_coefficient, "rollout_buffer_class": Rollout}
        return A2C(policy, vec_env, normalize_advantage=True, **common)


class DQNAgent(PPOAgent):
    """Deep Q-learning (Mnih et al. 2015); with gamma 0 it regresses the reward, and explores by an epsilon that falls over the training.

    ``passes`` over as many transitions as a rollout has follow each rollout. Its memory of transitions is not part of its state: a
    resumed run begins a new one.
    """

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        if policy != "MlpPolicy":
            raise ValueError("granularity must be image under dqn, which has no joint action, got batch")
        steps = max(1, config.passes * self.rollouts[0] * self.num_envs // config.minibatch_size)
        common["policy_kwargs"]["net_arch"] = list(config.policy_layers)
        common |= {"learning_starts": 0, "buffer_size": 100_000, "batch_size": config.minibatch_size, "gradient_steps": steps}
        common |= {"train_freq": self.rollouts[0], "replay_buffer_class": Memory}
        return DQN(policy, vec_env, exploration_fraction=0.5, target_update_interval=1000, **common)

    def watch(self, on_step: Callable[[], None]) -> None:
        training = self.process.require_training()

        def tell() -> None:
            if 0 < training.trained < training.steps_per_epoch:  # after an epoch's last step the next one has begun
                on_step()

        self.ppo.replay_buffer.on_add = tell

    def plan_rollout(self, steps: int) -> None:
        self.ppo.train_freq = TrainFreq(steps, TrainFrequencyUnit.STEP)

    def begin_rollout(self, steps: int) -> None:
        """Its memory has one size."""

    def collected(self) -> dict[str, Tensor]:
        """Nothing that is kept."""
        return {}


class Memory(ReplayBuffer):
    """Transitions to learn from again; tells when one is kept."""

    on_add: Callable[[], None]
    """Called after each transition."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **kwargs)
        self.on_add()


ALGORITHMS: dict[str, Callable[[RLMixVectorEnv | RLMixEnv, PPOConfig, int], Agent]] = {
    "ppo": PPOAgent,
    "a2c": A2CAgent,
    "dqn": DQNAgent,
    "bandit": BanditAgent,
}


def build_agent(name: str, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> Agent:
    """The agent called ``name`` on either form of the environment; ValueError for an unknown one."""
    check_name("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name](env, config, seed)
