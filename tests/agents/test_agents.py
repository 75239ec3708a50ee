"""PPO on both forms, the features it reads, and the policies that do not learn."""

import io
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from toys import toy_config

import rlmix
from rlmix.agents.features import BatchFeatures, feature_space, policy_features
from rlmix.agents.policies import ConstantPolicy, FixedRandomPolicy
from rlmix.agents.sb3.joint import JointPolicy
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.agents.sb3.rollout import split_epoch
from rlmix.agents.sb3.vec_env import SlotVecEnv
from rlmix.envs.env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.option_groups import PPOConfig
from rlmix.training.trainer import Training

FORMS = {"image": RLMixVectorEnv, "batch": RLMixEnv}
BY_FORM = pytest.mark.parametrize("form", ["image", "batch"])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of four steps of 16 toy images, 8x8 pixels."""
    return toy_config(tmp_path_factory.mktemp("toy"), 8, num_train=80, train_images=64)


def agent_of(config, form, seed=0, **options):
    return PPOAgent(FORMS[form](config=config), PPOConfig(**options), seed)


def learn(agent):
    """A whole run; what the callbacks heard."""
    steps, epochs = [], []
    training = agent.process.training  # at the end the environment starts the next classifier
    agent.learn(lambda: steps.append(training.global_step), epochs.append)
    return training, steps, epochs


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("fails", [False, True])
def test_an_update_takes_one_thread_and_the_others_are_back_after_it(config, fails, monkeypatch):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        agent = agent_of(config, "image")

        def train(ppo):
            seen.append(torch.get_num_threads())
            if fails:
                raise KeyError("update")

        monkeypatch.setattr(PPO, "train", train)
        with pytest.raises(KeyError) if fails else nullcontext():
            agent.ppo.train()
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


# -- features


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_features_equal_a_loop_and_have_one_size(classes):
    draw = np.random.default_rng(classes)
    maps = draw.random((5, 8, 8)).astype(np.float32)
    maps /= maps.sum((1, 2), keepdims=True)
    logits = draw.normal(scale=8, size=(5, classes)).astype(np.float32)
    features = policy_features({"saliency": maps, "logits": logits})
    assert features.shape == (5, 74)
    assert features.dtype == np.float32
    for image in range(5):
        assert features[image, :64].mean() == pytest.approx(0.1, rel=1e-5)
        best = sorted(log_softmax(logits[image].astype(float)), reverse=True)[:10]
        expected = [max(value, -20) / 10 for value in best] + [-2] * (10 - len(best))
        np.testing.assert_allclose(features[image, :64], maps[image].ravel() * 6.4, rtol=1e-5)
        np.testing.assert_allclose(features[image, 64:], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0, 1e4, 3e38])
def test_features_of_extreme_logits_stay_in_their_space(scale):
    logits = np.linspace(-scale, scale, 20, dtype=np.float32)[None]
    maps = np.zeros((1, 8, 8), np.float32)
    maps[0, 0, 0] = 1
    with np.errstate(over="ignore"):
        features = policy_features({"saliency": maps, "logits": logits})
    assert features[0] in feature_space("paper")


@given(steps=st.integers(1, 5000), bound=st.integers(1, 2000))
def test_rollouts_share_an_epoch_all_but_equally(steps, bound):
    parts = split_epoch(steps, bound)
    assert sum(parts) == steps
    assert min(parts) > 0
    assert max(parts) <= bound
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-steps // bound)


# -- PPO


@BY_FORM
def test_agent_learns_a_whole_run_and_twice_the_same(tiny_config, form):
    config, runs = tiny_config.changed(device="cpu"), []
    for _ in range(2):
        torch.rand(3)  # the global random states before do not matter
        np.random.rand(3)  # noqa: NPY002
        agent = agent_of(config, form)
        before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        training, steps, epochs = learn(agent)
        assert training.finished
        assert steps == [1, 2, 3, 5, 6, 7]  # on_step follows each step but an epoch's last, on_epoch that one
        assert len(epochs) == 2
        after = agent.policy.state_dict()
        moved = [not torch.equal(before[name], after[name]) for name in before]
        assert all(moved)
        for figures in epochs:
            assert 0 < figures["policy_entropy"] <= (1 if form == "image" else 16) * np.log(10) * (1 + 1e-6)
            assert all(np.isfinite(value) for value in figures.values())
        runs.append((after, training.model.state_dict(), epochs))
    for part in (0, 1):
        assert_same_tensors(runs[0][part], runs[1][part])
    assert runs[0][2] == runs[1][2]


@BY_FORM
def test_classifier_under_an_agent_starts_as_the_seed_says(config, form):
    config = config.changed(seed=3)
    agent = agent_of(config, form, seed=8)
    expected = Training(config).model.state_dict()
    assert_same_tensors(agent.process.training.model.state_dict(), expected)
    agent.ppo.env.reset()  # as PPO does when it begins
    assert_same_tensors(agent.process.training.model.state_dict(), expected)


def test_another_seed_gives_another_agent(config):
    first, second = (agent_of(config, "image", seed).policy.state_dict() for seed in (0, 1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


@BY_FORM
def test_the_networks_have_the_layers_that_are_asked_for_and_the_stated_epsilon(config, form):
    policy = agent_of(config, form, policy_layers=(5,), value_layers=(7, 6)).policy
    sizes = {
        name: [layer.out_features for layer in network if isinstance(layer, torch.nn.Linear)]
        for name, network in (("pi", policy.mlp_extractor.policy_net), ("vf", policy.mlp_extractor.value_net))
    }
    assert sizes == {"pi": [5], "vf": [7, 6]}
    assert policy.optimizer.defaults["eps"] == 1e-5


def test_an_error_that_is_not_the_agents_is_passed_on_as_it_is(config, monkeypatch):
    agent, error = agent_of(config, "image"), ValueError("the disk is on fire")

    def fail(top_k):
        raise error

    monkeypatch.setattr(agent.process, "act", fail)
    with pytest.raises(ValueError, match=r"^the disk is on fire$") as caught:
        agent.learn(lambda: None, lambda figures: None)
    assert caught.value is error


@BY_FORM
def test_rollouts_shorter_than_an_epoch_and_of_unequal_length(config, form):
    agent = agent_of(config.changed(train_images=80), form, rollout_steps=3, passes=2)
    assert agent.rollouts == [3, 2]
    training, steps, epochs = learn(agent)
    assert training.finished
    assert steps == [1, 2, 3, 4, 6, 7, 8, 9]
    assert len(epochs) == 2
    assert agent.ppo.num_timesteps == 10 * agent.num_envs
    assert agent.ppo._n_updates == 4 * 2  # two rollouts an epoch, two passes


@BY_FORM
def test_state_goes_through_a_file_without_pickle_and_comes_back_whole(config, form):
    agent, other = agent_of(config, form), agent_of(config, form, seed=1)
    learn(agent)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same_tensors(agent.policy.state_dict(), other.policy.state_dict())
    assert other.ppo.num_timesteps == agent.ppo.num_timesteps == 8 * agent.num_envs
    assert other.ppo._n_updates == agent.ppo._n_updates
    moments, restored = (which.policy.optimizer.state_dict()["state"] for which in (agent, other))
    for index, values in moments.items():
        assert_same_tensors({name: torch.as_tensor(value) for name, value in values.items()}, restored[index])
    assert torch.equal(drawn[0], torch.rand(3))
    assert np.array_equal(drawn[1], np.random.rand(3))  # noqa: NPY002


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passes": 0}, "agent.passes must be above 0, got 0"),
        ({"gamma": 1.5}, r"agent.gamma must be in \[0, 1\], got 1.5"),
        ({"learning_rate": float("nan")}, "agent.learning_rate must be finite and above 0, got nan"),
        ({"entropy_coefficient": -1}, "agent.entropy_coefficient must be at least 0, got -1"),
        ({"policy_layers": ()}, r"agent.policy_layers must be one or more numbers of at least 1, got \(\)"),
    ],
)
def test_hyperparameter_out_of_range_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        agent_of(config, "image", **options)


@BY_FORM
def test_epochs_of_one_step_train_an_agent(config, form):
    agent = agent_of(config.changed(batch_size=64, epochs=3), form)
    ended = []
    agent.process.on_epoch_end = lambda training: ended.append((training.config.run.seed, training.epoch))
    _, steps, epochs = learn(agent)
    assert ended == [(0, 1), (0, 2), (0, 3)]  # three epochs of one classifier
    assert (len(steps), len(epochs)) == (0, 3)


# -- the joint policy


def joint_policy(batch):
    torch.manual_seed(0)
    space = spaces.MultiDiscrete([10] * batch)
    policy = JointPolicy(
        feature_space("paper", batch), space, lambda _: 1e-3, net_arch={"pi": [32, 16], "vf": [64]}, activation_fn=torch.nn.Tanh
    )
    torch.nn.init.normal_(policy.action_net.linear.weight)  # it starts all but uniform
    return policy


def image_logits(policy, features):
    """The shared actor on one image's 74 numbers, by hand."""
    first, _, second, _ = policy.mlp_extractor.policy_net
    hidden = np.tanh(features @ first.weight.T.numpy() + first.bias.numpy())
    hidden = np.tanh(hidden @ second.weight.T.numpy() + second.bias.numpy())
    return hidden @ policy.action_net.linear.weight.T.numpy() + policy.action_net.linear.bias.numpy()


@torch.no_grad()
def test_joint_log_probability_is_the_sum_over_the_images_own():
    policy, draw = joint_policy(6), np.random.default_rng(0)
    features = draw.normal(size=(5, 6, 74)).astype(np.float32)
    actions = draw.integers(10, size=(5, 6))
    _, log_probability, entropy = policy.evaluate_actions(torch.from_numpy(features.reshape(5, -1)), torch.from_numpy(actions))
    for row in range(5):
        each = [log_softmax(image_logits(policy, features[row, image]).astype(float)) for image in range(6)]
        assert log_probability[row].item() == pytest.approx(sum(each[image][actions[row, image]] for image in range(6)), rel=1e-4)
        assert entropy[row].item() == pytest.approx(-sum((np.exp(part) * part).sum() for part in each), rel=1e-4)


def test_joint_policy_has_one_size_for_every_batch():
    shapes = [{name: tensor.shape for name, tensor in joint_policy(batch).state_dict().items()} for batch in (4, 16)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_permuting_the_images_permutes_the_logits_and_keeps_the_value():
    policy, order = joint_policy(6), torch.tensor([3, 1, 0, 5, 4, 2])
    features = torch.randn(2, 6, 74)
    logits, values = [], []
    for seen in (features, features[:, order]):
        parts = policy.get_distribution(seen.flatten(1)).distribution
        logits.append(torch.stack([part.logits for part in parts], 1))
        values.append(policy.predict_values(seen.flatten(1)))
    torch.testing.assert_close(logits[0][:, order], logits[1])
    torch.testing.assert_close(values[0], values[1])


def test_optimizer_holds_every_parameter_of_the_joint_policy():
    policy = joint_policy(4)
    held = {id(weight) for group in policy.optimizer.param_groups for weight in group["params"]}
    assert held == {id(weight) for weight in policy.parameters()}


def test_batch_features_are_the_images_features_one_after_the_other(config):
    env = RLMixEnv(config)
    flat, _ = BatchFeatures(env, 16).reset(seed=0)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(flat.reshape(16, 74), policy_features(observation))


# -- the adapter


def test_adapter_tells_of_the_end_of_an_epoch_in_every_slot(config):
    env, plain = SlotVecEnv(RLMixVectorEnv(config=config)), RLMixVectorEnv(config=config)
    env.seed(0)
    features, observation = env.reset(), plain.reset(seed=0)[0]
    for step, actions in enumerate(np.random.default_rng(0).integers(10, size=(8, 16))):
        np.testing.assert_array_equal(features, policy_features(observation))
        features, rewards, dones, infos = env.step(actions)
        observation, plain_rewards, _, _, plain_infos = plain.step(actions)
        np.testing.assert_array_equal(rewards, plain_rewards)
        assert dones.tolist() == [step in (3, 7)] * 16
        if step in (3, 7):
            last = policy_features(plain_infos["final_obs"])
            assert [info["TimeLimit.truncated"] for info in infos] == [step == 3] * 16
            np.testing.assert_array_equal([info["terminal_observation"] for info in infos], last)
        else:
            assert infos == [{}] * 16


def test_adapter_passes_its_seed_to_the_next_reset_only(config):
    env = SlotVecEnv(RLMixVectorEnv(config=config))
    env.seed(5)
    first = env.reset()
    env.env.process.training.next_batch()
    env.seed(5)
    np.testing.assert_array_equal(first, env.reset())
    assert env.env.process.config.run.seed == 5
    before = env.env.process.training
    env.reset()
    assert env.env.process.training is before


# -- does PPO learn at all?


class Bandit(RLMixVectorEnv):
    """16 slots with the real form's spaces, random observations, and the action's index, of 9, as the reward."""

    def __init__(self):
        self.num_envs, self.render_mode = 16, None
        self.single_action_space = spaces.Discrete(10)
        self.config = rlmix.Config.flat(batch_size=16).resolved()
        self.clock = SimpleNamespace(steps_per_epoch=8, mixed_steps=240, global_step=0, epoch=1)
        self.process = SimpleNamespace(
            reset=lambda: None, require_training=lambda: self.clock, config=self.config, observation="paper"
        )
        self.draw = np.random.default_rng(0)
        self.chosen = []

    def observe(self):
        maps = self.draw.dirichlet(np.ones(64), 16).reshape(16, 8, 8).astype(np.float32)
        return {"saliency": maps, "logits": self.draw.normal(size=(16, 10)).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        return self.observe(), {}

    def reward(self, actions):
        return actions / 9

    def step(self, actions):
        self.clock.global_step += 1
        self.chosen.append(actions.mean())
        over = np.full(16, self.clock.global_step % 8 == 0)
        infos = {"final_obs": self.observe()} if over.all() else {}
        return self.observe(), self.reward(actions).astype(np.float32), np.zeros(16, bool), over, infos


def test_ppo_learns_to_choose_what_pays():
    env = Bandit()
    agent = PPOAgent(env, PPOConfig(learning_rate=3e-3, minibatch_size=64), seed=0)
    agent.learn(lambda: None, lambda figures: None)
    assert np.mean(env.chosen[:8]) == pytest.approx(4.5, abs=0.8)  # uniform at first
    assert np.mean(env.chosen[-8:]) > 7.5


def test_ppo_learns_to_choose_what_pays_in_the_joint_form():
    class Joint(RLMixEnv):
        def __init__(self):
            self.bandit = Bandit()
            self.process, self.render_mode = self.bandit.process, None
            self.action_space = spaces.MultiDiscrete([10] * 16)
            self.observation_space = spaces.Dict()

        def reset(self, *, seed=None, options=None):
            return self.bandit.reset()

        def step(self, action):
            observation, rewards, _, over, _ = self.bandit.step(action)
            return observation, float(rewards.mean()), False, bool(over[0]), {}

    env = Joint()
    env.bandit.clock.mixed_steps = 200
    agent = PPOAgent(env, PPOConfig(learning_rate=3e-3, gamma=0), seed=0)
    assert isinstance(agent.ppo.env, DummyVecEnv)
    agent.learn(lambda: None, lambda figures: None)
    assert np.mean(env.bandit.chosen[-16:]) > 6


# -- policies that do not learn


def decision_of(count):
    return SimpleNamespace(patches=torch.zeros(count, 8, 8))


def test_fixed_random_policy_draws_each_value_equally_often():
    policy = FixedRandomPolicy(10, seed=0)
    values, counts = np.unique(np.concatenate([policy(decision_of(1000)).numpy() for _ in range(20)]), return_counts=True)
    np.testing.assert_allclose(values, np.linspace(0, 0.99, 10), rtol=1e-6)
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-squared with 9 degrees of freedom, p = 0.001
    assert policy.entropy == pytest.approx(np.log(10))


def test_fixed_random_policy_continues_from_its_state():
    policy, other = FixedRandomPolicy(10, seed=0), FixedRandomPolicy(10, seed=1)
    policy(decision_of(5))
    other.load_state_dict(policy.state_dict())
    assert torch.equal(policy(decision_of(50)), other(decision_of(50)))


def test_constant_policy_gives_its_value_and_refuses_others():
    assert ConstantPolicy(0.25)(decision_of(3)).tolist() == [0.25] * 3
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"top_k must be in \[0, 1\), got {wrong}"):
            ConstantPolicy(wrong)
