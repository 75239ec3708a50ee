"""Stable-Baselines3's PPO on either form of the environment, a rollout an epoch."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn

from rlmix.agents.actors import SPACE, check_algorithm
from rlmix.agents.algorithms import ALGORITHMS, check_discrete
from rlmix.agents.features import BatchFeatures
from rlmix.agents.sb3.host_ppo import UNDRAWABLE, build_ppo, shared_arguments
from rlmix.agents.sb3.joint import JointPolicy
from rlmix.agents.sb3.rollout import JOINT_ROLLOUT, SLOT_ROLLOUT, Rollout, split_epoch
from rlmix.agents.sb3.vec_env import SlotVecEnv
from rlmix.common.seeding import derive
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig
from rlmix.training.guard import check_agent


@ALGORITHMS.register(
    "ppo",
    reads=tuple(entry.name for entry in fields(PPOConfig)),
    layers=r"mlp_extractor\.policy_net\.\d+|action_net(\.linear)?",
    on_device="rlmix.agents.sb3.on_device:DeviceAgent",
)
class PPOAgent:
    """PPO over one classifier's training, epoch by epoch.

    Args:
        env: The vector form (a decision an image), or the single form (the batch's joint decision).
        config: Hyperparameters.
        seed: Of the policy's weights, its draws and the order of its minibatches. Stable-Baselines3 draws from the global random
            states of torch and NumPy, which this seeds; nothing else of rlmix uses them.
    """

    algorithm = "ppo"
    on_update: Callable[[dict[str, float]], None] = staticmethod(lambda figures: None)
    """Called after each update within an epoch, with its figures; an epoch's last comes with the epoch."""

    def __init__(self, env: RLMixVectorEnv | RLMixEnv, config: PPOConfig, seed: int) -> None:
        config.check()
        self.process: MixingProcess = env.process
        self.process.reset()
        steps_per_epoch = self.process.require_training().steps_per_epoch
        longest = config.rollout_steps or (SLOT_ROLLOUT if isinstance(env, RLMixVectorEnv) else JOINT_ROLLOUT)
        self.rollouts = split_epoch(steps_per_epoch, longest)
        vec_env: VecEnv
        policy: str | type[JointPolicy]
        if isinstance(env, RLMixVectorEnv):
            vec_env, policy = SlotVecEnv(env), "MlpPolicy"
        else:
            check_discrete(env, "granularity batch")
            batch_size, observation = self.process.config.recipe.batch_size, self.process.observation
            vec_env, policy = DummyVecEnv([lambda: BatchFeatures(env, batch_size, observation)]), JointPolicy
        self.num_envs = vec_env.num_envs
        vec_env.action_space.seed(derive(seed, "exploration") % 2**32)  # what an epsilon of DQN's draws from
        set_random_seed(derive(seed, "policy") % 2**32)  # PPO(seed=...) would also reseed the environment: a new classifier
        self.ppo: Any = self.build(policy, vec_env, config, shared_arguments(config))
        self._collected: dict[str, torch.Tensor] = {}
        setattr(self.ppo, SPACE, self.process.config.env.action)
        self.ppo.set_logger(Logger(folder=None, output_formats=[]))

    def build(self, policy: Any, vec_env: VecEnv, config: PPOConfig, common: dict[str, Any]) -> BaseAlgorithm:
        """The algorithm of Stable-Baselines3; ``common`` are arguments that all of them take."""
        return build_ppo(policy, vec_env, config, self.rollouts[0], common)

    def watch(self, on_step: Callable[[], None]) -> None:
        """Have ``on_step`` called whenever a step is done, an epoch's last aside."""
        self.rollout.on_add = on_step

    def plan_rollout(self, steps: int) -> None:
        """Settle how many steps are collected next."""
        self.ppo.n_steps = steps

    def begin_rollout(self, steps: int) -> None:
        """Before so many steps, or what is left of them. Buffers are laid out anew where the last rollout had another length."""
        buffer = self.rollout
        if buffer.buffer_size != steps:
            buffer.buffer_size = steps
            buffer.reset()
        if self._collected:
            buffer.refill(self._collected)
            self.ppo._last_episode_starts = np.full(self.num_envs, self.process.require_training().trained == 0)
            self._collected = {}

    def collected(self) -> dict[str, torch.Tensor]:
        """What has been collected since the last update."""
        return self.rollout.collected()

    @property
    def policy(self) -> nn.Module:
        return self.ppo.policy

    def learn(self, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None:
        """Train until the classifier's budget is used up.

        Args:
            on_step: Called after each step of the classifier but an epoch's last, and after the update where one follows.
            on_epoch: Called after an epoch and the policy's update on it, with the update's figures.

        Whenever one of them is called, :meth:`state_dict` is complete.
        """
        training = self.process.require_training()
        remaining = training.mixed_steps - training.global_step
        callback = _EpochCallback(self, on_step, on_epoch)
        self.watch(on_step)
        self.plan_rollout(callback.steps_left)
        try:
            self.ppo.learn(remaining * self.num_envs, callback, log_interval=None, reset_num_timesteps=False)
        except (ValueError, RuntimeError) as error:  # what distributions refuse; and what passes them and cannot be drawn from
            self.check_finite(scored=not any(said in str(error) for said in UNDRAWABLE))
            raise

    def check_finite(self, scored: bool = True) -> None:
        """Raise FloatingPointError where the policy is not finite any more."""
        training = self.process.require_training()
        check_agent(self.policy, self.ppo.learning_rate, training.epoch, training.global_step, scored)

    @property
    def rollout(self) -> Rollout:
        buffer: Rollout = self.ppo.rollout_buffer
        return buffer

    def update_metrics(self) -> dict[str, float]:
        """Figures of the last policy update."""
        names = {
            "train/entropy_loss": "policy_entropy",
            "train/approx_kl": "approx_kl",
            "train/explained_variance": "explained_variance",
            "train/clip_fraction": "clip_fraction",
            "train/value_loss": "value_loss",
            "train/policy_gradient_loss": "policy_loss",
            "train/policy_loss": "policy_loss",  # A2C's
        }
        values = self.ppo.logger.name_to_value
        found = {name: float(values[key]) for key, name in names.items() if key in values}
        if "policy_entropy" in found:
            found["policy_entropy"] = -found["policy_entropy"]
        return found

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimizer, what is collected of a rollout, progress and random states, as tensors and plain values."""
        random: Any = np.random.get_state()  # noqa: NPY002  (what Stable-Baselines3 draws from)
        name, keys, *rest = random
        return {
            "algorithm": self.algorithm,
            "parameters": self.ppo.get_parameters(),
            "num_timesteps": self.ppo.num_timesteps,
            "num_updates": self.ppo._n_updates,
            "ent_coef": getattr(self.ppo, "ent_coef", None),
            "rollout": self.collected(),
            "torch_random": torch.get_rng_state(),
            "numpy_random": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken; the environment's process must have been loaded before.

        Raises:
            ValueError: If another algorithm's state was taken there.
        """
        check_algorithm(state, self.algorithm)
        self._collected = state["rollout"]
        self.ppo.set_parameters(state["parameters"])
        self.ppo.num_timesteps = state["num_timesteps"]
        self.ppo._n_updates = state["num_updates"]
        if state.get("ent_coef") is not None:
            self.ppo.ent_coef = state["ent_coef"]
        torch.set_rng_state(state["torch_random"].cpu())
        name, keys, *rest = state["numpy_random"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002


class _EpochCallback(BaseCallback):
    """Tells of steps and epochs, and sets the length of each rollout."""

    def __init__(self, agent: PPOAgent, on_step: Callable[[], None], on_epoch: Callable[[dict[str, float]], None]) -> None:
        super().__init__()
        self.agent, self.on_step_done, self.on_epoch_done = agent, on_step, on_epoch
        training = agent.process.require_training()
        done = training.global_step % training.steps_per_epoch
        ends = np.cumsum(agent.rollouts)
        self.collected = int(np.searchsorted(ends, done, side="right"))
        """Rollouts of this epoch."""
        self.steps_left = int(ends[self.collected]) - done
        """Of the first rollout."""
        self.updated = False

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """The first moment after an update."""
        self.agent.check_finite()
        self._tell()
        self.agent.begin_rollout(self.agent.rollouts[self.collected])

    def _on_rollout_end(self) -> None:
        self.collected, self.updated = (self.collected + 1) % len(self.agent.rollouts), True
        self.agent.plan_rollout(self.agent.rollouts[self.collected])

    def _on_training_end(self) -> None:
        self.agent.check_finite()
        self._tell()

    def _tell(self) -> None:
        if self.updated and self.collected == 0:
            self.on_epoch_done(self.agent.update_metrics())
        elif self.updated:
            self.agent.on_update(self.agent.update_metrics())
            self.on_step_done()
