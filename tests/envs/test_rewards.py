"""Rewards by name: literal numbers, and gradients by autograd as the oracle of the closed form."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import toy_config

from rlmix.data.augmentation import normalize
from rlmix.envs.classifier_rewards import held_out_batch, last_layer_alignment, validation_batch, with_bias
from rlmix.envs.difficulty_rewards import difficulty
from rlmix.envs.env import RLMixEnv
from rlmix.envs.map_rewards import (
    cosine,
    cosine_batch,
    cosine_even,
    cosine_full,
    cosine_label,
    cosine_published,
    cosine_shares,
    rarity,
    standardize,
)
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import REWARDS, UNMEASURED, build_reward
from rlmix.envs.vector_env import RLMixVectorEnv


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of two steps of eight 8x8 images."""
    return toy_config(tmp_path_factory.mktemp("rewards"), 8, num_train=16, num_classes=4, batch_size=8)


def test_every_reward_has_a_name_in_the_configuration():
    assert {"cosine", "cosine_published", "last_layer", "parameters", "held_out_loss", UNMEASURED} <= set(REWARDS)
    with pytest.raises(ValueError, match=r"did you mean 'last_layer'"):
        build_reward("lastlayer")


def test_standardized_rewards_of_known_numbers():
    torch.testing.assert_close(standardize(torch.tensor([1.0, 3.0, 1.0, 3.0])), torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert standardize(torch.full((5,), 0.7)).tolist() == [0] * 5


def test_label_aware_rewards_of_maps_that_do_not_overlap():
    """Two images that are salient in different corners; the mixed map is what each reward wants, or half of it."""
    first, second = torch.zeros(8, 8), torch.zeros(8, 8)
    first[0, 0], second[7, 7] = 1, 1
    clean, partner, share = torch.stack([first, second]), torch.tensor([1, 0]), torch.tensor([0.8, 1.0])
    wanted = torch.stack([0.8 * first + 0.2 * second, second])
    torch.testing.assert_close(cosine_label(clean, wanted, partner, share), torch.ones(2))
    torch.testing.assert_close(cosine_label(clean, clean, partner, share), torch.tensor([0.8 / math.hypot(0.8, 0.2), 1.0]))
    torch.testing.assert_close(cosine_shares(clean, clean, partner, share), share)  # own map alone: its share of the label
    torch.testing.assert_close(cosine_shares(clean, clean[partner], partner, share), 1 - share)


def test_the_published_reward_is_one_cosine_of_maps_that_are_not_normalised():
    """As in the paper's code: pooled maps, flattened with the batch. An image of large gradients outweighs the others."""
    draw = np.random.default_rng(0)
    clean, mixed = (draw.random((3, 16, 16)).astype(np.float32) for _ in range(2))
    clean[0, :8] *= 100
    mixed[0, :, :8] *= 80
    pooled = [map.astype(np.float64).reshape(3, 8, 2, 8, 2).mean((2, 4)) for map in (clean, mixed)]
    flat = [map.ravel() for map in pooled]
    published = flat[0] @ flat[1] / np.sqrt((flat[0] @ flat[0]) * (flat[1] @ flat[1]))
    sums = [(map / map.sum((1, 2), keepdims=True)).ravel() for map in pooled]
    normalised = sums[0] @ sums[1] / np.sqrt((sums[0] @ sums[0]) * (sums[1] @ sums[1]))
    assert abs(published - normalised) > 1e-3
    maps = torch.from_numpy(clean), torch.from_numpy(mixed)
    np.testing.assert_allclose(cosine_published(*maps).numpy(), [published] * 3, rtol=1e-5)
    np.testing.assert_allclose(cosine_batch(*maps).numpy(), [normalised] * 3, rtol=1e-5)
    torch.testing.assert_close(cosine_published(maps[0], 7 * maps[1]), cosine_published(*maps))


@pytest.mark.parametrize("scale", [1e-10, 1e-6, 1e-3, 1e3])
def test_map_rewards_do_not_depend_on_the_scale_of_a_gradient(scale):
    """Gradients of a well-trained classifier are tiny. Cosines by NumPy, in float64."""
    draw = torch.Generator().manual_seed(0)
    clean, mixed = torch.rand(3, 8, 8, generator=draw), torch.rand(3, 8, 8, generator=draw)
    pairs = zip(clean.double().flatten(1).numpy(), mixed.double().flatten(1).numpy(), strict=True)
    expected = torch.tensor([one @ other / np.sqrt((one @ one) * (other @ other)) for one, other in pairs]).float()
    for reward in (cosine, cosine_full):
        torch.testing.assert_close(reward(clean * scale, mixed * scale), expected)
    torch.testing.assert_close(cosine_published(clean * scale, mixed * scale), cosine_published(clean, mixed))


def test_alignment_does_not_depend_on_the_scale_of_a_gradient():
    """It is 1 for an image's own gradient, however sure the classifier is, and 0 where it has none."""
    residual, features = torch.tensor([[0.1, -0.3, 0.2]]), torch.tensor([[1.0, 2.0, 0.5, 1.0]])
    for scale in (1e-3, 1.0, 1e2):
        found = last_layer_alignment(features, residual * scale, scale * residual.T @ features)
        torch.testing.assert_close(found, torch.ones(1))
    assert last_layer_alignment(features, 0 * residual, residual.T @ features).tolist() == [0]


def test_rarity_of_two_choices():
    torch.testing.assert_close(rarity(torch.tensor([0, 1, 1, 1]), 2), torch.tensor([2.0, *[math.log2(4 / 3)] * 3]))


def test_rarity_has_the_entropy_of_the_choices_as_its_mean():
    choices = torch.tensor([0, 0, 1, 3])
    shares = np.array([0.5, 0.25, 0.25])
    found = rarity(choices, 4)
    assert float(found.mean()) == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 1.0, 1.0]))
    assert rarity(torch.zeros(3, dtype=torch.int64), 4).tolist() == [0, 0, 0]
    torch.testing.assert_close(rarity(torch.arange(4), 4), torch.ones(4))


def test_diversity_adds_to_what_is_earned_and_not_to_what_is_logged(config):
    top_k = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 0.99])
    found = {}
    for weight in (0.0, 0.3):
        process = MixingProcess(config.changed(diversity=weight))
        process.reset()
        found[weight] = process.act(top_k), process.epoch_metrics()["reward_mean"]
    choices = torch.tensor([0] * 7 + [9])
    torch.testing.assert_close(found[0.3][0], found[0.0][0] + 0.3 * rarity(choices, 10))
    assert found[0.3][1] == found[0.0][1]


@pytest.mark.parametrize(
    ("action", "rows", "alike"),
    [
        (
            "top_k_cut",
            [10, 11, 11, 14, 19, 0, 0, 0],
            [1, 2, 2, 1, 1, 3, 3, 3],
        ),  # rows from 10 on are boxes, with top-k 0 as row 0
        ("top_k_lam", [2] * 8, [8] * 8),
        ("top_k_lam", [2, 3, 7, 12, 12, 2, 2, 2], [4, 1, 1, 2, 2, 4, 4, 4]),
        ("top_k_patches", [0, 1, 2, 3, 4, 5, 3, 0], [2, 1, 1, 2, 1, 1, 2, 2]),
        ("top_k_partner", [4, 14, 4, 14, 4, 4, 4, 14], [5, 3, 5, 3, 5, 5, 5, 3]),
        ("top_k_mix", [0, 10, 0, 10, 0, 0, 1, 1], [4, 2, 4, 2, 4, 4, 2, 2]),
    ],
)
def test_diversity_is_of_the_whole_choice(config, action, rows, alike):
    choices = {"top_k_cut": 20, "top_k_lam": 50, "top_k_patches": 30, "top_k_partner": 20, "top_k_mix": 11}[action]
    found = {}
    for weight in (0.0, 2.0):
        process = MixingProcess(config.changed(diversity=weight, action=action))
        process.reset()
        found[weight] = process.act(process.actions[torch.tensor(rows)])
    expected = torch.tensor([2 * math.log(8 / number) / math.log(choices) for number in alike])
    torch.testing.assert_close(found[2.0] - found[0.0], expected, rtol=1e-4, atol=1e-6)


def test_alignment_is_the_cosine_of_the_gradients_that_autograd_gives():
    draw = torch.Generator().manual_seed(0)
    features, targets = torch.randn(5, 7, generator=draw), torch.rand(5, 4, generator=draw).softmax(1)
    layer, wanted = torch.nn.Linear(7, 4), torch.randn(4, 8, generator=draw)
    expected = []
    for row, target in zip(features, targets, strict=True):
        layer.zero_grad()
        F.cross_entropy(layer(row[None]), target[None]).backward()
        gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
        expected.append(F.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0))
    residual = layer(features).softmax(1) - targets
    torch.testing.assert_close(last_layer_alignment(with_bias(features), residual, wanted), torch.stack(expected))


def gradients_of(model, images, targets, weights):
    model = copy.deepcopy(model)
    loss = F.cross_entropy(model(images), targets)
    named = dict(model.named_parameters())
    return torch.autograd.grad(loss, [named[name] for name in weights])


def test_last_layer_reward_is_the_cosine_of_last_layer_gradients(config):
    """The oracle is autograd's gradient of one image's loss in its batch: the batch norms see all images."""
    process = MixingProcess(config.changed(reward="last_layer"))
    process.reset()
    process.observe()
    training = process.require_training()
    model, held_out = copy.deepcopy(training.model), held_out_batch(training)
    rewards = process.act(torch.zeros(8))
    assert ((rewards >= -1) & (rewards <= 1)).all()
    names = ("classifier.weight", "classifier.bias")
    wanted = gradients_of(model, held_out.images, held_out.labels, names)
    mixed = process.outcome.mixed
    for image in range(8):
        weight = F.one_hot(torch.tensor(image), 8).float()
        copied = copy.deepcopy(model)
        loss = (F.cross_entropy(copied(mixed.images), mixed.targets, reduction="none") * weight).sum()
        taken = torch.autograd.grad(loss, [copied.classifier.weight, copied.classifier.bias])
        flat = [torch.cat([part.flatten() for part in parts]) for parts in (taken, wanted)]
        assert float(rewards[image]) == pytest.approx(float(F.cosine_similarity(*flat, dim=0)), rel=1e-3, abs=1e-5)


def test_parameters_reward_is_the_cosine_of_all_gradients(config):
    process = MixingProcess(config.changed(reward="parameters"))
    process.reset()
    process.observe()
    training = process.require_training()
    model, held_out = copy.deepcopy(training.model), held_out_batch(training)
    rewards = process.act(torch.full((8,), 0.55))
    mixed, names = process.outcome.mixed, [name for name, _ in model.named_parameters()]
    flat = [
        torch.cat([part.flatten() for part in gradients_of(model, *batch, names)])
        for batch in ((mixed.images, mixed.targets), (held_out.images, held_out.labels))
    ]
    torch.testing.assert_close(rewards, F.cosine_similarity(*flat, dim=0).expand(8), rtol=1e-3, atol=1e-5)


def test_held_out_loss_reward_is_what_the_step_gained(config):
    process = MixingProcess(config.changed(reward="held_out_loss"))
    process.reset()
    process.observe()
    training = process.require_training()
    held_out, losses = held_out_batch(training), []
    losses.append(F.cross_entropy(copy.deepcopy(training.model)(held_out.images), held_out.labels))
    rewards = process.act(torch.zeros(8))
    losses.append(F.cross_entropy(copy.deepcopy(training.model)(held_out.images), held_out.labels))
    torch.testing.assert_close(rewards, (losses[0] - losses[1]).detach().expand(8), rtol=1e-3, atol=1e-5)
    assert abs(float(rewards[0])) > 0


def test_the_held_out_batch_is_another_one_at_every_step(config):
    """Clean training images with their own labels, in normalised form; the same ones again for the same seed and step."""
    training = MixingProcess(config).reset()
    pixels = torch.from_numpy(np.load(config.data.name.removeprefix("npz:"))["x_train"]).permute(0, 3, 1, 2) / 255
    clean = (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), correction=0, keepdim=True)
    seen = []
    for _ in range(4):
        batch = held_out_batch(training)
        assert torch.equal(batch.images, held_out_batch(training).images)
        found = (batch.images[:, None] - clean[None]).abs().flatten(2).amax(2).min(1)
        assert len(batch.images) == 8
        assert found.values.max() < 1e-3, "every image is a training image as it is"
        assert (batch.labels == found.indices % 4).all(), "toys label images in turn"
        seen.append(tuple(found.indices.tolist()))
        training.fit_step()
    assert len(set(seen)) == 4
    assert len({image for images in seen for image in images}) > 8
    other = held_out_batch(MixingProcess(config.changed(seed=1)).reset())
    assert not torch.equal(other.images, held_out_batch(MixingProcess(config).reset()).images)


def test_fixed_policies_may_go_without_a_reward(config):
    """No figure is made up for it, and no environment offers it to an agent."""
    process = MixingProcess(config.changed(reward=UNMEASURED))
    process.reset()
    for _ in range(2):
        assert not process.act(torch.zeros(8)).any()
    assert list(process.epoch_metrics()) == ["top_k_mean"]
    for form in (RLMixEnv, RLMixVectorEnv):
        with pytest.raises(ValueError, match=r"^reward must be one that an agent can learn from, got none$"):
            form(config=config.changed(reward=UNMEASURED))


@pytest.mark.parametrize("reward", REWARDS)
def test_no_reward_moves_the_training(config, reward):
    """The same actions under every reward give the same classifier, to the bit: statistics, weights and draws are left alone."""
    weights, known = [], build_reward(reward)
    needs = {"ema": 0.9, "val_fraction": 0.25, "epochs": 4} if known.average or known.validation else {}
    for name in ("cosine", reward):
        process = MixingProcess(config.changed(reward=name, **needs))
        process.reset()
        for _ in range(4):
            rewards = process.act(torch.linspace(0, 0.99, 8))
            assert rewards.shape == (8,)
            assert rewards.isfinite().all()
        weights.append(process.require_training().model.state_dict())
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name


def test_difficulty_is_the_divergence_of_the_prediction_from_the_target():
    draw = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 5, generator=draw), torch.rand(6, 5, generator=draw).softmax(1)
    rows = zip(targets.tolist(), logits.softmax(1).tolist(), strict=True)
    expected = [sum(p * math.log(p / q) for p, q in zip(*row, strict=True)) for row in rows]
    torch.testing.assert_close(difficulty(logits, targets), torch.tensor(expected))
    torch.testing.assert_close(difficulty(targets.log(), targets), torch.zeros(6), atol=1e-6, rtol=0)
    hard = F.one_hot(torch.arange(5), 5).float()
    torch.testing.assert_close(difficulty(logits[:5], hard), F.cross_entropy(logits[:5], torch.arange(5), reduction="none"))


def test_the_gap_is_the_difficulty_for_the_classifier_less_that_for_its_average(config):
    process = MixingProcess(config.changed(reward="difficulty_gap", ema=0.5))
    training = process.reset()
    process.run_epoch(lambda decision: torch.zeros(8))
    decision = process.observe()
    student, teacher = copy.deepcopy(training.model), copy.deepcopy(training.average)
    rewards = process.act(torch.zeros(8))
    mixed = process.outcome.mixed
    teacher.module.load_state_dict(training.average.module.state_dict())
    with torch.no_grad():
        hard, taught = difficulty(student(mixed.images), mixed.targets), difficulty(teacher(mixed.images), mixed.targets)
    torch.testing.assert_close(rewards, hard - taught, atol=1e-4, rtol=1e-4)
    assert decision.sound


def test_an_even_cosine_pays_nothing_for_the_amount_of_mixing():
    draw = torch.Generator().manual_seed(0)
    clean, mixed, share = (
        torch.rand(64, 8, 8, generator=draw),
        torch.rand(64, 8, 8, generator=draw),
        torch.rand(64, generator=draw),
    )
    rewards = cosine_even(clean, mixed, share).numpy()
    amount = np.array([-(s * math.log(s) + (1 - s) * math.log(1 - s)) for s in share.tolist()])
    slope, _ = np.polyfit(amount, cosine(clean, mixed).numpy(), 1)
    assert abs(np.corrcoef(amount, rewards)[0, 1]) < 1e-3
    expected = cosine(clean, mixed).numpy() - slope * (amount - amount.mean())
    np.testing.assert_allclose(rewards, expected, atol=1e-5)
    assert torch.equal(cosine_even(clean, mixed, torch.full((64,), 0.3)), cosine(clean, mixed))


def test_validation_rewards_are_those_of_images_that_are_not_trained_on(config):
    process = MixingProcess(config.changed(reward="validation_loss", val_fraction=0.25, train_images=None))
    training = process.reset()
    images, labels = validation_batch(training)
    val = normalize(training.data.val_images, training.data.mean, training.data.std)
    for image, label in zip(images, labels, strict=True):
        place = int((val - image).abs().flatten(1).sum(1).argmin())
        assert torch.equal(val[place], image)
        assert training.data.val_labels[place] == label
    again = validation_batch(training)
    assert torch.equal(again.images, images)
    before = copy.deepcopy(training.model)
    rewards = process.act(torch.zeros(8))
    with torch.no_grad():
        losses = [F.cross_entropy(model.train()(images), labels) for model in (before, copy.deepcopy(training.model))]
    torch.testing.assert_close(rewards, (losses[0] - losses[1]).expand(8), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"reward": "difficulty_gap"},
            "reward difficulty_gap must go with ema, a moving average of a classifier's weights that changes",
        ),
        ({"reward": "validation_loss"}, "reward validation_loss must have a validation split: give val_fraction"),
        ({"reward": "validation_last_layer"}, "reward validation_last_layer must have a validation split: give val_fraction"),
    ],
)
def test_a_reward_says_what_it_needs(config, options, said):
    with pytest.raises(ValueError, match=said):
        MixingProcess(config.changed(**options))
