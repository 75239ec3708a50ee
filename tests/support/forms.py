"""Both forms of the environment, made as Gymnasium makes them."""

import copy

import gymnasium
import numpy as np
import pytest
import torch

ENV = "rlmix.envs:rlmix/RLMix-v0"


def single(config, **options):
    return gymnasium.make(ENV, config=config, **options).unwrapped


def vector(config, **options):
    num_envs = config.optim.batch_size
    return gymnasium.make_vec(ENV, num_envs=num_envs, vectorization_mode="vector_entry_point", config=config, **options)


FORMS = pytest.mark.parametrize("make", [single, vector])


def actions_of(config, steps, seed=0):
    return np.random.default_rng(seed).integers(config.mixing.num_top_k, size=(steps, config.optim.batch_size))


def assert_equal(first, second):
    """Bit for bit, through dictionaries."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    else:
        np.testing.assert_array_equal(first, second, strict=True)


def weights(env):
    return copy.deepcopy(env.process.training.model.state_dict())


def same_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)
