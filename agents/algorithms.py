"""The family of learning algorithms. Another one of Stable-Baselines3 is one class with one call."""

from collections.abc import Callable
from typing import Any, Protocol

from gymnasium import spaces
from torch import nn

from rlmix.agents.policies import POLICIES
from rlmix.common.registry import Registry, load_attribute
from rlmix.config import Config
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig


class Agent(Protocol):
    """Learns while the classifier trains."""

    process: MixingProcess

    @property
    def policy(self) -> nn.Module: ...

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


ALGORITHMS: Registry[Callable[[RLMixVectorEnv | RLMixEnv, PPOConfig, int], Agent]] = Registry(
    "algorithm",
    homes=(*(f"rlmix.agents.sb3.{name}" for name in ("ppo", "a2c", "dqn")), "rlmix.agents.bandit", "rlmix.agents.epoch_bandit"),
)
"""What they read are hyperparameters of the agent. Traits: ``layers``, a pattern of what the linear layers from features to scores are
called in the policy's state; ``greedy``, whether the best is chosen and nothing drawn; ``on_device``, where its form is that lives on the
classifier's device; ``own_reward``, where it learns from another reward than the environment's."""


def build_agent(name: str, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> Agent:
    """Build the agent called ``name`` on either form of the environment.

    Args:
        name: One of :data:`ALGORITHMS`.
        env: Whose observations it reads; it resets it.
        config: Its hyperparameters.
        seed: Of its weights and draws.

    Raises:
        ValueError: If there is no such algorithm, or a hyperparameter is out of range.
    """
    return ALGORITHMS[name](env, config, seed)


def check_discrete(env: RLMixVectorEnv | RLMixEnv, learner: str) -> None:
    """Raise ValueError where the environment's actions are continuous, and ``learner`` chooses rows of its table."""
    space: Any = env.single_action_space if isinstance(env, RLMixVectorEnv) else env.action_space
    if isinstance(space, spaces.Box):
        raise ValueError(
            f"continuous must be False under {learner}, which takes one of {len(env.process.actions)} choices, got True"
        )


@POLICIES.register("rlmix", reads=("algorithm", "granularity", "agent_device", "observation", "credit", "diversity"), learns=True)
def learning_agent(env: RLMixVectorEnv | RLMixEnv, config: Config) -> Agent:
    """An agent, which learns to choose while the classifier trains."""
    if config.agent.agent_device == "classifier":
        on_device = load_attribute("algorithm", ALGORITHMS.entry(config.agent.algorithm).traits["on_device"])
        agent: Agent = on_device(env, config.agent.ppo, config.run.seed)
        return agent
    return build_agent(config.agent.algorithm, env, config.agent.ppo, config.run.seed)
