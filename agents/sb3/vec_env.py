"""The vector form as Stable-Baselines3 wants it: its VecEnv is an interface of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlmix.agents.features import feature_space, policy_features
from rlmix.envs.vector_env import RLMixVectorEnv


class SlotVecEnv(VecEnv):
    """A thin adapter: B slots of one classifier, observed as :func:`~rlmix.agents.features.policy_features`.

    Raises:
        ValueError: If the environment resets itself otherwise than in the same step, as a VecEnv does.
    """

    def __init__(self, env: RLMixVectorEnv) -> None:
        mode = env.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"autoreset_mode must be SameStep where an agent of Stable-Baselines3 learns, got {mode.value}")
        self.env = env
        super().__init__(env.num_envs, feature_space(env.process.observation), env.single_action_space)

    def reset(self) -> NDArray[np.float32]:
        observation, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return policy_features(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        observation, rewards, terminations, truncations, infos = self.env.step(self._actions)
        dones = terminations | truncations
        slot_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            last = policy_features(infos["final_obs"])
            for info, features, truncated in zip(slot_infos, last, truncations.tolist(), strict=True):
                info.update({"terminal_observation": features, "TimeLimit.truncated": truncated})
        return policy_features(observation), rewards, dones, slot_infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """All slots share one classifier, and so one seed; used by the next reset."""
        self._seeds = [seed] * self.num_envs
        return self._seeds

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        return self.env.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._count(indices)
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """The slots share one environment: it is asked once, and its answer given for each index."""
        count = self._count(indices)
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * count

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self._count(indices)

    def _count(self, indices: Any) -> int:
        """How many slots are named: all of them by None."""
        slots = list(self._get_indices(indices))
        wrong = [slot for slot in slots if not 0 <= slot < self.num_envs]
        if wrong:
            raise IndexError(f"indices must be in [0, {self.num_envs}), got {wrong[0]}")
        return len(slots)
