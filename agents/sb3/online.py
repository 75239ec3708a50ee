"""Stable-Baselines3's PPO where somebody else's loop calls: it is asked, paid, and updated when a rollout is complete."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rlmix.agents.actors import SPACE
from rlmix.agents.features import feature_space, num_features, policy_features
from rlmix.agents.sb3.host_ppo import UNDRAWABLE, build_ppo, shared_arguments
from rlmix.agents.sb3.rollout import SLOT_ROLLOUT
from rlmix.common.seeding import derive, drawing_from, stream
from rlmix.envs.conversion import to_host
from rlmix.envs.isolation import isolated
from rlmix.envs.process import Decision
from rlmix.mixing.actions import Action
from rlmix.option_groups import PPOConfig


class Slots(VecEnv):
    """The spaces of so many slots, which PPO wants to know; nobody steps it."""

    def __init__(self, num_envs: int, observation: str, num_actions: int) -> None:
        super().__init__(num_envs, feature_space(observation), spaces.Discrete(num_actions))

    def reset(self) -> Any:
        raise NotImplementedError("somebody else's loop steps")

    def step_async(self, actions: Any) -> None:
        raise NotImplementedError("somebody else's loop steps")

    def step_wait(self) -> Any:
        raise NotImplementedError("somebody else's loop steps")

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("there is nothing to set")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError("there is nothing to call")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class OnlinePPO:
    """PPO over the batches of a loop. As many images as the first batch has are its slots; other batches it mixes, and learns nothing from.

    Args:
        config: Hyperparameters.
        observation: Name of what is seen of an image.
        action: Name of the action space.
        actions: Its choices.
        seed: Of weights and draws; global random states are neither read nor moved.
    """

    def __init__(self, config: PPOConfig, observation: str, action: str, actions: Action, seed: int) -> None:
        config.check()
        num_features(observation)  # raises where there is no such observation
        self.config, self.observation, self.action, self.actions = config, observation, action, actions
        self.generator = stream(seed, "policy")
        self.order = np.random.RandomState(derive(seed, "policy order") % 2**32)
        self.num_updates = 0
        self.ppo: Any = None
        self._asked: tuple[Any, ...] | None = None

    @isolated()
    @torch.no_grad()
    def __call__(self, decision: Decision) -> Action:
        """Choose for a batch; where a rollout is complete, after the update on it.

        Raises:
            FloatingPointError: If the policy's weights or scores are not finite any more.
        """
        features = policy_features(to_host(decision, self.observation)[0])
        if self.ppo is None:
            self._build(len(features))
        observed, fits = torch.from_numpy(features), len(features) == self.ppo.n_envs
        if fits and self.ppo.rollout_buffer.full:
            self._update(observed)
        try:
            with drawing_from(self.generator):
                actions, values, log_probabilities = self.ppo.policy(observed)
        except (ValueError, RuntimeError) as error:  # what distributions refuse; and what passes them and cannot be drawn from
            self._check_finite(scored=not any(said in str(error) for said in UNDRAWABLE))
            raise
        self._asked = (features, actions, values, log_probabilities) if fits else None
        return self.actions[actions]

    def pay(self, rewards: Float[Tensor, " batch"]) -> None:
        """What each of the last choices has earned."""
        if self._asked is None:
            return
        (features, actions, values, log_probabilities), self._asked = self._asked, None
        starts = np.full(len(features), self.ppo.rollout_buffer.pos == 0 and self.num_updates == 0)
        self.ppo.rollout_buffer.add(features, actions.numpy()[:, None], rewards.numpy(), starts, values, log_probabilities)

    def _build(self, num_slots: int) -> None:
        slots, config = Slots(num_slots, self.observation, len(self.actions)), self.config
        with drawing_from(self.generator):
            steps = config.rollout_steps or SLOT_ROLLOUT
            self.ppo = build_ppo("MlpPolicy", slots, config, steps, shared_arguments(config))
        setattr(self.ppo, SPACE, self.action)
        self.ppo.set_logger(Logger(folder=None, output_formats=[]))

    def _check_finite(self, scored: bool = True) -> None:
        if not scored or not all(bool(parameter.isfinite().all()) for parameter in self.ppo.policy.parameters()):
            what = "weights" if scored else "scores"
            raise FloatingPointError(
                f"the agent's {what} are not finite after update {self.num_updates}, at learning_rate {self.config.learning_rate:g}"
            )

    def _update(self, following: Float[Tensor, "slot features"]) -> None:
        buffer = self.ppo.rollout_buffer
        buffer.compute_returns_and_advantage(self.ppo.policy.predict_values(following), np.zeros(self.ppo.n_envs, bool))
        before = np.random.get_state()  # noqa: NPY002  (Stable-Baselines3 orders its minibatches by the global one)
        np.random.set_state(self.order.get_state())  # noqa: NPY002
        try:
            with torch.enable_grad():
                self.ppo.train()
            self.order.set_state(np.random.get_state())  # noqa: NPY002
        finally:
            np.random.set_state(before)  # noqa: NPY002
        self.num_updates += 1
        buffer.reset()
        self._check_finite()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, between two batches."""
        name, keys, position, has_gauss, gauss = self.order.get_state(legacy=True)
        state: dict[str, Any] = {"generator": self.generator.get_state(), "num_updates": self.num_updates, "num_slots": 0}
        state["order"] = {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [position, has_gauss, gauss],
        }
        if self.ppo is None:
            return state
        kept = self.ppo.rollout_buffer.collected(updated=False)  # a complete rollout waits for its update here
        parts = {"policy": self.ppo.policy.state_dict(), "optimizer": self.ppo.policy.optimizer.state_dict()}
        return state | parts | {"rollout": kept, "num_slots": self.ppo.n_envs, "ent_coef": self.ppo.ent_coef}

    @isolated()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        self.ppo = None
        if state["num_slots"]:
            self._build(state["num_slots"])
            self.ppo.policy.load_state_dict(state["policy"])
            self.ppo.policy.optimizer.load_state_dict(state["optimizer"])
            self.ppo.ent_coef = state.get("ent_coef", self.ppo.ent_coef)
            buffer = self.ppo.rollout_buffer
            buffer.refill(state["rollout"])
            buffer.full = buffer.pos == buffer.buffer_size
        self.generator.set_state(state["generator"])
        order = state["order"]
        self.order.set_state((order["name"], order["keys"].numpy().astype(np.uint32), *order["rest"]))
        self.num_updates, self._asked = state["num_updates"], None
