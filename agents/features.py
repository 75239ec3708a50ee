"""What a policy reads of an observation: few numbers, of one scale, the same for every number of classes."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlmix.envs.conversion import Observation
from rlmix.envs.map_rewards import AGENT_PATCHES

NUM_LOGITS = 10
"""Largest log-probabilities a policy reads of an image. An ImageNet epoch of logits would be 5 GB; of these it is 50 MB."""
LOG_PROBABILITY_FLOOR = -20.0
IMAGE_FEATURES = AGENT_PATCHES**2 + NUM_LOGITS
NUM_FEATURES = {"paper": IMAGE_FEATURES, "pair": 3 * IMAGE_FEATURES + 4}
"""Of each observation, an image."""

FEATURE_BOUNDS = (LOG_PROBABILITY_FLOOR / 10, AGENT_PATCHES**2 / 10)


def policy_features(observation: Observation) -> NDArray[np.float32]:
    """One row an image.

    Of the paper's observation (74): the 8x8 map scaled to mean 1, and the ten largest log-probabilities, sorted, all divided by 10;
    fewer classes are padded with the floor of -20. Of the pair's (226): the same of the image, of its partner and of its host; the
    angles, in radians, between the image's map and theirs, lam and progress, each as 4 x - 2. Where one of a pair supplants the other,
    the cosine of that angle is what the reward comes down to.

    This stands in for a running normalisation (Andrychowicz et al. 2021: "always use observation normalization"): every part has a
    known scale, and a policy can be moved to another classifier as it is. The scale matters: with maps ten times larger, and cosines
    and lam as they are, PPO gained a third as much in as many steps (docs/study.md).
    """
    own = image_features(observation["saliency"], observation["logits"])
    if "lam" not in observation:
        return own
    others = [image_features(observation[f"{who}_saliency"], observation[f"{who}_logits"]) for who in ("partner", "host")]
    angles = [_angle(observation["saliency"], observation[f"{who}_saliency"]) for who in ("partner", "host")]
    numbers = np.concatenate([*angles, observation["lam"], observation["progress"]], axis=1)
    return np.concatenate([own, *others, 4 * numbers - 2], axis=1)


def image_features(maps: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 74): an image's map, scaled, and its ten largest log-probabilities, scaled."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    features = np.full((len(maps), IMAGE_FEATURES), LOG_PROBABILITY_FLOOR, np.float32)
    features[:, : AGENT_PATCHES**2] = maps.reshape(len(maps), -1) * AGENT_PATCHES**2
    kept = min(NUM_LOGITS, logits.shape[1])
    largest = -np.sort(-log_probabilities, axis=1)[:, :kept]
    features[:, AGENT_PATCHES**2 : AGENT_PATCHES**2 + kept] = largest.clip(min=LOG_PROBABILITY_FLOOR)
    features /= 10
    return features


def _angle(maps: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 1), in [0, pi / 2]; maps sum to 1, so none is zero."""
    first, second = maps.reshape(len(maps), -1), others.reshape(len(others), -1)
    norms = np.sqrt((first**2).sum(1, keepdims=True) * (second**2).sum(1, keepdims=True))
    return np.arccos(((first * second).sum(1, keepdims=True) / norms).clip(0, 1)).astype(np.float32)


def feature_space(observation: str, *shape: int) -> spaces.Box:
    """The space of :func:`policy_features` of the observation called so, flattened, with the batch in front where there is one."""
    return spaces.Box(*FEATURE_BOUNDS, (int(np.prod(shape, dtype=int)) * NUM_FEATURES[observation],), np.float32)


class BatchFeatures(gymnasium.ObservationWrapper[NDArray[np.float32], NDArray[Any], Observation]):
    """The single form for Stable-Baselines3: the batch's features as one flat vector (B * F,), image by image."""

    def __init__(self, env: gymnasium.Env[Observation, NDArray[Any]], batch_size: int, observation: str = "paper") -> None:
        super().__init__(env)
        self.observation_space: spaces.Space[Any] = feature_space(observation, batch_size)

    def observation(self, observation: Observation) -> NDArray[np.float32]:
        return policy_features(observation).flatten()
