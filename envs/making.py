"""Both forms of the environment by one call."""

from typing import Any

from gymnasium.vector import AutoresetMode

from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv


def make_env(
    config: Config | None = None,
    *,
    continuous: bool = False,
    render_mode: str | None = None,
    data: Dataset | tuple[Any, Any] | None = None,
) -> RLMixEnv:
    """Make the environment in which one agent mixes the whole batch; ``gymnasium.make`` wraps the same one.

    Args:
        config: What trains and how; digits by default. Who decides, and where a run lies, is not read.
        continuous: Choose quantiles in [0, 0.99] instead of their indices.
        render_mode: ``"rgb_array"`` or None.
        data: The data set, where it is loaded already, or ``(train, test)``, as of :func:`rlmix.train`.

    Raises:
        ValueError: If the configuration is out of range, or measures no reward.
    """
    return RLMixEnv(config, continuous=continuous, render_mode=render_mode, data=data)


def make_vec_env(
    config: Config | None = None,
    num_envs: int | None = None,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    continuous: bool = False,
    render_mode: str | None = None,
    data: Dataset | tuple[Any, Any] | None = None,
) -> RLMixVectorEnv:
    """Make the vector environment, in which every image of the batch is a slot of its own.

    Args:
        config: As of :func:`make_env`.
        num_envs: Slots, which are the batch size.
        autoreset_mode: What follows the end of an epoch, as of :class:`~rlmix.envs.vector_env.RLMixVectorEnv`.
        continuous: As of :func:`make_env`.
        render_mode: As of :func:`make_env`.
        data: As of :func:`make_env`.

    Raises:
        ValueError: As of :func:`make_env`, or if it names another batch size than ``num_envs``.
    """
    return RLMixVectorEnv(
        num_envs, config, autoreset_mode=autoreset_mode, continuous=continuous, render_mode=render_mode, data=data
    )
