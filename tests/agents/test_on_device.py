"""The agent where the classifier lives, against Stable-Baselines3's PPO on the host: features, updates, whole runs, what is saved."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from toys import toy_config

import rlmix
from rlmix.agents.features import policy_features
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.sb3.host_ppo import FIRST_COEFFICIENT, adapted
from rlmix.agents.sb3.on_device import DeviceAgent
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.agents.tensor_features import tensor_features
from rlmix.envs.conversion import to_host
from rlmix.envs.env import RLMixEnv
from rlmix.envs.observations import observe
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.mixing.actions import action_table
from rlmix.option_groups import PPOConfig
from rlmix.scripts.main import main as rlmix_main


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of five steps of 16 toy images, 8x8 pixels."""
    return toy_config(tmp_path_factory.mktemp("toy"), 8, num_train=80, observation="pair", credit="pair")


def agents_of(config, **options):
    """On the host and on the device, with the same weights, drawing the same."""
    hyperparameters = PPOConfig(**{"rollout_steps": 3, "minibatch_size": 16, "passes": 3} | options)
    host = PPOAgent(RLMixVectorEnv(config=config), hyperparameters, seed=0)
    drawn = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    device = DeviceAgent(RLMixVectorEnv(config=config), hyperparameters, seed=0)
    torch.set_rng_state(drawn[0])
    np.random.set_state(drawn[1])  # noqa: NPY002
    device.generator.set_state(drawn[0])
    return host, device


def assert_close(first, second, tolerance):
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_features_are_those_of_the_host(tmp_path, observation, classes):
    process = MixingProcess(toy_config(tmp_path, 8, num_classes=classes))
    process.reset()
    decision = process.observe()
    expected = policy_features(to_host(decision, observation)[0])
    np.testing.assert_allclose(tensor_features(observe(decision, observation)).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gamma": 0.7, "gae_lambda": 0.8},
        {"entropy_coefficient": 0.1, "clip_range": 0.01, "minibatch_size": 24},
        {"minibatch_size": 2, "passes": 1},
        {"rollout_steps": 1},
    ],
)
def test_an_update_is_that_of_stable_baselines_on_the_same_rollout(config, options):
    host, device = agents_of(config, learning_rate=0.01, **options)
    host.ppo._setup_learn(1)
    for _ in range(device.rollouts[0]):
        device.step()
    kept = device.kept
    for index, one in enumerate(kept):
        observed, actions, rewards, values, log_probs = one
        host.rollout.add(observed.numpy(), actions.numpy(), rewards.numpy(), np.full(16, index == 0), values, log_probs)
    following = device.process.observe()
    last = host.policy.predict_values(device.features(following)).detach()
    host.rollout.compute_returns_and_advantage(last, np.zeros(16, bool))
    before = {name: tensor.clone() for name, tensor in host.policy.state_dict().items()}
    np.random.seed(3)  # noqa: NPY002
    host.ppo.train()
    np.random.seed(3)  # noqa: NPY002
    figures = device.update(following)
    assert_close(host.policy, device.policy, 1e-5)
    assert max(float((tensor - before[name]).abs().max()) for name, tensor in host.policy.state_dict().items()) > 0.01
    expected = host.update_metrics()
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        assert value == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    passes = device.ppo.n_epochs
    assert (device.ppo._n_updates, device.ppo.num_timesteps, device.kept) == (passes, 16 * device.rollouts[0], [])
    for _ in range(2):
        device.step()
    device.update(None)
    assert (device.ppo._n_updates, device.ppo.num_timesteps) == (2 * passes, 16 * (device.rollouts[0] + 2))


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_whole_run_is_that_of_the_agent_on_the_host(config, gamma):
    """What is drawn is drawn alike, so that only rounding is between them, of the features and of what follows."""
    host, device = agents_of(config, gamma=gamma)
    drawn = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    heard = []
    for agent in (host, device):
        torch.set_rng_state(drawn[0])
        np.random.set_state(drawn[1])  # noqa: NPY002
        training, steps, chosen = agent.process.require_training(), [], []
        agent.process.on_epoch_end = lambda training, agent=agent, chosen=chosen: chosen.append(agent.process.epoch_top_k())
        agent.learn(lambda steps=steps, training=training: steps.append(training.global_step), lambda figures: None)
        heard.append((steps, torch.cat(chosen), training))
    (steps, chosen, trained), (own_steps, own_chosen, own_trained) = heard
    assert steps == own_steps
    assert len(chosen) == 2 * 80
    assert torch.equal(chosen, own_chosen)
    assert_close(host.policy, device.policy, 1e-4)
    assert_close(trained.model, own_trained.model, 1e-6)


def test_two_runs_are_the_same(config):
    runs = []
    for _ in range(2):
        agent, epochs = DeviceAgent(RLMixVectorEnv(config=config), PPOConfig(passes=2), seed=4), []
        agent.learn(lambda: None, epochs.append)
        runs.append((agent.policy.state_dict(), epochs))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(tensor, runs[1][0][name]) for name, tensor in runs[0][0].items())


def test_it_goes_on_within_a_rollout_to_the_bit(config):
    """Four steps are taken of an epoch of five, three of which an update has used up."""
    hyperparameters, heard, runs = PPOConfig(rollout_steps=3, passes=2), [], []
    agent = DeviceAgent(RLMixVectorEnv(config=config), hyperparameters, seed=4)
    agent.on_update = heard.append

    def keep():
        if agent.process.training.global_step == 4:
            runs.append(copy.deepcopy((agent.process.state_dict(), agent.state_dict())))

    agent.learn(keep, heard.append)
    assert [set(figures) >= {"policy_entropy", "explained_variance"} for figures in heard] == [True] * 4
    (process, decider), again = runs[0], DeviceAgent(RLMixVectorEnv(config=config), hyperparameters, seed=5)
    assert decider["rollout"]["rewards"].shape == (1, 16)
    again.process.load_state_dict(process)
    again.load_state_dict(decider)
    again.learn(lambda: None, lambda figures: None)
    for one, other in ((agent.policy, again.policy), (agent.process.training.model, again.process.training.model)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_what_it_draws_is_its_seeds_alone(config):
    drawn = []
    for other in (1, 2):
        agent = DeviceAgent(RLMixVectorEnv(config=config), PPOConfig(), seed=0)
        torch.manual_seed(other)
        agent.step()
        drawn.append(agent.kept[0].actions)
    assert torch.equal(*drawn)


def test_where_all_returns_are_alike_nothing_can_be_explained(config):
    _, agent = agents_of(config, gamma=0.0)
    agent.step()
    values = torch.arange(16) % 4 / 4  # of which nothing is rounded
    agent.kept = [one._replace(rewards=torch.ones(16), values=values) for one in agent.kept]
    assert math.isnan(agent.update(None)["explained_variance"])


def test_the_weight_of_the_entropy_is_adapted_to_what_an_update_found(config):
    _, agent = agents_of(config, target_entropy=0.5)
    agent.step()
    figures = agent.update(None)
    assert agent.ppo.ent_coef == adapted(FIRST_COEFFICIENT, figures["policy_entropy"], agent.ppo.target) != FIRST_COEFFICIENT


def test_it_is_for_a_decision_an_image_on_one_device(config):
    message = "agent_device must be cpu without granularity image, or on several devices, got classifier"
    with pytest.raises(ValueError, match=message):
        DeviceAgent(RLMixEnv(config), PPOConfig(), seed=0)
    envs = RLMixVectorEnv(config=config)
    envs.process.reset().ranks.size = 2
    with pytest.raises(ValueError, match=message):
        DeviceAgent(envs, PPOConfig(), seed=0)


def test_it_learns_to_choose_what_pays(monkeypatch):
    """The value of the choice is the reward; what is seen is noise."""
    config = rlmix.Config.flat(batch_size=16).resolved()
    clock = SimpleNamespace(steps_per_epoch=8, trained=0, epoch=0, global_step=0, mixing_finished=False, at_epoch_end=False)
    clock.device, chosen = torch.device("cpu"), []

    def act(action):
        clock.trained, clock.global_step = clock.trained % 8 + 1, clock.global_step + 1
        clock.at_epoch_end, clock.mixing_finished = clock.trained == 8, clock.global_step == 240
        chosen.append(float(action.top_k.mean()))
        return action.top_k

    class Pays(RLMixVectorEnv):
        def __init__(self):
            self.num_envs, self.render_mode, self.process = 16, None, process
            self.single_action_space = rlmix.make_vec_env(config=config).single_action_space

    process = SimpleNamespace(reset=lambda: None, require_training=lambda: clock, config=config, observation="paper")
    process.act, process.observe, process.ranks = act, lambda: None, SimpleNamespace(size=1)
    process.actions = action_table("top_k", 10)
    noise = torch.Generator().manual_seed(0)
    monkeypatch.setattr(DeviceAgent, "features", lambda self, decision: torch.rand(16, 74, generator=noise))
    DeviceAgent(Pays(), PPOConfig(learning_rate=3e-3, minibatch_size=64), seed=0).learn(lambda: None, lambda figures: None)
    assert np.mean(chosen[:8]) == pytest.approx(0.495, abs=0.09)  # uniform at first
    assert np.mean(chosen[-8:]) > 0.82


def test_what_is_not_finite_is_said_as_it_is_on_the_host(config):
    _, agent = agents_of(config, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="the agent's weights are not finite in epoch"):
        agent.learn(lambda: None, lambda figures: None)


def test_what_is_saved_is_stable_baselines_own(config, tmp_path):
    out = tmp_path / "run"
    options = ["--data", config.data.name, "--model", config.model.name, "--batch-size", "16", "--epochs", "1", "--device", "cpu"]
    rlmix_main(["train", *options, "--agent-device", "classifier", "--out", str(out)])
    rlmix_main(["export", str(out), "--out", str(tmp_path / "exported")])
    saved = PPO.load(tmp_path / "exported" / "policy-ppo.zip", device="cpu")
    process = MixingProcess(config.changed(seed=5))
    process.reset()
    decision = process.observe()
    features = torch.from_numpy(policy_features(to_host(decision, "pair")[0]))
    probabilities = saved.policy.get_distribution(features).distribution.probs.detach()
    torch.testing.assert_close(LearnedPolicy(out, seed=0).probabilities(decision), probabilities)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algorithm", "dqn"], "--agent-device must be cpu without algorithm ppo, got classifier"),
        (["--granularity", "batch"], "--agent-device must be cpu without granularity image, got classifier"),
        (["--method", "rmix"], "--agent-device must be left out with --method rmix, in which no agent learns"),
    ],
)
def test_where_it_cannot_be_it_is_refused_in_a_line(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", "digits", "--agent-device", "classifier", *options, "--out", str(tmp_path / "run")])
    *_, line = capsys.readouterr().err.splitlines()
    assert message in line
