"""Tianshou's collector and PPO over the single form, whose joint action its distribution draws."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn
from toys import toy_config

import rlmix.envs  # noqa: F401  (registers the environment)

pytestmark = pytest.mark.filterwarnings("ignore")  # of Tianshou about its own parts
tianshou = pytest.importorskip("tianshou")


class Flat(gymnasium.ObservationWrapper):
    """A row an image: its map and its logits."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4 * 68,), np.float32)

    def observation(self, observation):
        parts = [observation["saliency"].reshape(4, 64), observation["logits"]]
        return np.concatenate(parts, 1).astype(np.float32).flatten()


class Actor(nn.Module):
    """Scores of ten values for each image."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(68, 10)

    def forward(self, obs, state=None, info=None):
        return self.layer(torch.as_tensor(np.asarray(obs)).unflatten(1, (4, 68))), state


class Critic(nn.Module):
    """A number a batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4 * 68, 1)

    def forward(self, obs, **options):
        return self.layer(torch.as_tensor(np.asarray(obs)))


def choose(logits):
    return torch.distributions.Independent(torch.distributions.Categorical(logits=logits), 1)


def test_ppo_collects_an_epoch_and_learns(tmp_path):
    from tianshou.algorithm import PPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv

    config = toy_config(tmp_path, 8, num_train=16, num_classes=4, batch_size=4)
    envs = DummyVectorEnv([lambda: Flat(gymnasium.make("rlmix/RLMix-v0", config=config))])
    actor = Actor()
    space = gymnasium.spaces.MultiDiscrete([10] * 4)
    policy = ProbabilisticActorPolicy(
        actor=actor, dist_fn=choose, action_space=space, action_scaling=False, action_bound_method=None
    )
    algorithm = PPO(policy=policy, critic=Critic(), optim=AdamOptimizerFactory(lr=1e-2), gamma=0.0)
    collector = Collector(algorithm, envs, VectorReplayBuffer(20, 1))
    collector.reset()
    found = collector.collect(n_step=4)
    assert (found.n_collected_steps, found.n_collected_episodes) == (4, 1)
    assert ((found.returns > -4) & (found.returns <= 4)).all()
    batch, _ = collector.buffer.sample(0)
    assert batch.act.shape == (4, 4)
    assert batch.done.tolist() == [False, False, False, True]
    assert float(found.returns[0]) == pytest.approx(float(batch.rew.sum()), rel=1e-5)
    before = actor.layer.weight.detach().clone()
    with tianshou.utils.torch_utils.policy_within_training_step(policy):
        algorithm.update(buffer=collector.buffer, batch_size=4, repeat=2)
    assert not torch.equal(before, actor.layer.weight)
