"""What the learning algorithms compute from a rollout: their updates, written out again in plain torch and loops."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from toys import toy_config

import rlmix
from rlmix.agents.actors import check_algorithm
from rlmix.agents.algorithms import ALGORITHMS, build_agent
from rlmix.agents.features import policy_features
from rlmix.agents.sb3.a2c import A2CAgent
from rlmix.agents.sb3.host_ppo import COEFFICIENTS, adapted
from rlmix.agents.sb3.online import OnlinePPO
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.envs.conversion import to_host
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import Decision
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.mixing.actions import action_table
from rlmix.option_groups import PPOConfig

SLOTS, STEPS = 6, 8
"""Of one rollout, in the middle of which an episode ends."""


class Noise(RLMixVectorEnv):
    """The real form's spaces over noise: random maps, logits and rewards, in epochs of four steps."""

    def __init__(self):
        self.num_envs, self.render_mode = SLOTS, None
        self.single_action_space = spaces.Discrete(10)
        self.clock = SimpleNamespace(steps_per_epoch=STEPS, mixed_steps=STEPS, global_step=0, trained=0, epoch=1)
        config = rlmix.Config.flat(batch_size=SLOTS).resolved()
        self.process = SimpleNamespace(
            reset=lambda: None, require_training=lambda: self.clock, config=config, observation="paper"
        )
        self.draw = np.random.default_rng(0)

    def observe(self):
        maps = self.draw.dirichlet(np.ones(64), SLOTS).reshape(SLOTS, 8, 8).astype(np.float32)
        return {"saliency": maps, "logits": self.draw.normal(size=(SLOTS, 10)).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        return self.observe(), {}

    def step(self, actions):
        self.clock.global_step += 1
        rewards = (actions / 9 + self.draw.normal(size=SLOTS)).astype(np.float32)
        over = np.full(SLOTS, self.clock.global_step % 4 == 0)
        infos = {"final_obs": self.observe()} if over.all() else {}
        return self.observe(), rewards, over, np.zeros(SLOTS, bool), infos


def collect(agent):
    """The agent's policy as it was when it collected a rollout, the rollout, by (step, slot), and its optimizer."""
    before, kept = copy.deepcopy(agent.policy), {}
    train = agent.ppo.train

    def watched():
        buffer = agent.rollout
        kept.update({name: getattr(buffer, name).copy() for name in ("observations", "actions", "rewards", "episode_starts")})
        kept.update(values=buffer.values.copy(), log_probs=buffer.log_probs.copy())
        kept.update(last=agent.policy.predict_values(torch.from_numpy(agent.ppo._last_obs)).detach().numpy()[:, 0])
        kept.update(over=agent.ppo._last_episode_starts.copy())
        train()

    agent.ppo.train = watched
    agent.learn(lambda: None, lambda figures: None)
    return before, kept


def advantages_by_loop(kept, gamma, gae_lambda):
    """Generalized advantage estimates, ``sum_k (gamma lambda)^k delta_{t+k}`` up to the end of the episode, term by term."""
    starts = np.concatenate([kept["episode_starts"], kept["over"][None]]).astype(bool)
    values = np.concatenate([kept["values"], kept["last"][None]])
    found = np.zeros((STEPS, SLOTS))
    for slot in range(SLOTS):
        for step in range(STEPS):
            weight = 1.0
            for later in range(step, STEPS):
                follows = 0.0 if starts[later + 1, slot] else gamma * values[later + 1, slot]
                found[step, slot] += weight * (kept["rewards"][later, slot] + follows - values[later, slot])
                if starts[later + 1, slot]:
                    break
                weight *= gamma * gae_lambda
    return found


def update_by_hand(policy, kept, config):
    """PPO's passes over the whole rollout as one minibatch: clipped ratio, squared error of the critic, entropy; Adam by itself."""
    advantage = torch.from_numpy(advantages_by_loop(kept, config.gamma, config.gae_lambda)).float().flatten()
    returns = advantage + torch.from_numpy(kept["values"]).flatten()
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    features = torch.from_numpy(kept["observations"]).flatten(0, 1)
    actions = torch.from_numpy(kept["actions"]).long().flatten()
    before = torch.from_numpy(kept["log_probs"]).flatten()
    optimizer = torch.optim.Adam(policy.parameters(), config.learning_rate, eps=1e-5)
    clipped = 0
    for _ in range(config.passes):
        latent = policy.mlp_extractor.policy_net(features)
        log_probabilities = policy.action_net(latent).log_softmax(1)
        ratio = (log_probabilities[torch.arange(len(actions)), actions] - before).exp()
        low, high = 1 - config.clip_range, 1 + config.clip_range
        gain = torch.minimum(ratio * scaled, ratio.clamp(low, high) * scaled).mean()
        clipped += int(((ratio < low) | (ratio > high)).sum())
        entropy = -(log_probabilities.exp() * log_probabilities).sum(1).mean()
        error = (policy.value_net(policy.mlp_extractor.value_net(features))[:, 0] - returns).square().mean()
        loss = -gain - config.entropy_coefficient * entropy + 0.5 * error
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimizer.step()
    return policy, clipped


SETTINGS = {
    "gamma": 0.9,
    "gae_lambda": 0.6,
    "clip_range": 0.1,
    "entropy_coefficient": 0.05,
    "learning_rate": 0.01,
    "passes": 5,
    "minibatch_size": SLOTS * STEPS,
    "policy_layers": (12, 8),
    "value_layers": (10,),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 0.0},
        {"gae_lambda": 1.0},
        {"gae_lambda": 0.0},
        {"clip_range": 0.02},
        {"entropy_coefficient": 0.0},
        {"passes": 2},
    ],
)
def test_ppos_update_is_the_one_written_out(changes):
    """All hyperparameters reach the update: another discount, trace, clip, entropy bonus, step or normalisation gives other weights."""
    config = PPOConfig(**(SETTINGS | changes))
    agent = PPOAgent(Noise(), config, seed=0)
    expected, clipped = update_by_hand(*(kept := collect(agent)), config)
    assert clipped > 0 or config.passes == 2
    assert kept[1]["episode_starts"][4].all(), "an episode ends within the rollout"
    weights = agent.policy.state_dict()
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=2e-5)


def test_the_settings_above_can_be_told_apart():
    """Each hyperparameter moves the weights by more than the test above forgives."""
    agent = PPOAgent(Noise(), PPOConfig(**SETTINGS), seed=0)
    before, kept = collect(agent)

    def weights(**changes):
        policy, _ = update_by_hand(copy.deepcopy(before), kept, PPOConfig(**(SETTINGS | changes)))
        return torch.cat([weight.detach().flatten() for weight in policy.parameters()])

    for name, value in {"gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2, "entropy_coefficient": 0.0, "passes": 4}.items():
        assert (weights(**{name: value}) - weights()).abs().max() > 1e-3, name


def test_a2cs_gradient_is_the_one_written_out():
    """One gradient of the whole rollout, ``advantage * log probability``, with normalised advantages and no trace cut (lambda 1)."""
    config = PPOConfig(**SETTINGS)
    agent = A2CAgent(Noise(), config, seed=0)
    taken = []
    step = agent.policy.optimizer.step
    agent.policy.optimizer.step = lambda *args: (
        taken.append([weight.grad.clone() for weight in agent.policy.parameters()]),
        step(),
    )
    policy, kept = collect(agent)
    advantage = torch.from_numpy(advantages_by_loop(kept, config.gamma, 1.0)).float().flatten()
    returns = advantage + torch.from_numpy(kept["values"]).flatten()
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    features = torch.from_numpy(kept["observations"]).flatten(0, 1)
    log_probabilities = policy.action_net(policy.mlp_extractor.policy_net(features)).log_softmax(1)
    actions = torch.from_numpy(kept["actions"]).long().flatten()
    gain = (scaled * log_probabilities[torch.arange(len(actions)), actions]).mean()
    entropy = -(log_probabilities.exp() * log_probabilities).sum(1).mean()
    error = (policy.value_net(policy.mlp_extractor.value_net(features))[:, 0] - returns).square().mean()
    (-gain - config.entropy_coefficient * entropy + 0.5 * error).backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    assert len(taken) == 1
    for ours, weight in zip(taken[0], policy.parameters(), strict=True):
        torch.testing.assert_close(ours, weight.grad, rtol=1e-3, atol=1e-5)


def test_a2c_learns_from_a_rollout_of_one_transition(tmp_path):
    """Whose advantage stays as it is; those of two are normalised, so that they are opposite."""
    env = RLMixEnv(toy_config(tmp_path, 8, num_train=24, num_classes=4, batch_size=8, epochs=1))
    agent, told, expected = A2CAgent(env, PPOConfig(rollout_steps=2), seed=0), [], []
    train, agent.on_update = agent.ppo.train, told.append

    def watched():
        advantage, log_prob = (getattr(agent.rollout, name)[:, 0].astype(float) for name in ("advantages", "log_probs"))
        if len(advantage) == 2:
            advantage = np.array([1, -1]) * np.sign(advantage[0] - advantage[1]) / 2**0.5
        expected.append(-(advantage * log_prob).mean())
        train()

    agent.ppo.train = watched
    agent.learn(lambda: None, told.append)
    assert agent.rollouts == [2, 1]
    assert [figures["policy_loss"] for figures in told] == pytest.approx(expected, rel=1e-3)
    assert all(weight.isfinite().all() for weight in agent.policy.parameters())


@pytest.mark.parametrize("entropy_coefficient", [0.0, 0.5])
def test_the_bandits_gradient_is_that_of_reinforce_with_an_entropy_bonus(tmp_path, monkeypatch, entropy_coefficient):
    """Of ``-(mean of z-score of the reward * log probability) - coefficient * entropy``, a loop over images; then a step of Adam."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent(
        "bandit", RLMixVectorEnv(config=config), PPOConfig(policy_layers=(5,), entropy_coefficient=entropy_coefficient), 0
    )
    torch.nn.init.normal_(agent.policy[-1].weight, generator=torch.Generator().manual_seed(0))  # it starts uniform
    policy, decision = copy.deepcopy(agent.policy), agent.process.observe()
    rewards, chosen = torch.tensor([0.1, 0.7, 0.4, 0.4]), []
    monkeypatch.setattr(agent.process, "act", lambda top_k: chosen.append(top_k) or rewards)
    entropy_found = agent.learn_step(decision)

    values = np.linspace(0, 0.99, 10)
    features = torch.from_numpy(policy_features(to_host(decision, "paper")[0]))
    scores = (rewards.double().numpy() - 0.4) / np.sqrt(np.mean((rewards.double().numpy() - 0.4) ** 2))
    loss, entropies = torch.zeros(()), []
    for image in range(4):
        probabilities = policy(features[image]).exp() / policy(features[image]).exp().sum()
        index = np.flatnonzero(np.isclose(values, float(chosen[0].top_k[image]), atol=1e-6)).item()
        entropy = -(probabilities * probabilities.log()).sum()
        entropies.append(entropy.item())
        loss = loss - float(scores[image]) * probabilities[index].log() / 4 - entropy_coefficient * entropy / 4
    loss.backward()
    assert float(entropy_found) == pytest.approx(np.mean(entropies), rel=1e-5)
    for ours, theirs in zip(agent.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    torch.optim.Adam(policy.parameters(), 1e-3).step()
    for ours, theirs in zip(agent.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_bandits_network_has_the_layers_it_was_given_and_starts_uniform(tmp_path):
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent("bandit", RLMixVectorEnv(config=config), PPOConfig(policy_layers=(5, 7, 6)), 0)
    sizes = [tuple(layer.weight.shape) for layer in agent.policy if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(5, 74), (7, 5), (6, 7), (10, 6)]
    assert [type(layer) for layer in agent.policy] == [*[torch.nn.Linear, torch.nn.Tanh] * 3, torch.nn.Linear]
    features = torch.randn(3, 74, generator=torch.Generator().manual_seed(0))
    assert torch.equal(agent.policy(features).softmax(1), torch.full((3, 10), 0.1))
    assert agent.policy[:-1](features).std() > 0


def test_an_entropy_bonus_keeps_the_bandits_choices_even(tmp_path, monkeypatch):
    """With no reward to follow, a bonus brings an uneven policy back towards uniform."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent("bandit", RLMixVectorEnv(config=config), PPOConfig(learning_rate=0.05, entropy_coefficient=1.0), 0)
    agent.policy[-1].bias.data[3] = 3.0
    decision = agent.process.observe()
    monkeypatch.setattr(agent.process, "act", lambda top_k: torch.zeros(4))
    entropies = [float(agent.learn_step(decision)) for _ in range(20)]
    assert entropies[-1] > entropies[0] + 0.5


def test_dqn_has_the_settings_it_was_given(tmp_path):
    """Gamma is the configured one, epsilon falls from 1 to 0.05 over half the training, and updates follow each rollout."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent(
        "dqn", RLMixVectorEnv(config=config), PPOConfig(minibatch_size=6, passes=4, policy_layers=(7,), gamma=0.3), 0
    )
    rates = []
    agent.learn(lambda: rates.append(agent.ppo.exploration_rate), lambda figures: rates.append(agent.ppo.exploration_rate))
    assert agent.ppo.gamma == 0.3
    assert agent.ppo._n_updates == 2 * (4 * 3 * 4 // 6)  # of each of two epochs: passes over 3 steps of 4 slots, 6 at a time
    assert rates == pytest.approx([1 - 0.95 * min(1, step / 3) for step in range(1, 7)], abs=1e-6)
    sizes = [tuple(weight.shape) for weight in agent.ppo.q_net.q_net.parameters()]
    assert sizes == [(7, 74), (7,), (10, 7), (10,)]


def test_dqns_loss_is_that_of_the_values_it_had(tmp_path):
    """Smooth L1 of what a value was to what was earned, of the transitions it learns from; with gamma 0 nothing follows."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent("dqn", RLMixVectorEnv(config=config), PPOConfig(minibatch_size=12, passes=1, gamma=0.0), 0)
    memory, expected, told = agent.ppo.replay_buffer, [], []
    sample = memory.sample

    def watched(*args, **keywords):
        drawn = sample(*args, **keywords)
        with torch.no_grad():
            values = agent.ppo.q_net(drawn.observations)[torch.arange(12), drawn.actions[:, 0]]
        error = (values - drawn.rewards[:, 0]).abs().double().numpy()
        expected.append(np.where(error < 1, error**2 / 2, error - 0.5).mean())
        return drawn

    memory.sample = watched
    agent.learn(lambda: None, told.append)
    assert [figures["value_loss"] for figures in told] == pytest.approx(expected, rel=1e-5)
    assert len(told) == 2


# -- stopped and continued


class StoppedError(Exception):
    """After a step."""


QUICK = PPOConfig(
    policy_layers=(6,), value_layers=(6,), passes=2, minibatch_size=8, rollout_steps=3, gamma=0.5, entropy_coefficient=0.1
)


@pytest.mark.parametrize("name", [*(name for name in ALGORITHMS if name != "epochs"), "joint"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_an_agent_goes_on_from_its_state_as_if_it_had_not_stopped(tmp_path, monkeypatch, name, stop):
    """In the middle of a rollout, after its update, and in the second epoch; rollouts are of three and of two steps."""
    monkeypatch.setattr("rlmix.agents.sb3.dqn.MEMORY", 24)  # of DQN: 6 steps of 4 slots, so it goes round
    monkeypatch.setattr("rlmix.agents.sb3.dqn.TARGET_INTERVAL", 5)
    config = toy_config(tmp_path, 8, num_train=20, num_classes=3, batch_size=4)

    def make():
        env = RLMixEnv(config) if name == "joint" else RLMixVectorEnv(config=config)
        return build_agent("ppo" if name == "joint" else name, env, QUICK, seed=0)

    def go_on(agent, on_step=lambda: None):
        figures = []
        agent.learn(on_step, figures.append)
        return figures, agent.policy.state_dict()

    whole = make()
    figures, weights = go_on(whole)
    first, states = make(), []

    def stopping():
        if len(states) == 0 and first.process.require_training().global_step >= stop:
            states.append(copy.deepcopy((first.process.state_dict(), first.state_dict())))
            raise StoppedError

    with pytest.raises(StoppedError):
        go_on(first, stopping)
    torch.rand(5)
    np.random.rand(5)  # noqa: NPY002
    second = make()
    second.process.load_state_dict(states[0][0])
    second.load_state_dict(states[0][1])
    rest, again = go_on(second)
    assert rest == figures[-len(rest) :]
    assert weights.keys() == again.keys()
    for part in weights:
        assert torch.equal(weights[part], again[part]), part
    if name != "bandit":
        assert second.ppo.num_timesteps == whole.ppo.num_timesteps == 40 // (4 if name == "joint" else 1)  # 10 steps of 4 slots


def test_what_an_agent_is_told_to_do_after_a_step_is_not_saved_with_it(tmp_path):
    """Stable-Baselines3's own file holds what it needs to predict."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4)
    agent = build_agent("dqn", RLMixVectorEnv(config=config), QUICK, 0)
    agent.learn(lambda: None, lambda figures: None)
    assert "on_step_done" in agent.ppo._excluded_save_params()
    assert {"policy", "env", "replay_buffer"} <= set(agent.ppo._excluded_save_params())


@pytest.mark.parametrize("state", [{}, {"algorithm": "ppo"}])
def test_a_state_of_the_same_algorithm_or_of_before_it_was_recorded_is_taken(state):
    check_algorithm(state, "ppo")


def test_a_state_of_another_algorithm_is_refused():
    with pytest.raises(ValueError, match=r"the agent's state must be one of ppo, got one of dqn$"):
        check_algorithm({"algorithm": "dqn"}, "ppo")


@pytest.mark.parametrize(("entropy", "expected"), [(1.0, 0.05), (0.5, 0.05 * np.exp(0.5)), (2.0, 0.05 * np.exp(-1))])
def test_the_entropys_weight_rises_where_there_is_too_little(entropy, expected):
    assert adapted(0.05, entropy, 1.0) == pytest.approx(expected)
    assert adapted(9.0, 0.0, 3.0) == COEFFICIENTS[1]
    assert adapted(2e-4, 3.0, 0.0) == COEFFICIENTS[0]


@pytest.mark.parametrize("target", [0.3, 0.8])
def test_a_policy_keeps_the_entropy_that_is_asked_for(target):
    """One value alone pays, and is chosen as often as the entropy lets it; a state taken midway goes on alike."""
    config = PPOConfig(rollout_steps=4, minibatch_size=64, learning_rate=0.01, target_entropy=target)
    learner, draw, entropies = OnlinePPO(config, "paper", "top_k", action_table("top_k", 4), 0), torch.Generator(), []
    for step in range(200):
        seen = rlmix.Saliency(torch.rand(32, 16, 16, generator=draw), torch.randn(32, 5, generator=draw))
        top_k = learner(Decision(None, seen, None, 0.0, torch.tensor(True))).top_k
        learner.pay((top_k > 0.9).float())
        if step % 4 == 0 and step >= 100:
            entropies.append(-float(learner.ppo.logger.name_to_value["train/entropy_loss"]))
        if step == 150:
            again = OnlinePPO(config, "paper", "top_k", action_table("top_k", 4), 0)
            again.load_state_dict(learner.state_dict())
            assert again.ppo.ent_coef == learner.ppo.ent_coef
    share = float((top_k > 0.9).float().mean())
    assert np.mean(entropies) == pytest.approx(target * np.log(4), abs=0.2)
    assert share > 0.3
