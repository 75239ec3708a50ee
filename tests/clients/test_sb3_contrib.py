"""sb3-contrib's algorithms learn on the adapter for Stable-Baselines3, and what they save is a policy of rlmix's."""

import numpy as np
import pytest
import torch
from toys import toy_config

from rlmix.agents.features import policy_features
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.sb3.vec_env import SlotVecEnv
from rlmix.envs.conversion import to_host
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv

contrib = pytest.importorskip("sb3_contrib")

ALGORITHMS = {
    "TRPO": ("MlpPolicy", {"n_steps": 2, "batch_size": 16}),
    "RecurrentPPO": ("MlpLstmPolicy", {"n_steps": 2, "batch_size": 16, "n_epochs": 1}),
    "QRDQN": ("MlpPolicy", {"learning_starts": 8, "batch_size": 8, "train_freq": 1, "buffer_size": 100}),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of two steps of eight images."""
    return toy_config(tmp_path_factory.mktemp("contrib"), 8, num_train=16, num_classes=4, batch_size=8)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_learns_from_every_image_of_every_step(config, name, monkeypatch):
    policy, options = ALGORITHMS[name]
    env, step, rewards = RLMixVectorEnv(config=config), RLMixVectorEnv.step, []

    def counted(env, actions):
        result = step(env, actions)
        rewards.append(result[1])
        return result

    monkeypatch.setattr(RLMixVectorEnv, "step", counted)
    model = getattr(contrib, name)(policy, SlotVecEnv(env), seed=0, device="cpu", **options)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(4 * 8)
    assert (model.num_timesteps, len(rewards)) == (32, 4)
    kept = model.rollout_buffer.rewards if hasattr(model, "rollout_buffer") else model.replay_buffer.rewards[:4]
    assert kept[-1] == pytest.approx(rewards[-1]), "an image's reward is its own slot's"
    assert any(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))
    actions, _ = model.predict(np.zeros((8, *model.observation_space.shape), np.float32))
    assert set(actions.tolist()) <= set(range(10))


def test_trpos_zip_is_a_policy(config, tmp_path):
    model = contrib.TRPO("MlpPolicy", SlotVecEnv(RLMixVectorEnv(config=config)), seed=0, device="cpu", n_steps=2, batch_size=16)
    model.learn(16)
    model.save(tmp_path / "trpo.zip")
    policy, process = LearnedPolicy(tmp_path / "trpo.zip", seed=0), MixingProcess(config)
    process.reset()
    decision = process.observe()
    seen = torch.from_numpy(policy_features(to_host(decision, policy.observation)[0]))
    with torch.no_grad():
        expected = model.policy.get_distribution(seen).distribution.probs
    assert torch.allclose(policy.probabilities(decision), expected, atol=1e-6)
