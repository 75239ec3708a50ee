"""The environment in which one agent mixes the whole batch."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.conversion import (
    Observation,
    first_seed,
    next_observation,
    open_process,
    render_process,
    step_info,
    to_action,
    to_host,
)
from rlmix.envs.observations import observation_space


class RLMixEnv(gymnasium.Env[Observation, NDArray[Any]]):
    """The environment in which one agent mixes the whole batch.

    ## Description
    A classifier trains. Before each of its steps the agent sees the batch, and decides for every image how much of it counts as
    salient; the images are mixed in pairs accordingly (R-Mix), and the classifier takes its step on the result. B images, N classes.

    ## Action Space
    ``MultiDiscrete([K] * B)``: for each image one of the top-k values ``linspace(0, 0.99, K)``: the quantile of its patch saliency
    from which on a patch is salient. With ``continuous=True``, ``Box(0, 0.99, (B,))``: the quantiles themselves.

    ## Observation Space
    A ``Dict`` of

    | key | space | meaning |
    |---|---|---|
    | saliency | ``Box(0, 1, (B, 8, 8))`` | each image's saliency map pooled to 8x8 patches; sums to 1 |
    | logits | ``Box(-max, max, (B, N))`` with float32's largest number | what the classifier says of each clean image |

    ## Rewards
    The mean over the batch of ``config.env.reward``; by default the cosine similarity, in [0, 1], of the pooled 8x8 input-gradient maps
    of the clean and of the mixed image. The clean one comes from the observation's pass, the mixed one from the training step's.

    ## Starting State
    ``reset(seed=s)`` starts a new classifier, the same one for the same seed. The first ``reset()`` without one takes ``config.run.seed``
    where the configuration names it, and otherwise a fresh seed from the operating system. A later ``reset()`` goes on with the next
    epoch of the present classifier; what is left of an epoch in progress is given up. When the training budget is used up it starts a
    new one.

    ## Episode End
    An episode is an epoch. Its end is truncated, for training goes on; the end of the last epoch that mixes
    (``config.mixing.mix_until``) is terminated.

    ## Arguments
    - ``config``: an ``rlmix.Config``: data, model, optimisation, mixing, reward; who decides and where the run lies is not read.
    - ``continuous``: choose quantiles instead of indices.
    - ``render_mode``: ``"rgb_array"`` for a picture of clean images, saliency, masks and mixed images.
    - ``data``: an ``rlmix.data.dataset.Dataset`` in place of what ``config.data`` names, or ``(train, test)`` as of ``rlmix.train``.

    ```python
    env = gymnasium.make("rlmix.envs:rlmix/RLMix-v0", config=rlmix.Config.flat(data="digits", epochs=5))
    ```

    Stable-Baselines3 takes a ``(B, 8, 8)`` map for an image: give it ``gymnasium.wrappers.FlattenObservation(env)``, or the vector form.

    ## Version History
    - v0: initial version
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  (gymnasium's own form)

    def __init__(
        self,
        config: Config | None = None,
        *,
        continuous: bool = False,
        render_mode: str | None = None,
        data: Dataset | tuple[Any, Any] | None = None,
    ) -> None:
        self.process = open_process(config or Config(), data, render_mode, continuous)
        self.continuous, self.render_mode = continuous, render_mode
        batch_size, num_actions = self.process.config.recipe.batch_size, len(self.process.actions)
        self.observation_space: spaces.Space[Any] = observation_space(
            self.process.observation, (batch_size,), self.process.data.num_classes
        )
        self.action_space: spaces.Space[NDArray[Any]] = (
            spaces.Box(0, 0.99, (batch_size,), np.float32) if continuous else spaces.MultiDiscrete([num_actions] * batch_size)
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.process.reset(first_seed(self.process, seed, self.np_random))
        observation, _ = to_host(self.process.observe(), self.process.observation, ranks=self.process.ranks)
        return observation, step_info(self.process)

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        chosen = to_action(action, self.process, self.continuous)
        training = self.process.require_training()
        rewards = self.process.act(chosen)
        over, finished = training.at_epoch_end, training.mixing_finished
        info = step_info(self.process)
        observation, rewards_host, _ = next_observation(self.process, rewards)
        return observation, float(rewards_host.mean()), finished, over and not finished, info

    def render(self) -> NDArray[np.uint8] | None:
        return render_process(self.process) if self.render_mode == "rgb_array" else None
