"""The same environment image by image: every slot of the batch is an environment, and one policy serves them all."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.conversion import Observation, first_seed, next_observation, open_process, render_process, to_host, to_top_k
from rlmix.envs.observations import observation_space


class RLMixVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """The environment in which every image of the batch is a slot of its own.

    ## Description
    ``rlmix/RLMix-v0`` with an agent an image: B slots that share one classifier. What a slot earns is its own image's reward, and
    a policy trained on it does not depend on the batch size. N classes.

    ## Action Space
    ``Discrete(K)`` a slot, or ``Box(0, 0.99, ())`` with ``continuous=True``.

    ## Observation Space
    ``Dict(saliency=Box(0, 1, (8, 8)), logits=Box(-max, max, (N,)))`` a slot.

    ## Rewards
    ``config.env.reward`` of the slot's image, shared as ``config.env.credit`` says.

    ## Starting State
    As the single form: ``reset(seed=s)`` starts a new classifier, ``reset()`` the next epoch; the first
    one takes ``config.run.seed``, or a fresh seed where that was not given. A slot holds another image every step.

    ## Episode End
    All slots end together, with the epoch: truncated, or terminated when the training budget is used up. The next epoch's (or the
    next classifier's) first observation is returned in the same step, the old one's last under ``final_obs``.

    ## Arguments
    - ``num_envs``: slots, which is the batch size; where the configuration names another one, a ``ValueError``.
    - ``config``, ``continuous``, ``render_mode``, ``data``: as for the single form.

    ## Version History
    - v0: initial version
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int | None = None,
        config: Config | None = None,
        *,
        continuous: bool = False,
        render_mode: str | None = None,
        data: Dataset | None = None,
    ) -> None:
        self.process = open_process(config or Config(), data, render_mode)
        if num_envs is not None and num_envs != self.process.config.recipe.batch_size:
            raise ValueError(f"num_envs must be the batch size {self.process.config.recipe.batch_size}, got {num_envs}")
        self.num_envs = self.process.config.recipe.batch_size
        self.continuous, self.render_mode = continuous, render_mode
        self.single_observation_space = observation_space(self.process.observation, (), self.process.data.num_classes)
        self.single_action_space = (
            spaces.Box(0, 0.99, (), np.float32) if continuous else spaces.Discrete(len(self.process.values))
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.process.reset(first_seed(self.process, seed, self.np_random))
        return to_host(self.process.observe(), self.process.observation, ranks=self.process.ranks)[0], {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        top_k = to_top_k(actions, self.process, self.continuous)
        training = self.process.require_training()
        rewards = self.process.act(top_k)
        over, finished = training.at_epoch_end, training.finished
        observation, rewards_host = next_observation(self.process, rewards)
        infos: dict[str, Any] = {}
        if over:
            infos = {"final_obs": observation, "_final_obs": np.ones(self.num_envs, bool), "final_info": {}}
            observation, _ = self.reset()
        return observation, rewards_host, np.full(self.num_envs, finished), np.full(self.num_envs, over and not finished), infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One picture of the batch."""
        return (render_process(self.process),) if self.render_mode == "rgb_array" else None
