"""The same environment image by image: every slot of the batch is an environment, and one policy serves them all."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
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


class RLMixVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """The environment in which every image of the batch is a slot of its own.

    ## Description
    ``rlmix/RLMix-v0`` with an agent an image: B slots that share one classifier. What a slot earns is its own image's reward, and
    a policy trained on it does not depend on the batch size. N classes.

    ## Action Space
    ``Discrete(K)`` a slot, or ``Box(0, 0.99, ())`` with ``continuous=True``. Of another ``config.env.action`` ``Discrete(A)`` with its
    number of choices, which are ``env.process.actions``.

    ## Observation Space
    ``Dict(saliency=Box(0, 1, (8, 8)), logits=Box(-max, max, (N,)))`` a slot.

    ## Rewards
    ``config.env.reward`` of the slot's image, shared as ``config.env.credit`` says.

    ## Starting State
    As the single form: ``reset(seed=s)`` starts a new classifier, ``reset()`` the next epoch; the first
    one takes ``config.run.seed``, or a fresh seed where that was not given. A slot holds another image every step.

    ## Episode End
    All slots end together, with the epoch: truncated, or terminated when the training budget is used up,
    or what of it mixes. What follows is
    ``autoreset_mode``'s, as of Gymnasium's own vector environments:

    | mode | the next epoch's (or the next classifier's) first observation |
    |---|---|
    | ``SAME_STEP``, by default | in the same step; the old one's last is ``infos["final_obs"]``, its infos ``infos["final_info"]`` |
    | ``NEXT_STEP`` | in the next step, whose actions are not read and whose rewards are 0 |
    | ``DISABLED`` | by ``reset()``, with ``options={"reset_mask": ...}`` if you like; a step before it is a ``RuntimeError`` |

    ``final_obs`` is batched, and gives one slot's by its index. A ``reset_mask`` must name all slots, for they share one classifier.

    ## Infos
    An array over the slots each: ``epoch``, ``step``, ``learning_rate``, and of a step also ``loss``, the batch's, and ``top1``, the
    percentage of its mixed images that the classifier knew by their larger part.

    ## Arguments
    - ``num_envs``: slots, which is the batch size; a ``ValueError`` where the configuration names another one.
    - ``autoreset_mode``: a ``gymnasium.vector.AutoresetMode``, or its value.
    - ``config``, ``continuous``, ``render_mode``, ``data``: as for the single form. Rendering gives a picture a slot.

    ```python
    envs = gymnasium.make_vec("rlmix.envs:rlmix/RLMix-v0", num_envs=32, autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP)
    envs = gymnasium.wrappers.vector.NormalizeObservation(gymnasium.wrappers.vector.FlattenObservation(envs))
    ```

    Gymnasium's wrappers of observations take ``NEXT_STEP``, most of them ``DISABLED`` too.

    ## Version History
    - v0: initial version
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int | None = None,
        config: Config | None = None,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        continuous: bool = False,
        render_mode: str | None = None,
        data: Dataset | tuple[Any, Any] | None = None,
    ) -> None:
        self.autoreset_mode = _known_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.process = open_process(_of_slots(config or Config(), num_envs), data, render_mode, continuous)
        self.num_envs = self.process.config.recipe.batch_size
        self.continuous, self.render_mode = continuous, render_mode
        self.single_observation_space = observation_space(self.process.observation, (), self.process.data.num_classes)
        self.single_action_space = (
            spaces.Box(0, 0.99, (), np.float32) if continuous else spaces.Discrete(len(self.process.actions))
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        if options is not None and "reset_mask" in options:
            _check_reset_mask(options["reset_mask"], self.num_envs)
        super().reset(seed=seed)
        self.process.reset(first_seed(self.process, seed, self.np_random))
        self._over = False
        observation, _ = to_host(self.process.observe(), self.process.observation, ranks=self.process.ranks)
        return observation, self._infos(step_info(self.process))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        if self._over and self.autoreset_mode is AutoresetMode.DISABLED:
            raise RuntimeError("reset() must be called after the end of an episode where autoreset is disabled, got another step")
        if self._over and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            observation, infos = self.reset()
            return observation, np.zeros(self.num_envs, np.float32), self._all(False), self._all(False), infos
        chosen = to_action(actions, self.process, self.continuous)
        training = self.process.require_training()
        rewards = self.process.act(chosen)
        self._over, finished, info = training.at_epoch_end, training.mixing_finished, step_info(self.process)
        truncated = self._over and not finished
        observation, rewards_host, score = next_observation(self.process, rewards)
        infos = self._infos(info | score)
        if self._over and self.autoreset_mode is AutoresetMode.SAME_STEP:
            final = {"final_obs": Slots(observation), "final_info": infos}
            observation, infos = self.reset()
            infos |= final | {f"_{name}": self._all(True) for name in final}
        return observation, rewards_host, self._all(finished), self._all(truncated), infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A picture a slot: its clean image, saliency, what is salient, and the mixed image."""
        if self.render_mode != "rgb_array":
            return None
        columns = np.split(render_process(self.process, self.num_envs), self.process.require_training().share, axis=1)
        return tuple(map(np.ascontiguousarray, columns))

    def _infos(self, info: dict[str, Any]) -> dict[str, Any]:
        """What is the same for every slot, as Gymnasium has infos: an array over the slots, and which of them it is known of."""
        infos: dict[str, Any] = {}
        for name, value in info.items():
            infos |= {name: np.full(self.num_envs, value), f"_{name}": self._all(True)}
        return infos

    def _all(self, value: bool) -> NDArray[np.bool_]:
        return np.full(self.num_envs, value)


class Slots(dict[str, NDArray[np.float32]]):
    """A batched observation that also gives a slot's by its index."""

    def __missing__(self, slot: Any) -> Observation:
        if not isinstance(slot, int | np.integer):
            raise KeyError(slot)
        return {name: values[slot] for name, values in self.items()}


def _known_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(known.value for known in AutoresetMode)
        raise ValueError(f"autoreset_mode must be one of {known}, got {mode!r}") from None


def _of_slots(config: Config, num_envs: int | None) -> Config:
    """The configuration with so many images a batch as there are slots; ValueError where it names another number."""
    named = config.optim.batch_size
    if num_envs is None or num_envs == named:
        return config
    if named is not None:
        raise ValueError(f"num_envs must be the batch size {named}, or batch_size be left out, got {num_envs}")
    if num_envs < 2:
        raise ValueError(f"num_envs must be at least 2, for images are mixed in pairs, got {num_envs}")
    return config.changed(batch_size=num_envs)


def _check_reset_mask(mask: Any, num_envs: int) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"reset_mask must be a numpy array of bool, got {getattr(mask, 'dtype', type(mask).__name__)}")
    if mask.shape != (num_envs,):
        raise ValueError(f"reset_mask must have shape ({num_envs},), got {mask.shape}")
    if not mask.all():
        raise ValueError(
            f"reset_mask must name all slots, for they share one classifier and end together, got {mask.sum()} of {num_envs}"
        )
