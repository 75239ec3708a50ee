"""AlignMix: the transport against NumPy, SciPy and POT, the mixed features against loops, what is drawn, what is trained on."""

import numpy as np
import oracle
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

import rlmix
from rlmix.mixing.alignmix import AlignMix, aligned, mix_aligned, sample_align, sinkhorn, squared_distances
from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import Objective
from rlmix.models import build_model
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def costs(seed: int, batch: int, rows: int, columns: int, scale: float) -> np.ndarray:
    return scale * np.random.default_rng(seed).random((batch, rows, columns))


def scaling_plan(cost, eps, rounds):
    """Sinkhorn and Knopp's matrix scaling of exp(-cost / eps), one matrix, float64."""
    kernel = np.exp(-cost / eps)
    u, v = np.ones(len(cost)), np.ones(cost.shape[1])
    for _ in range(rounds):
        u = 1 / len(cost) / (kernel @ v)
        v = 1 / cost.shape[1] / (kernel.T @ u)
    return u[:, None] * kernel * v


def potentials_plan(cost, eps, rounds):
    """The same through dual potentials and SciPy's logsumexp: for costs whose exponentials underflow."""
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    for _ in range(rounds):
        f = -eps * (np.log(len(cost)) + scipy.special.logsumexp((g - cost) / eps, axis=1))
        g = -eps * (np.log(cost.shape[1]) + scipy.special.logsumexp((f[:, None] - cost) / eps, axis=0))
    return np.exp((f[:, None] + g - cost) / eps)


@pytest.mark.parametrize("shape", [(16, 16), (4, 9), (9, 4), (1, 1)])
@pytest.mark.parametrize("rounds", [1, 7, 100])
def test_plans_equal_matrix_scaling(shape, rounds):
    cost = costs(0, 5, *shape, scale=1.0)
    plans = sinkhorn(torch.tensor(cost).float(), 0.1, rounds)
    np.testing.assert_allclose(plans, [scaling_plan(matrix, 0.1, rounds) for matrix in cost], atol=1e-6)


@pytest.mark.parametrize("scale", [10.0, 1000.0])
def test_plans_of_large_costs_equal_the_log_domain_of_scipy(scale):
    cost = costs(1, 4, 16, 16, scale)
    plans = sinkhorn(torch.tensor(cost).float(), 0.1, 100)
    np.testing.assert_allclose(plans, [potentials_plan(matrix, 0.1, 100) for matrix in cost], atol=1e-4)


def test_plans_equal_pot():
    ot = pytest.importorskip("ot")
    cost, weights = costs(2, 6, 16, 16, scale=2.0), np.full(16, 1 / 16)
    plans = sinkhorn(torch.tensor(cost), 0.1, 2000)
    for matrix, plan in zip(cost, plans, strict=True):
        expected = ot.sinkhorn(weights, weights, matrix, 0.1, method="sinkhorn_log", numItermax=20000, stopThr=1e-12)
        np.testing.assert_allclose(plan, expected, atol=1e-8)


def test_with_little_entropy_the_plan_is_the_best_assignment():
    cost = costs(3, 5, 8, 8, scale=1.0)
    plans = sinkhorn(torch.tensor(cost), 0.002, 5000)
    for matrix, plan in zip(cost, plans, strict=True):
        rows, columns = scipy.optimize.linear_sum_assignment(matrix)
        best = matrix[rows, columns].mean()
        assert float((plan * torch.tensor(matrix)).sum()) == pytest.approx(best, rel=0.01)


@PROPERTY
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 1.0, 1e4]),
    st.integers(1, 20),
)  # fmt: skip
def test_columns_of_a_plan_sum_to_their_weight_converged_or_not(seed, batch, rows, columns, scale, rounds):
    plan = sinkhorn(torch.tensor(costs(seed, batch, rows, columns, scale)).float(), 0.1, rounds)
    assert bool((plan >= 0).all())
    np.testing.assert_allclose(plan.sum(1), np.full((batch, columns), 1 / columns), atol=1e-6)


def test_distances_equal_the_loops():
    first, second = (np.random.default_rng(seed).normal(size=(3, 5, size)) for seed, size in ((0, 4), (1, 6)))
    expected = [
        [[((a[:, i] - b[:, j]) ** 2).sum() for j in range(6)] for i in range(4)] for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(squared_distances(torch.tensor(first), torch.tensor(second)), expected)


def test_shuffled_positions_are_found_again():
    target = torch.randn(6, 32, 16, generator=torch.Generator().manual_seed(0)) * 3
    source = target[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(aligned(source, target), target, atol=1e-3, rtol=0)
    assert not torch.allclose(source, target, atol=1.0)


@pytest.mark.parametrize("move_partner", [True, False])
def test_mixed_features_equal_the_loops(move_partner):
    rng = np.random.default_rng(4)
    features, partner, lam = rng.normal(size=(5, 8, 3, 4)), rng.permutation(5), 0.7
    mixed = mix_aligned(torch.tensor(features), torch.tensor(partner), lam, move_partner)
    for image, other in enumerate(partner):
        a, b = features[image].reshape(8, 12), features[other].reshape(8, 12)
        source, target = (b, a) if move_partner else (a, b)
        cost = [[((source[:, i] - target[:, j]) ** 2).sum() for j in range(12)] for i in range(12)]
        assignment = 12 * potentials_plan(np.array(cost), 0.1, 100)
        expected = lam * a + (1 - lam) * source @ assignment if move_partner else lam * source @ assignment + (1 - lam) * b
        np.testing.assert_allclose(mixed[image].reshape(8, 12), expected, atol=2e-3)


def test_the_gradient_takes_the_plan_for_constant():
    source = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        assignment = 4 * sinkhorn(squared_distances(source.float(), target.float()))
    aligned(source, target).square().sum().backward()
    torch.testing.assert_close(source.grad, 2 * source.detach() @ assignment.double() @ assignment.double().mT)
    assert target.grad is None


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model("preactresnet18_w16", 10)


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 3, 32, 32, generator=generator), torch.randint(10, (7,), generator=generator)


def seed_of(align: bool, move_partner: bool, batch_size: int) -> int:
    for seed in range(100):
        draw = sample_align(batch_size, 2.0, torch.Generator().manual_seed(seed))
        if (draw.align, draw.move_partner) == (align, move_partner):
            return seed
    raise AssertionError


@pytest.mark.parametrize("move_partner", [True, False])
def test_the_loss_is_that_of_features_mixed_by_hand(model, batch, move_partner):
    images, labels = batch
    seed = seed_of(True, move_partner, 7)
    draw = sample_align(7, 2.0, torch.Generator().manual_seed(seed))
    objective = AlignMix()(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(seed))
    assert isinstance(objective, Objective)
    loss, logits = objective.score(model)
    hidden = model.stem(images)
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4):
        hidden = stage(hidden)
    expected = model.classifier(mix_aligned(hidden, draw.partner, draw.lam, move_partner).mean((2, 3)))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    each = draw.lam * F.cross_entropy(expected, labels) + (1 - draw.lam) * F.cross_entropy(expected, labels[draw.partner])
    torch.testing.assert_close(loss, each, atol=1e-4, rtol=1e-4)
    assert not model.stage4._forward_hooks
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()


def test_the_other_half_of_the_batches_is_input_mixup(model, batch):
    images, labels = batch
    seed = seed_of(False, True, 7)
    partner, lam, *_ = sample_align(7, 2.0, torch.Generator().manual_seed(seed))
    mixed = AlignMix()(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(seed))
    assert isinstance(mixed, Mixed)
    np.testing.assert_allclose(mixed.images, lam * images.numpy() + (1 - lam) * images.numpy()[partner], atol=1e-6)
    np.testing.assert_allclose(mixed.targets, lam * np.eye(10)[labels] + (1 - lam) * np.eye(10)[labels[partner]], atol=1e-6)


def test_what_is_drawn_follows_its_distribution():
    generator = torch.Generator().manual_seed(5)
    draws = [sample_align(3, 2.0, generator) for _ in range(1500)]
    assert scipy.stats.kstest([draw.lam for draw in draws], scipy.stats.beta(2, 2).cdf).pvalue > 0.01
    coins = np.array([[draw.align, draw.move_partner] for draw in draws])
    assert scipy.stats.chisquare(np.bincount(coins @ [2, 1])).pvalue > 0.01
    orders = np.array([draw.partner.numpy() @ [9, 3, 1] for draw in draws])
    assert scipy.stats.chisquare(np.unique(orders, return_counts=True)[1]).pvalue > 0.01


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("align", [True, False])
def test_batches_of_one_and_odd_ones_train(model, batch_size, align):
    images, labels = torch.randn(batch_size, 3, 32, 32), torch.arange(batch_size)
    generators = [torch.Generator().manual_seed(seed_of(align, True, batch_size)) for _ in range(2)]
    before = torch.get_rng_state()
    first, second = (AlignMix()(model, images, labels, num_classes=10, generator=generator) for generator in generators)
    assert torch.equal(first.targets, second.targets)
    torch.testing.assert_close(first.targets.sum(1), torch.ones(batch_size))
    losses = [rlmix.mixing.objective.score(mixed, model).loss for mixed in (first, second)]
    assert torch.isfinite(losses[0])
    assert torch.equal(*losses)
    assert torch.equal(before, torch.get_rng_state())


def test_a_torchvision_network_and_bfloat16(batch):
    images, labels = batch
    network, seed = resnet18(num_classes=10), seed_of(True, False, 7)
    with torch.autocast("cpu", torch.bfloat16):
        objective = AlignMix()(network, images, labels, num_classes=10, generator=torch.Generator().manual_seed(seed))
        loss, logits = objective.score(network)
    assert loss.dtype == logits.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("alpha", float("inf")), ("eps", -1.0), ("num_iterations", 0)])
def test_parameters_out_of_range_are_refused(name, value):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        AlignMix(**{name: value})


def test_a_network_without_stages_is_refused(batch):
    with pytest.raises(ValueError, match=r"stage must be one of those Sequential has \(none\), got 'last'"):
        AlignMix()(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), *batch, num_classes=10)


def test_three_steps_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    for _ in range(3):
        training.fit_step(AlignMix())
    assert np.isfinite(training.epoch_metrics()["train_loss"])
