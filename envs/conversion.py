"""From the process on its device to NumPy on the host, for both forms of the environment."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.data.own import settle_given
from rlmix.envs.isolation import isolated
from rlmix.envs.observations import observe
from rlmix.envs.process import Decision, MixingProcess
from rlmix.envs.render import mixing_picture
from rlmix.envs.rewards import UNMEASURED
from rlmix.mixing.actions import Action

Observation = dict[str, NDArray[np.float32]]


def open_process(
    config: Config, data: Dataset | tuple[Any, Any] | None, render_mode: str | None, continuous: bool = False
) -> MixingProcess:
    """The process that an environment shows.

    Raises:
        ValueError: If the configuration measures no reward, ``render_mode`` is unknown, or more than top-k values are to be chosen where
            actions are ``continuous``.
    """
    if continuous and config.env.action != "top_k":
        raise ValueError(f"action must be top_k where actions are continuous, got {config.env.action}")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    if config.env.reward == UNMEASURED:
        raise ValueError(f"reward must be one that an agent can learn from, got {config.env.reward}")
    dataset, config = settle_given(data, config)
    return MixingProcess(config, dataset)


def first_seed(process: MixingProcess, seed: int | None, np_random: np.random.Generator) -> int | None:
    """What a form's ``reset(seed=seed)`` gives the process: the first time that nobody has named a seed, one drawn from ``np_random``."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1  # several processes of one training would draw different ones
    nobody = seed is None and process.training is None and process.unseeded and alone
    return int(np_random.integers(2**31)) if nobody else seed


@isolated()
def to_host(
    decision: Decision, observation: str, rewards: Tensor | None = None, ranks: Ranks | None = None
) -> tuple[Observation, NDArray[np.float32]]:
    """The observation called so, and rewards (B,) or a table (B, n), in one transfer, the step's one synchronisation; fresh arrays.

    With ``ranks``, of all of them, on each; of this one otherwise.
    """
    seen = observe(decision, observation)
    parts = list(seen.values()) + ([] if rewards is None else [rewards])
    rows = torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts], 1)
    table = (rows.cpu() if ranks is None else ranks.gather(rows).flatten(0, 1)).numpy()
    *columns, rest = np.split(table, np.cumsum([part[0].numel() for part in seen.values()]), axis=1)
    arrays = {
        name: np.ascontiguousarray(column).reshape(-1, *seen[name].shape[1:]) for name, column in zip(seen, columns, strict=True)
    }
    return arrays, rest.flatten() if rewards is None or rewards.ndim == 1 else rest


@isolated()
def next_observation(process: MixingProcess, rewards: Tensor) -> tuple[Observation, NDArray[np.float32], dict[str, float]]:
    """What follows an action: the next batch, or the last one where the training is over; rewards; the step's loss and top-1."""
    training, outcome = process.training, process.outcome
    assert training is not None
    assert outcome is not None
    decision = outcome.decision if training.mixing_finished else process.observe()
    columns = torch.stack([rewards, *(value.to(rewards).expand(len(rewards)) for value in training.last_step)], 1)
    observation, table = to_host(decision, process.observation, columns, process.ranks)
    loss, top1 = table[:, 1:].mean(0, dtype=np.float64).tolist()  # over the ranks, each of which has its own
    return observation, table[:, 0].copy(), {"loss": loss, "top1": top1}


@isolated()
def to_action(action: ArrayLike, process: MixingProcess, continuous: bool) -> Action:
    """What is chosen for each of this rank's images, from rank 0's validated action (B,) for all of them.

    Raises:
        ValueError: If the action has another shape, kind or range than the action space.
    """
    ranks, batch_size = process.require_training().ranks, process.config.recipe.batch_size
    chosen = _validated(action, process, continuous) if ranks.first else torch.empty(batch_size)
    chosen = ranks.share(ranks.from_first(chosen))
    return Action(chosen) if continuous else process.actions[chosen.long()]


def _validated(action: ArrayLike, process: MixingProcess, continuous: bool) -> Tensor:
    action, batch_size = np.asarray(action), process.config.recipe.batch_size
    if action.shape != (batch_size,):
        raise ValueError(f"action must have shape ({batch_size},), got {action.shape}")
    if continuous:
        if not ((action >= 0) & (action <= np.float32(0.99))).all():
            raise ValueError(f"action must be in [0, 0.99], got {action.min()} to {action.max()}")
        return torch.from_numpy(action.astype(np.float32))
    if action.dtype.kind not in "iu":
        raise ValueError(f"action must hold integers, got {action.dtype}")
    if action.min() < 0 or action.max() >= len(process.actions):
        raise ValueError(f"action must be in {{0, ..., {len(process.actions) - 1}}}, got {action.min()} to {action.max()}")
    return torch.from_numpy(action.astype(np.float32))


def step_info(process: MixingProcess) -> dict[str, Any]:
    """Where the training stands."""
    training = process.training
    assert training is not None
    return {"epoch": training.epoch, "step": training.global_step, "learning_rate": training.learning_rate}


@isolated()
def render_process(process: MixingProcess, num_images: int = 8) -> NDArray[np.uint8]:
    """The last mixed batch as a picture; before any, the batch that waits."""
    training = process.training
    if training is None:
        raise RuntimeError("reset() must be called before render()")
    outcome = process.outcome
    decision = outcome.decision if outcome is not None else process.observe()
    clean, map = decision.batch.images[:num_images], decision.saliency.map[:num_images]
    mask = outcome.mask[:num_images] if outcome is not None else torch.ones_like(decision.patches[:num_images]).bool()
    mixed = outcome.mixed.images[:num_images] if outcome is not None else clean
    return mixing_picture(training.to_pixels(clean), map, mask, training.to_pixels(mixed))
