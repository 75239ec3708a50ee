"""What a policy reads of an observation: few numbers, of one scale, the same for every number of classes."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlmix.envs.conversion import Observation
from rlmix.envs.observations import CLASSES, parts_of
from rlmix.envs.rewards import AGENT_PATCHES

NUM_LOGITS = 10
"""Largest log-probabilities a policy reads of an image. An ImageNet epoch of logits would be 5 GB; of these it is 50 MB."""
LOG_PROBABILITY_FLOOR = -20.0
SEEN = ("saliency", "logits")
"""Endings of the parts that are an image's map or its logits."""
NUMBERS = ("lam", "progress")
"""Parts that are a number in [0, 1]."""

Values = TypeVar("Values", bound=Any)
"""Arrays, or tensors."""
FEATURE_BOUNDS = (LOG_PROBABILITY_FLOOR / 10, AGENT_PATCHES**2 / 10)


def policy_features(observation: Observation) -> NDArray[np.float32]:
    """One row an image.

    Of the paper's observation (74): the 8x8 map scaled to mean 1, and the ten largest log-probabilities, sorted, all divided by 10;
    fewer classes are padded with the floor of -20. Of the pair's (226): the same of the image, of its partner and of its host; the
    angles, in radians, between the image's map and theirs, lam and progress, each as 4 x - 2. Where one of a pair supplants the other,
    the cosine of that angle is what the reward comes down to. Other parts of an observation are taken as they are, flattened.

    This stands in for a running normalisation (Andrychowicz et al. 2021: "always use observation normalization"): every part has a
    known scale, and a policy can be moved to another classifier as it is. The scale matters: with maps ten times larger, and cosines
    and lam as they are, PPO gained a third as much in as many steps (docs/study.md).
    """
    return np.concatenate(columns(observation, map_features, logit_features, _angle), axis=1)


def columns(
    observation: Mapping[str, Values],
    of_map: Callable[[Values], Values],
    of_logits: Callable[[Values], Values],
    angle: Callable[[Values, Values], Values],
) -> list[Values]:
    """What :func:`policy_features` puts side by side, made of an observation's parts by functions of theirs."""
    seen = [
        of_map(values) if name.endswith("saliency") else of_logits(values)
        for name, values in observation.items()
        if name.endswith(SEEN)
    ]
    maps = [name for name in observation if name.endswith("_saliency") and "saliency" in observation]
    numbers = [angle(observation["saliency"], observation[name]) for name in maps]
    numbers += [observation[name] for name in NUMBERS if name in observation]
    rest = [v.reshape(len(v), -1) for name, v in observation.items() if not name.endswith(SEEN) and name not in NUMBERS]
    return [*seen, *(4 * number - 2 for number in numbers), *rest]


def num_features(observation: str) -> int:
    """How many numbers :func:`policy_features` gives of an image, of the observation called so."""
    parts = parts_of(observation)
    one = {name: np.full((1, *part.shape), 0.5, np.float32) for name, part in parts.items() if CLASSES not in part.shape}
    logits = {name: np.zeros((1, 1), np.float32) for name, part in parts.items() if CLASSES in part.shape}
    unknown = [name for name in logits if not name.endswith("logits")]
    if unknown:
        raise ValueError(f"observation {observation} must end in logits where a part is a number a class, got {unknown[0]}")
    return policy_features({name: (one | logits)[name] for name in parts}).shape[1]


def map_features(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 64): maps that sum to 1, scaled to a mean of a tenth."""
    return (maps.reshape(len(maps), -1) * AGENT_PATCHES**2 / 10).astype(np.float32)


def logit_features(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 10): the ten largest log-probabilities, sorted, over 10."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    features = np.full((len(logits), NUM_LOGITS), LOG_PROBABILITY_FLOOR, np.float32)
    kept = min(NUM_LOGITS, logits.shape[1])
    largest = -np.sort(-log_probabilities, axis=1)[:, :kept]
    features[:, :kept] = largest.clip(min=LOG_PROBABILITY_FLOOR)
    features /= 10
    return features


def _angle(maps: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 1), in [0, pi / 2]; maps sum to 1, so none is zero."""
    first, second = maps.reshape(len(maps), -1), others.reshape(len(others), -1)
    norms = np.sqrt((first**2).sum(1, keepdims=True) * (second**2).sum(1, keepdims=True))
    return np.arccos(((first * second).sum(1, keepdims=True) / norms).clip(0, 1)).astype(np.float32)


def feature_space(observation: str, *shape: int) -> spaces.Box:
    """The space of :func:`policy_features` of the observation called so, flattened, with the batch in front where there is one."""
    return spaces.Box(*FEATURE_BOUNDS, (int(np.prod(shape, dtype=int)) * num_features(observation),), np.float32)


class BatchFeatures(gymnasium.ObservationWrapper[NDArray[np.float32], NDArray[Any], Observation]):
    """The single form for Stable-Baselines3: the batch's features as one flat vector (B * F,), image by image."""

    def __init__(self, env: gymnasium.Env[Observation, NDArray[Any]], batch_size: int, observation: str = "paper") -> None:
        super().__init__(env)
        self.observation_space: spaces.Space[Any] = feature_space(observation, batch_size)

    def observation(self, observation: Observation) -> NDArray[np.float32]:
        return policy_features(observation).flatten()
