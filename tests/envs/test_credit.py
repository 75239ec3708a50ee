"""Rewards and who earns them, against independent gradients and a loop over images."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forms import actions_of, vector

from rlmix.envs.credit import CREDITS, share_credit

BATCH, CLASSES = 16, 10


def pooled_by_hand(map):
    """8x8 block means of one map, summing to 1, in float64."""
    side = map.shape[0] // 8
    blocks = np.array(
        [[map[y : y + side, x : x + side].mean() for x in range(0, 8 * side, side)] for y in range(0, 8 * side, side)]
    )
    return blocks / blocks.sum()


def gradient_map_by_hand(model, images, targets):
    inputs = images.clone().requires_grad_()
    loss = -(targets * model(inputs).log_softmax(1)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, inputs)
    return np.sqrt((gradient.double().numpy() ** 2).mean(1))


@pytest.mark.parametrize("reward", ["cosine", "cosine_full", "cosine_batch"])
def test_rewards_equal_a_loop_over_independent_gradients(config, reward):
    env = vector(config.changed(reward=reward))
    env.reset(seed=0)
    env.step(actions_of(config, 1)[0])
    decision = env.process.observe()
    model = copy.deepcopy(env.process.training.model)  # before the step
    clean = gradient_map_by_hand(copy.deepcopy(model), decision.batch.images, F.one_hot(decision.batch.labels, CLASSES))
    np.testing.assert_allclose(decision.saliency.map.numpy(), clean, rtol=1e-3, atol=1e-6)
    _, rewards, *_ = env.step(actions_of(config, 2)[1])
    mixed = env.process.outcome.mixed
    after = gradient_map_by_hand(model, mixed.images, mixed.targets)
    if reward == "cosine_full":
        pairs = [(one.ravel(), other.ravel()) for one, other in zip(clean, after, strict=True)]
    else:
        pairs = [(pooled_by_hand(one).ravel(), pooled_by_hand(other).ravel()) for one, other in zip(clean, after, strict=True)]
    if reward == "cosine_batch":
        pairs = [tuple(np.concatenate(side) for side in zip(*pairs, strict=True))] * BATCH
    expected = [one @ other / np.sqrt((one @ one) * (other @ other)) for one, other in pairs]
    np.testing.assert_allclose(rewards, expected, rtol=1e-4)


def credit_by_loop(own, partner, credit):
    if credit == "own":
        return own
    if credit == "batch":
        return np.full(len(own), own.mean())
    shared = np.empty(len(own))
    for image in range(len(own)):
        (mixture,) = [index for index in range(len(own)) if partner[index] == image]  # where this image is the partner
        shared[image] = (own[image] + own[mixture]) / 2
    return shared


@pytest.mark.parametrize("credit", ["own", "pair", "batch"])
def test_credit_is_shared_as_a_loop_over_images_says(config, credit):
    own, shared = vector(config), vector(config.changed(credit=credit))
    own.reset(seed=0)
    shared.reset(seed=0)
    for action in actions_of(config, 2):
        partner = own.process.observe().pairing.partner.tolist()
        rewards, credited = own.step(action)[1], shared.step(action)[1]
        np.testing.assert_allclose(credited, credit_by_loop(rewards.astype(float), partner, credit), rtol=1e-6)
    assert own.process.epoch_metrics() == shared.process.epoch_metrics()  # what is logged is the reward before it is shared


def test_share_credit_of_known_numbers():
    rewards = torch.tensor([0.0, 1.0, 2.0, 5.0])
    partner_of = torch.tensor([4.0, 3.0, 0.0, 1.0])
    assert share_credit(rewards, partner_of, "own").tolist() == [0, 1, 2, 5]
    assert share_credit(rewards, partner_of, "pair").tolist() == [2, 2, 1, 3]
    assert share_credit(rewards, partner_of, "batch").tolist() == [2] * 4


@pytest.mark.parametrize(
    ("credit", "found"),
    [
        (lambda rewards, partner_of: rewards.mean(), r"\(\)"),
        (lambda rewards, partner_of: None, "NoneType"),
        (lambda rewards, partner_of: rewards[:, None], r"\(3, 1\)"),
    ],
)
def test_a_credit_that_gives_another_form_is_named(credit, found, monkeypatch):
    monkeypatch.setattr(CREDITS, "_entries", {**CREDITS._entries})
    CREDITS.add("mine", credit, doc="Mine.")
    with pytest.raises(ValueError, match=rf"^credit mine must give one number an image, \(3,\), got {found}$"):
        share_credit(torch.ones(3), torch.ones(3), "mine")
    CREDITS._entries.pop("mine")
    CREDITS.add("mine", lambda rewards, partner_of: rewards.double() + partner_of, doc="Mine.")
    paid = share_credit(torch.ones(3), torch.tensor([0.0, 1, 2]), "mine")
    assert (paid.dtype, paid.tolist()) == (torch.float32, [1, 2, 3])


def test_epoch_metrics_cover_the_epochs_images(small):
    env = vector(small)
    env.reset(seed=0)
    taken = []
    env.process.on_epoch_end = lambda training: taken.append((env.process.epoch_metrics(), env.process.epoch_top_k()))
    rewards, actions = [], actions_of(small, 6)
    for action in actions:
        rewards.append(env.step(action)[1])
    assert len(taken) == 2
    for epoch, (figures, top_k) in enumerate(taken):
        mine, chosen = np.array(rewards[3 * epoch : 3 * epoch + 3]), actions[3 * epoch : 3 * epoch + 3] * 0.11
        assert figures["reward_mean"] == pytest.approx(mine.mean(), rel=1e-5)
        assert figures["reward_std"] == pytest.approx(mine.std(), rel=1e-4)
        assert figures["top_k_mean"] == pytest.approx(chosen.mean(), rel=1e-5)
        np.testing.assert_allclose(top_k, chosen.ravel(), rtol=1e-5)
