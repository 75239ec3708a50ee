"""Who learns, by name: each algorithm on toys, learned policies used again, and a problem with a known answer."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from toys import toy_config

import rlmix
from rlmix.agents import features
from rlmix.agents.algorithms import ALGORITHMS, build_agent
from rlmix.agents.bandit import BanditAgent
from rlmix.agents.epoch_bandit import EpochBandit
from rlmix.agents.features import feature_space, num_features, policy_features
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.sb3.on_device import DeviceAgent
from rlmix.envs.conversion import to_host
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig
from rlmix.scripts import train as command

QUICK = PPOConfig(policy_layers=(16,), value_layers=(16,), passes=2, minibatch_size=16)

SEEING = [name for name in ALGORITHMS if ALGORITHMS.entry(name).traits.get("layers")]
"""Algorithms whose policy looks at images."""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images of three classes."""
    return toy_config(
        tmp_path_factory.mktemp("toy"), 8, num_train=12, num_classes=3, batch_size=4, observation="pair", credit="pair"
    )


def learn(agent):
    """What its callbacks heard, and its policy's weights, of a whole training."""
    steps, epochs = [], []
    agent.learn(lambda: steps.append(1), epochs.append)
    return len(steps), epochs, {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}


@pytest.mark.parametrize("algorithm", SEEING)
@pytest.mark.parametrize("observation", ["paper", "pair"])
def test_every_algorithm_learns_a_whole_run_and_twice_the_same(config, algorithm, observation):
    config, runs = config.changed(observation=observation), []
    for _ in range(2):
        agent = build_agent(algorithm, RLMixVectorEnv(config=config), QUICK, seed=0)
        before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        runs.append(learn(agent))
        assert any(not torch.equal(before[name], runs[-1][2][name]) for name in before)
    steps, epochs, weights = runs[0]
    assert (steps, len(epochs)) == (4, 2), "an epoch's last step ends it"
    assert epochs == runs[1][1]
    assert all(torch.equal(weights[name], runs[1][2][name]) for name in weights)


@pytest.mark.parametrize("algorithm", ["dqn", "bandit"])
def test_algorithms_without_a_joint_action_refuse_the_batch_form(config, algorithm):
    with pytest.raises(ValueError, match="granularity must be image"):
        build_agent(algorithm, RLMixEnv(config), QUICK, seed=0)


@pytest.mark.parametrize(
    ("agent", "who"), [(BanditAgent, "the bandit"), (EpochBandit, "epochs"), (DeviceAgent, "agent_device classifier")]
)
def test_those_that_choose_from_a_table_refuse_continuous_actions(config, agent, who):
    number = config.resolved().mixing.num_top_k
    with pytest.raises(ValueError, match=f"continuous must be False under {who}, which takes one of {number} choices, got True"):
        agent(RLMixVectorEnv(config=config, continuous=True), QUICK, 0)


@pytest.mark.parametrize(
    ("algorithm", "form", "who"),
    [("dqn", RLMixVectorEnv, "dqn"), ("ppo", RLMixEnv, "granularity batch"), ("a2c", RLMixEnv, "granularity batch")],
)
def test_continuous_actions_that_stable_baselines3_does_not_take_are_refused(config, algorithm, form, who):
    with pytest.raises(ValueError, match=f"^continuous must be False under {who}, which takes one of 10 choices, got True$"):
        build_agent(algorithm, form(config=config, continuous=True), QUICK, seed=0)


def test_unknown_algorithm_is_refused(config):
    with pytest.raises(ValueError, match=r"algorithm must be one of .*, got 'pppo' \(did you mean 'ppo'\?\)"):
        build_agent("pppo", RLMixVectorEnv(config=config), QUICK, seed=0)


def test_bandit_continues_from_its_state(config):
    first, second = (build_agent("bandit", RLMixVectorEnv(config=config), QUICK, seed) for seed in (0, 1))
    learn(first)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for agent in (first, second):
        agent.process.reset(7)
    learned = [learn(agent)[2] for agent in (first, second)]
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


# -- features of a pair


def test_pair_features_are_the_images_own_their_partners_and_hosts(config):
    process = MixingProcess(config)
    process.reset()
    decision = process.observe()
    features = policy_features(to_host(decision, "pair")[0])
    own = policy_features(to_host(decision, "paper")[0])
    partner = decision.pairing.partner.tolist()
    assert features.shape == (4, num_features("pair")) == (4, 3 * 74 + 4)
    for image in range(4):
        host = partner.index(image)
        assert features[image] in feature_space("pair")
        parts = np.split(features[image], [74, 148, 222])
        for part, index in zip(parts, (image, partner[image], host), strict=False):
            np.testing.assert_array_equal(part, own[index])
        maps = decision.patches.double().flatten(1).numpy()
        for angle, other in zip((parts[3] + 2) / 4, (partner[image], host), strict=False):
            cosine = maps[image] @ maps[other] / np.sqrt((maps[image] @ maps[image]) * (maps[other] @ maps[other]))
            assert np.cos(angle) == pytest.approx(cosine, abs=1e-5)
        assert ((parts[3][2:] + 2) / 4).tolist() == pytest.approx([decision.pairing.lam, 0], abs=1e-6)


# -- learned policies


@pytest.fixture(scope="module")
def learned(tmp_path_factory, config):
    """A folder of a finished run for each algorithm, and one of the joint form."""
    root = tmp_path_factory.mktemp("learned")
    options = ["--data", config.data.name, "--model", config.model.name, "--batch-size", "4", "--epochs", "1", "--device", "cpu"]
    options += ["--learning-rate", "0.05", "--agent.learning-rate", "0.05"]
    options += ["--observation", "pair"]
    for name in (*SEEING, "joint"):
        form = ["--granularity", "batch"] if name == "joint" else ["--algorithm", name]
        form += [] if name in ("a2c", "bandit") else ["--agent.passes", "2", "--agent.minibatch-size", "16"]
        command.main([*options, *form, "--out", str(root / name)])
    return root


@pytest.mark.parametrize("name", [*SEEING, "joint"])
def test_learned_policy_chooses_as_the_agent_that_learned_it(config, learned, name):
    policy = LearnedPolicy(learned / name, seed=0)
    process = MixingProcess(config.changed(seed=5))
    process.reset()
    decision = process.observe()
    probabilities = policy.probabilities(decision)
    env = RLMixEnv(config) if name == "joint" else RLMixVectorEnv(config=config)
    agent = build_agent("ppo" if name == "joint" else name, env, PPOConfig(), seed=3)
    state = torch.load(sorted((learned / name / "checkpoints").iterdir())[-1], weights_only=True)["decider"]
    agent.load_state_dict(state)
    features = torch.from_numpy(policy_features(to_host(decision, "pair")[0]))
    with torch.no_grad():
        if name == "joint":
            parts = agent.policy.get_distribution(features.flatten()[None]).distribution
            expected = torch.stack([part.probs[0] for part in parts])
        elif name == "dqn":
            expected = torch.nn.functional.one_hot(agent.policy.q_net(features).argmax(1), 10).float()
        elif name == "bandit":
            expected = agent.policy(features).softmax(1)
        else:
            expected = agent.policy.get_distribution(features).distribution.probs
    torch.testing.assert_close(probabilities, expected)
    assert name == "dqn" or probabilities.std() > 0


def test_learned_policy_serves_other_data_classes_and_batch_sizes(learned, tmp_path):
    other = toy_config(tmp_path, 16, num_classes=7, batch_size=6)
    process = MixingProcess(other)
    process.reset()
    policy = LearnedPolicy(learned / "ppo", seed=0)
    top_k = policy(process.observe())
    assert top_k.shape == (6,)
    assert np.abs(top_k.numpy()[:, None] - np.linspace(0, 0.99, 10)).min(1).max() < 1e-6
    assert 0 < policy.entropy <= np.log(10) + 1e-6
    process.act(top_k)


def test_learned_policy_goes_on_from_its_state(learned, config):
    process = MixingProcess(config)
    process.reset()
    first, second = (LearnedPolicy(learned / "ppo", seed) for seed in (0, 1))
    first(process.observe())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first(process.observe()), second(process.observe()))


def test_policy_of_a_run_in_which_nobody_learned_is_refused(tmp_path, config):
    options = ["--data", config.data.name, "--model", config.model.name, "--batch-size", "4", "--epochs", "1", "--device", "cpu"]
    command.main([*options, "--method", "rmix", "--num-patches", "8", "--out", str(tmp_path / "rmix")])
    with pytest.raises(ValueError, match=r"policy must be the folder of a run in which an agent learned, got .*rmix of rmix"):
        LearnedPolicy(tmp_path / "rmix", seed=0)
    command.main([*options, "--method", "vanilla", "--out", str(tmp_path / "vanilla")])
    with pytest.raises(
        ValueError, match=r"policy must be the folder of a run in which an agent learned, got .*vanilla of vanilla"
    ):
        LearnedPolicy(tmp_path / "vanilla", seed=0)


# -- a problem with a known answer


class KnownAnswer(RLMixVectorEnv):
    """The vector form's spaces over synthetic maps: bright from some patch on, and the share of dark ones is the quantile that pays 1."""

    def __init__(self, steps_per_epoch, epochs):
        self.num_envs, self.render_mode = 32, None
        self.single_action_space = spaces.Discrete(10)
        self.config = rlmix.Config.flat(batch_size=32).resolved()
        steps = {"steps_per_epoch": steps_per_epoch, "mixed_steps": steps_per_epoch * epochs}
        self.clock = SimpleNamespace(**steps, global_step=0, epoch=0)
        process = {"config": self.config, "observation": "paper"}
        self.process = SimpleNamespace(**process, reset=lambda: None, require_training=lambda: self.clock)
        self.draw, self.earned = np.random.default_rng(0), []

    def observe(self):
        self.answer = self.draw.integers(10, size=32)
        dark = np.round(self.answer * 0.11 * 64).astype(int)[:, None]
        maps = np.where(np.arange(64) < dark, 0.1, 1.0) * self.draw.uniform(0.9, 1.1, (32, 64))
        maps = (maps / maps.sum(1, keepdims=True)).reshape(32, 8, 8)
        return {"saliency": maps.astype(np.float32), "logits": self.draw.normal(size=(32, 10)).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        return self.observe(), {}

    def step(self, actions):
        rewards = (actions == self.answer).astype(np.float32)
        self.earned.append(rewards.mean())
        self.clock.global_step += 1
        over = np.full(32, self.clock.global_step % self.clock.steps_per_epoch == 0)
        infos = {"final_obs": self.observe()} if over.all() else {}
        return self.observe(), rewards, np.zeros(32, bool), over, infos


def test_ppo_finds_the_known_answer():
    """Chance is 10 %; more than 95 % within 600 steps."""
    env = KnownAnswer(steps_per_epoch=50, epochs=12)
    agent = build_agent("ppo", env, PPOConfig(), seed=0)
    agent.learn(lambda: None, lambda figures: None)
    assert np.mean(env.earned[:50]) < 0.2
    assert np.mean(env.earned[-100:]) > 0.95


# -- what features are


def test_the_angle_of_a_map_with_itself_is_zero_whatever_its_rounding():
    maps = np.random.default_rng(0).dirichlet(np.ones(64), 5000).astype(np.float32).reshape(-1, 8, 8)
    assert np.abs(features._angle(maps, maps)).max() < 1e-3
