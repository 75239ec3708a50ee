"""A PPO in the shape of CleanRL's single files, on Gymnasium's vector form: one file's loop, no class of ours."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn
from toys import toy_config

import rlmix.envs  # noqa: F401  (registers the environment)


def flatten(observation):
    parts = [np.asarray(part, np.float32).reshape(len(part), -1) for part in observation.values()]
    return torch.from_numpy(np.concatenate(parts, 1))


def test_rollouts_and_updates_over_the_whole_training(tmp_path):
    config = toy_config(tmp_path, 8, num_train=32, num_classes=4, batch_size=8)
    envs = gymnasium.make_vec("rlmix/RLMix-v0", num_envs=8, vectorization_mode="vector_entry_point", config=config)
    assert isinstance(envs.single_action_space, gymnasium.spaces.Discrete)
    observation, _ = envs.reset(seed=1)
    torch.manual_seed(1)
    size, num_actions, num_steps = flatten(observation).shape[1], int(envs.single_action_space.n), 4
    agent = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, num_actions))
    optimizer = torch.optim.Adam(agent.parameters(), 1e-2)
    process = envs.unwrapped.process
    means, ended, kept = [], [], []
    process.on_epoch_end = lambda training: kept.append(process.epoch_metrics()["reward_mean"])
    for _ in range(process.require_training().num_steps // num_steps):
        seen, chosen, before, paid = [], [], [], []
        for _ in range(num_steps):
            states = flatten(observation)
            with torch.no_grad():
                distribution = torch.distributions.Categorical(logits=agent(states))
            action = distribution.sample()
            observation, reward, terminated, truncated, _ = envs.step(action.numpy())
            seen.append(states)
            chosen.append(action)
            before.append(distribution.log_prob(action))
            paid.append(torch.from_numpy(np.asarray(reward, np.float32)))
            ended.append(bool(np.any(terminated | truncated)))
        means.append(float(torch.stack(paid).mean()))
        states, actions, old = torch.cat(seen), torch.cat(chosen), torch.cat(before)
        advantages = torch.cat(paid)  # an action pays at once: gamma 0
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(2):
            distribution = torch.distributions.Categorical(logits=agent(states))
            ratio = (distribution.log_prob(actions) - old).exp()
            loss = (
                -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean() - 0.01 * distribution.entropy().mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert ended == [False, False, False, True] * 2, "an episode is an epoch"
    assert all(-1 <= mean <= 1 for mean in means)
    assert means == pytest.approx(kept, rel=1e-5), "what was paid is what the process earned, epoch by epoch"
    assert ratio.detach().std() > 0
