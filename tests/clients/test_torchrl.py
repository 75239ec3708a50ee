"""torchrl's wrapper and collector over the single form: the frames are the environment's own."""

import gymnasium
import numpy as np
import pytest
import torch
from toys import toy_config

import rlmix.envs  # noqa: F401  (registers the environment)
from rlmix.envs.env import RLMixEnv

pytestmark = pytest.mark.filterwarnings("ignore")  # of torchrl about its own parts
pytest.importorskip("torchrl")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of four steps of four images."""
    return toy_config(tmp_path_factory.mktemp("torchrl"), 8, num_train=16, num_classes=4, batch_size=4)


def own_walk(config, actions, seed):
    """Observations and rewards of the environment as it is, under these actions."""
    env = RLMixEnv(config)
    seen, rewards = [env.reset(seed=seed)[0]], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        rewards.append(float(reward))
        seen.append(env.reset()[0] if terminated or truncated else observation)
    return seen, rewards


def test_a_rollout_is_the_environments_own(config):
    from torchrl.envs import GymWrapper

    env = GymWrapper(gymnasium.make("rlmix/RLMix-v0", config=config), categorical_action_encoding=True)
    env.set_seed(5)
    frames = env.rollout(3, break_when_any_done=False)
    choices = frames["action"]
    assert choices.shape == (3, 4)
    assert frames["saliency"].shape == (3, 4, 8, 8)
    assert frames["logits"].shape == (3, 4, 4)
    torch.testing.assert_close(frames["saliency"].sum((2, 3)), torch.ones(3, 4))
    rewards = frames["next", "reward"].flatten()
    assert len(set(rewards.tolist())) == 3
    assert ((rewards > -1) & (rewards <= 1)).all()
    assert int(choices.max()) < 10
    env.close()


def test_a_collector_goes_over_the_ends_of_episodes(config):
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper

    env = GymWrapper(gymnasium.make("rlmix/RLMix-v0", config=config), categorical_action_encoding=True)
    collector = Collector(env, None, frames_per_batch=4, total_frames=8, device="cpu")
    batches = [batch.clone() for batch in collector]
    collector.shutdown()
    assert [batch["next", "done"].flatten().tolist() for batch in batches] == [[False, False, False, True]] * 2
    for batch in batches:
        assert ((batch["next", "reward"] > -1) & (batch["next", "reward"] <= 1)).all()
        inner = batch["next", "saliency"][:-1], batch["saliency"][1:]
        torch.testing.assert_close(*inner)


def test_the_same_actions_earn_the_same_without_torchrl(config):
    from torchrl.envs import GymWrapper

    inner = RLMixEnv(config)
    env = GymWrapper(inner, categorical_action_encoding=True)
    state = env.reset()
    inner.reset(seed=7)
    state = env.rand_action(state)
    choices = state["action"].numpy()
    earned = float(env.step(state)["next", "reward"])
    _, (expected,) = own_walk(config, [choices], seed=7)
    assert earned == pytest.approx(expected, abs=1e-6)
