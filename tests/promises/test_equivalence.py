"""The same training by different ways: in the environment, as a drop-in in a plain loop, through NumPy or not."""

from functools import partial

import numpy as np
import pytest
import torch
from toys import toy_config

import rlmix
from rlmix.agents.policies import ConstantPolicy, FixedRandomPolicy
from rlmix.common.seeding import stream
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.maps.gradient import patch_saliency, saliency, salient_mask
from rlmix.mixing.core import sample_lam
from rlmix.training.trainer import Training


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of four steps of 16 toy images, 16x16 pixels."""
    return toy_config(tmp_path_factory.mktemp("toy"), 16)


def assert_same_weights(first, second):
    for (name, tensor), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def process_of(config):
    process = MixingProcess(config)
    process.reset()
    return process


@pytest.mark.parametrize("seed", [0, 11])
@pytest.mark.parametrize("rule", ["mix_top", "cut_top_least"])
def test_rmix_in_the_environment_is_rmix_in_a_plain_loop(config, seed, rule):
    config = config.changed(seed=seed, rule=rule)
    process, policy = process_of(config.changed(num_patches=(2, 4))), FixedRandomPolicy(10, seed)
    training = Training(config)
    method = partial(rlmix.RMix(num_patches=(2, 4), rule=rule), top_k_generator=stream(seed, "policy"))
    for _ in range(2):
        process.run_epoch(policy)
        training.fit_epoch(method)
        assert_same_weights(process.training.model, training.model)
        assert process.training.epoch_metrics() == training.epoch_metrics()


def test_rmix_in_the_environment_is_a_loop_written_out(config):
    """R-Mix as a loop by hand, with the random draws in the order the streams promise."""
    process, policy = process_of(config.changed(num_patches=(2, 4))), FixedRandomPolicy(10, config.run.seed)
    process.run_epoch(policy)
    training = Training(config)
    chance, choices = stream(config.run.seed, "mixing"), stream(config.run.seed, "policy")
    for _ in range(4):
        images, labels = training.next_batch()
        map = saliency(training.model, images, labels).map
        partner = torch.randperm(16, generator=chance)
        lam = sample_lam(1.0, chance)
        patches = (2, 4)[int(torch.randint(2, (), generator=chance))]
        top_k = torch.linspace(0, 0.99, 10)[torch.randint(10, (16,), generator=choices)]
        mask = salient_mask(patch_saliency(map, patches), top_k)
        training.step(rlmix.mix(images, labels, mask, partner, lam, num_classes=10))
    assert_same_weights(process.training.model, training.model)


@pytest.mark.parametrize("form", [RLMixEnv, RLMixVectorEnv])
def test_stepping_an_environment_is_running_the_epoch_in_torch(config, form):
    actions = np.random.default_rng(0).integers(10, size=(8, 16))
    process, choices = process_of(config), iter(actions)
    seen = []
    for _ in range(2):
        policy = lambda decision: process.values[torch.from_numpy(next(choices))]  # noqa: E731
        process.run_epoch(policy, on_step=lambda top_k, rewards: seen.append(rewards))
    env = form(config=config)
    env.reset(seed=config.run.seed)
    training = env.process.training
    for action, rewards in zip(actions, seen, strict=True):
        _, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(reward, rewards if form is RLMixVectorEnv else rewards.mean(), rtol=1e-6)
        if form is RLMixEnv and truncated:
            env.reset()
    assert np.all(terminated)
    assert_same_weights(process.training.model, training.model)


def test_constant_policy_is_the_same_index_every_time(config):
    process = process_of(config)
    process.run_epoch(ConstantPolicy(float(process.values[3])))
    env = RLMixVectorEnv(config=config)
    env.reset(seed=config.run.seed)
    for _ in range(4):
        env.step(np.full(16, 3))
    assert_same_weights(process.training.model, env.process.training.model)


def test_constant_zero_is_plain_input_mixup(config):
    """With every patch of every image salient, all patches are blended: Zhang et al. 2018."""
    process, training = process_of(config), Training(config)
    process.run_epoch(ConstantPolicy(0.0))
    chance = stream(config.run.seed, "mixing")
    for _ in range(4):
        images, labels = training.next_batch()
        saliency(training.model, images, labels)
        partner, lam = torch.randperm(16, generator=chance), sample_lam(1.0, chance)
        torch.randint(1, (), generator=chance)
        one_hot = torch.eye(10)[labels]
        blend = torch.tensor(lam, dtype=torch.float32)
        mixed = rlmix.Mixed(blend * images + (1 - blend) * images[partner], blend * one_hot + (1 - blend) * one_hot[partner])
        training.step(mixed)
    assert process.training.epoch_metrics()["train_loss"] == pytest.approx(training.epoch_metrics()["train_loss"], rel=1e-4)
