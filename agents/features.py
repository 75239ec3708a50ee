"""What a policy reads of an observation: few numbers, of one scale, the same for every number of classes."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlmix.envs.host import Observation
from rlmix.envs.rewards import AGENT_PATCHES

NUM_LOGITS = 10
"""Largest log-probabilities a policy reads. An ImageNet epoch of logits would be 5 GB; of these it is 50 MB."""
LOG_PROBABILITY_FLOOR = -20.0
NUM_FEATURES = AGENT_PATCHES**2 + NUM_LOGITS

FEATURE_BOUNDS = (LOG_PROBABILITY_FLOOR / 10, float(AGENT_PATCHES**2))


def policy_features(observation: Observation) -> NDArray[np.float32]:
    """One row (74,) an image: its 8x8 map scaled to mean 1, and its ten largest log-probabilities, sorted, divided by 10.

    Fewer classes are padded with the floor of -20. This stands in for a running normalisation (Andrychowicz et al. 2021: "always
    use observation normalization"): both parts have a known scale, and a policy can be moved to another classifier as it is.
    """
    maps, logits = observation["saliency"], observation["logits"]
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    features = np.full((len(maps), NUM_FEATURES), LOG_PROBABILITY_FLOOR / 10, np.float32)
    features[:, : AGENT_PATCHES**2] = maps.reshape(len(maps), -1) * AGENT_PATCHES**2
    kept = min(NUM_LOGITS, logits.shape[1])
    largest = -np.sort(-log_probabilities, axis=1)[:, :kept]
    features[:, AGENT_PATCHES**2 : AGENT_PATCHES**2 + kept] = largest.clip(min=LOG_PROBABILITY_FLOOR) / 10
    return features


def feature_space(*shape: int) -> spaces.Box:
    """The space of :func:`policy_features`, flattened, with the batch in front where there is one."""
    return spaces.Box(*FEATURE_BOUNDS, (int(np.prod(shape, dtype=int)) * NUM_FEATURES,), np.float32)


class BatchFeatures(gymnasium.ObservationWrapper[NDArray[np.float32], NDArray[Any], Observation]):
    """The single form for Stable-Baselines3: the batch's features as one flat vector (B * 74,), image by image."""

    def __init__(self, env: gymnasium.Env[Observation, NDArray[Any]], batch_size: int) -> None:
        super().__init__(env)
        self.observation_space: spaces.Space[Any] = feature_space(batch_size)

    def observation(self, observation: Observation) -> NDArray[np.float32]:
        return policy_features(observation).flatten()
