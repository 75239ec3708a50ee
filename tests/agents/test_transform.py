"""RL-Mix in a loop of one's own: frozen, and learning."""

import doctest
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rlmix
from rlmix.agents import transform
from rlmix.agents.policies import ConstantPolicy
from rlmix.agents.sb3.online import OnlinePPO
from rlmix.envs.map_rewards import cosine_label
from rlmix.envs.process import Decision
from rlmix.mixing.actions import action_table
from rlmix.mixing.core import RULES
from rlmix.scripts import train as command


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    )


def loop(mixer, steps, model=None, batch=12, first=0):
    """Mix, train, pay; gives every mixture and what was paid."""
    model = model or network()
    optimizer, found = torch.optim.SGD(model.parameters(), 0.05), []
    for step in range(first, first + steps):
        draw = torch.Generator().manual_seed(step)
        images, labels = torch.rand(batch, 3, 16, 16, generator=draw), torch.randint(5, (batch,), generator=draw)
        mixed = mixer(model, images, labels, generator=draw, progress=step / 40)
        loss = F.cross_entropy(model(mixed.images), mixed.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((mixed.images.detach().clone(), mixed.targets, mixer.feedback()))
    return found


QUICK = rlmix.PPOConfig(rollout_steps=3, passes=2, minibatch_size=12)


def test_the_example_runs():
    assert doctest.testmod(transform).failed == 0


def test_a_constant_policy_mixes_as_the_equations_say():
    model, images, labels = network(), torch.rand(6, 3, 16, 16), torch.arange(6) % 5
    mixer = rlmix.RLMix(ConstantPolicy(0.0), num_patches=(4,))
    mixed = mixer(model, images, labels, generator=torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(3)  # of top-k 0 all is salient of everyone: Input Mix-up
    partner = torch.randperm(6, generator=draw)
    lam = float(np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=draw))).beta(1, 1))
    torch.testing.assert_close(mixed.images, lam * images + (1 - lam) * images[partner])
    one_hot = F.one_hot(labels, 5).float()
    torch.testing.assert_close(mixed.targets, lam * one_hot + (1 - lam) * one_hot[partner])


class Chooses:
    """One row of a table for everyone; keeps what it saw."""

    def __init__(self, action, row):
        self.actions, self.row, self.seen = action_table(action, 3), row, []

    def __call__(self, decision):
        self.seen.append(decision)
        return self.actions.everyone(self.row, len(decision.batch.images))


def draws(seed, batch):
    """What a mixture draws: partners, lam, patches a side, and the centres of boxes."""
    draw = torch.Generator().manual_seed(seed)
    partner = torch.randperm(batch, generator=draw)
    lam = float(np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=draw))).beta(1, 1))
    torch.randint(2, (), generator=draw)
    return partner, lam, torch.rand(batch, 2, generator=draw)


def test_a_policy_of_ones_own_may_choose_boxes_and_sees_the_batch():
    """Boxes of half the area, whole patches of 8 a side, around the centres that were drawn."""
    images, labels, policy = torch.rand(6, 3, 16, 16), torch.arange(6) % 5, Chooses("top_k_cut", 5)
    mixer = rlmix.RLMix(policy)
    mixed = mixer(network(), images, labels, generator=torch.Generator().manual_seed(3))
    partner, _, center = draws(3, 6)
    (decision,) = policy.seen
    assert torch.equal(decision.batch.images, images)
    assert torch.equal(decision.batch.labels, labels)
    assert decision.progress == 0
    assert torch.equal(decision.center, center)
    length = round(float(policy.actions.box[5]) * 8)
    for image in range(6):
        first = [round(float(part) * 8 - length / 2) for part in center[image]]
        inside = torch.zeros(16, 16, dtype=torch.bool)
        for row in range(16):
            for column in range(16):
                inside[row, column] = all(a <= place // 2 < a + length for a, place in zip(first, (row, column), strict=True))
        assert torch.equal(mixed.images[image], torch.where(inside, images[partner[image]], images[image]))
    mixer(network(), images, labels, progress=1.0)
    assert policy.seen[-1].progress == 1


def test_a_policy_of_ones_own_may_choose_partners():
    """All ask for one whose saliency lies apart: least overlap of all permutations without a fixed point."""
    images, labels, policy = torch.rand(5, 3, 16, 16), torch.arange(5), Chooses("top_k_partner", 3)
    mixed = rlmix.RLMix(policy)(network(), images, labels, generator=torch.Generator().manual_seed(3))
    maps = rlmix.patch_saliency(policy.seen[0].saliency.map, 8).flatten(1)
    overlap = (maps[:, None] * maps[None]).sum(2)
    fit = {
        order: sum(float(overlap[image, other]) for image, other in enumerate(order))
        for order in itertools.permutations(range(5))
        if all(image != other for image, other in enumerate(order))
    }
    least, lam = min(fit.values()), draws(3, 5)[1]
    wanted = [order for order, found in fit.items() if found < least + 1e-6]  # a permutation and its inverse overlap alike
    assert any(torch.allclose(mixed.images, lam * images + (1 - lam) * images[torch.tensor(order)]) for order in wanted)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_the_cores(rule):
    images, labels, policy = torch.rand(6, 3, 16, 16), torch.arange(6) % 5, Chooses("top_k", 1)
    mixed = rlmix.RLMix(policy, rule=rule, num_patches=(4,))(
        network(), images, labels, generator=torch.Generator().manual_seed(3)
    )
    partner, lam, _ = draws(3, 6)
    mask = rlmix.salient_mask(rlmix.patch_saliency(policy.seen[0].saliency.map, 4), policy.actions.top_k[1].expand(6))
    expected = rlmix.mix(images, labels, mask, partner, lam, rule, num_classes=5)
    torch.testing.assert_close(mixed.images, expected.images)
    torch.testing.assert_close(mixed.targets, expected.targets)


def test_what_is_learned_may_be_boxes_and_paid_by_both_images():
    """Every mixture is paid by both its images' maps in the label's proportion, as the reward says."""
    mixer, model = rlmix.RLMix(learn=True, agent=QUICK, action="top_k_cut", reward="cosine_label", credit="own"), network()
    assert mixer.boxes
    assert not rlmix.RLMix(learn=True).boxes
    assert not rlmix.RLMix(ConstantPolicy(0.0)).boxes
    with pytest.raises(ValueError, match=r"num_patches must be of 1, 2, 4, 8 where a box may be chosen, got \(3,\)"):
        rlmix.RLMix(learn=True, action="top_k_cut", num_patches=(3,))
    images, labels = torch.rand(12, 3, 16, 16), torch.arange(12) % 5
    clean = rlmix.saliency(model, images, labels).map
    mixed = mixer(model, images, labels, generator=torch.Generator().manual_seed(3))
    F.cross_entropy(model(mixed.images), mixed.targets).backward()
    partner, (_, _, _, share) = draws(3, 12)[0], mixer._waiting
    torch.testing.assert_close(share, (mixed.targets * F.one_hot(labels, 5)).sum(1).where(labels != labels[partner], share))
    after = mixed.images.grad.square().mean(1).sqrt()
    torch.testing.assert_close(mixer.feedback(), cosine_label(clean, after, partner, share), rtol=1e-4, atol=1e-5)


def test_a_runs_policy_decides_with_the_runs_mixing(tmp_path):
    data = ["--data", "digits", "--train-images", "64", "--test-images", "40"]
    tiny = [*data, "--batch-size", "16", "--epochs", "1", "--device", "cpu"]
    command.main([*tiny, "--method", "rlmix", "--num-patches", "2", "--alpha", "0.4", "--out", str(tmp_path / "run")])
    mixer, again = (rlmix.RLMix(tmp_path / "run", seed=4) for _ in range(2))
    assert (mixer.num_patches, mixer.alpha, mixer.rule) == ((2,), 0.4, "mix_top")
    model, images, labels = network(), torch.rand(6, 3, 16, 16), torch.arange(6) % 5
    first, second = (each(model, images, labels, generator=torch.Generator().manual_seed(1)) for each in (mixer, again))
    assert torch.equal(first.images, second.images)
    assert first.targets.sum(1).tolist() == pytest.approx([1] * 6)


def test_what_is_learned_twice_is_the_same_and_moves_no_global_state():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    runs = []
    for _ in range(2):
        mixer, model = rlmix.RLMix(learn=True, agent=QUICK, seed=1), network()
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        runs.append(loop(mixer, 8, model))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        assert mixer.learner.num_updates == 2
    for first, second in zip(*runs, strict=True):
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_it_goes_on_from_its_state_to_the_bit(stop):
    whole, model = rlmix.RLMix(learn=True, agent=QUICK, seed=1), network()
    loop(whole, stop, model)
    state, weights = whole.state_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.load(io.BytesIO(_saved(state)), weights_only=True)
    expected = loop(whole, 6, model, first=stop)
    other, resumed = network(), rlmix.RLMix(learn=True, agent=QUICK, seed=9)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    for first, second in zip(expected, loop(resumed, 6, other, first=stop), strict=True):
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def _saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_a_scaled_gradient_and_a_batch_of_another_size():
    mixer, model = rlmix.RLMix(learn=True, agent=QUICK), network()
    images, labels = torch.rand(12, 3, 16, 16), torch.arange(12) % 5
    mixed = mixer(model, images, labels)
    loss = F.cross_entropy(model(mixed.images), mixed.targets)
    (gradient,) = torch.autograd.grad(loss, mixed.images)
    waiting = mixer._waiting
    paid = mixer.feedback(gradient)
    mixer._waiting = waiting
    torch.testing.assert_close(mixer.feedback(1024 * gradient), paid)
    small = mixer(model, images[:5], labels[:5])
    F.cross_entropy(model(small.images), small.targets).backward()
    filled = mixer.learner.ppo.rollout_buffer.pos
    assert mixer.feedback().shape == (5,)
    assert mixer.learner.ppo.rollout_buffer.pos == filled  # other slots: mixed, and not learned from


def test_what_is_not_finite_is_paid_nothing():
    mixer, model = rlmix.RLMix(learn=True, agent=QUICK, credit="own"), network()
    images, labels = torch.rand(12, 3, 16, 16), torch.arange(12) % 5
    mixed = mixer(model, images, labels)
    F.cross_entropy(model(mixed.images), mixed.targets).backward()
    waiting, gradient = mixer._waiting, mixed.images.grad.clone()
    paid = mixer.feedback()
    assert (paid > 0).all()
    gradient[4] = float("nan")
    mixer._waiting = waiting
    expected = torch.where(torch.arange(12) == 4, 0.0, paid)
    found = mixer.feedback(gradient)
    torch.testing.assert_close(found, expected)
    mixer._waiting = (waiting[0], replace(waiting[1], sound=torch.tensor(False)), *waiting[2:])
    assert not mixer.feedback(mixed.images.grad).any()


def test_it_learns_what_pays(monkeypatch):
    """Where the largest top-k value alone pays, it is chosen in the end."""
    learner, draw = (
        OnlinePPO(
            rlmix.PPOConfig(rollout_steps=4, minibatch_size=64, learning_rate=0.01), "paper", "top_k", action_table("top_k", 4), 0
        ),
        torch.Generator(),
    )
    chosen = torch.zeros(32)
    for _ in range(100):
        maps = torch.rand(32, 16, 16, generator=draw)
        seen = rlmix.Saliency(maps, torch.randn(32, 5, generator=draw))
        decision = Decision(None, seen, None, 0.0, torch.tensor(True))
        chosen = learner(decision).top_k
        learner.pay((chosen > 0.9).float())
    assert (chosen > 0.9).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "policy must be given, or learn be True"),
        ({"policy": ConstantPolicy(0.0), "learn": True}, "policy must be given, or learn be True"),
        ({"learn": True, "reward": "cosin"}, "did you mean 'cosine'"),
        ({"learn": True, "reward": "last_layer"}, "reward must be one of maps in a loop of one's own, got last_layer"),
        ({"learn": True, "reward": "none"}, "reward must be one of maps in a loop of one's own, got none"),
        ({"learn": True, "credit": "pairs"}, "credit must be one of own, pair, batch, got 'pairs'"),
        ({"learn": True, "observation": "papers"}, "observation must be one of paper, pair, got 'papers'"),
        ({"learn": True, "num_patches": ()}, "num_patches must be one or more numbers of at least 1"),
        ({"learn": True, "rule": ""}, "rule must be one of"),
        ({"learn": True, "num_top_k": 0}, "num_top_k must be at least 1, got 0"),
        (
            {"policy": ConstantPolicy(0.0), "credit": "own"},
            "credit must be left out with a policy that does not learn here, got own",
        ),
        ({"policy": ConstantPolicy(0.0), "num_top_k": 5}, "num_top_k must be left out with a policy that does not learn here"),
        ({"learn": True, "alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"learn": True, "num_patches": (0,)}, "num_patches must be one or more numbers of at least 1"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        rlmix.RLMix(**options)


def test_progress_and_small_images_are_named():
    mixer, labels = rlmix.RLMix(ConstantPolicy(0.0)), torch.arange(4)
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\], got 1.5"):
        mixer(network(), torch.rand(4, 3, 16, 16), labels, progress=1.5)
    with pytest.raises(ValueError, match="num_patches must be"):
        mixer(network(), torch.rand(4, 3, 7, 7), labels)


def test_a_policy_that_is_not_finite_ends_in_one_line():
    mixer, model = rlmix.RLMix(learn=True, agent=QUICK), network()
    loop(mixer, 1, model)
    with torch.no_grad():
        next(mixer.learner.ppo.policy.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"^the agent's scores are not finite after update 0, at learning_rate 0.001$"):
        loop(mixer, 1, model)


def test_feedback_comes_after_a_mixture_and_its_gradient():
    mixer, model = rlmix.RLMix(learn=True), network()
    with pytest.raises(RuntimeError, match=r"feedback\(\) must follow a call"):
        mixer.feedback()
    mixer(model, torch.rand(4, 3, 16, 16), torch.arange(4))
    with pytest.raises(RuntimeError, match=r"must follow loss.backward\(\)"):
        mixer.feedback()
    with pytest.raises(RuntimeError, match=r"feedback\(\) must follow a call"):
        rlmix.RLMix(ConstantPolicy(0.0)).feedback()
    mixer(model, torch.rand(4, 3, 16, 16), torch.arange(4))
    mixer.load_state_dict(mixer.state_dict())
    with pytest.raises(RuntimeError, match=r"feedback\(\) must follow a call"):  # that batch was before
        mixer.feedback()


def test_what_was_learned_here_is_a_policy_elsewhere(tmp_path):
    mixer, model = rlmix.RLMix(learn=True, agent=QUICK, seed=1), network()
    with pytest.raises(RuntimeError, match=r"save\(\) must follow a call of RLMix\(learn=True\)"):
        mixer.save(tmp_path / "policy.zip")
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 5
    for _ in range(5):
        mixed = mixer(model, images, labels)
        F.cross_entropy(model(mixed.images), mixed.targets).backward()
        mixer.feedback()
    with pytest.raises(ValueError, match=r"path must end in \.zip, got policy\.pt"):
        mixer.save("policy.pt")
    mixer.save(tmp_path / "policy.zip")
    frozen = rlmix.RLMix(tmp_path / "policy.zip")
    own = mixer.state_dict()["policy"]
    expected = [own[name] for name in own if "policy_net" in name or "action_net" in name]
    assert all(torch.equal(a, b) for a, b in zip(frozen.policy.actor.state_dict().values(), expected, strict=True))
    assert frozen.policy.observation == "pair"
    assert frozen(model, images, labels).images.shape == images.shape
