"""Input mix-up against loops, torchvision and timm."""

import image_oracle
import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

import rlmix
from rlmix.mixing.core import Mixed, sample_lam, soft_targets
from rlmix.mixing.input_mixup import InputMixup, interpolate
from rlmix.mixing.objective import Method
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
UNUSED = nn.Identity()
"""Input mix-up asks nothing of the model."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_equals_the_equation(batch):
    for seed in range(3):
        images = torch.randn(batch, 3, 4, 6, generator=seeded(seed))
        labels = torch.arange(batch) % 4
        mixed = InputMixup(alpha=0.7)(UNUSED, images, labels, num_classes=4, generator=seeded(seed))
        generator = seeded(seed)
        partner, lam = torch.randperm(batch, generator=generator).tolist(), sample_lam(0.7, generator)
        for image in range(batch):
            expected = lam * images[image].double() + (1 - lam) * images[partner[image]].double()
            np.testing.assert_allclose(mixed.images[image].numpy(), expected.numpy(), atol=1e-6)
            target = lam * np.eye(4)[labels[image]] + (1 - lam) * np.eye(4)[labels[partner[image]]]
            np.testing.assert_allclose(mixed.targets[image].numpy(), target, atol=1e-6)


def test_by_hand():
    images = torch.tensor([1.0, 0.0, 4.0]).reshape(3, 1, 1, 1)
    assert interpolate(images, torch.tensor([2, 1, 0]), 0.25).flatten().tolist() == [3.25, 0.0, 1.75]


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 6), lam=st.floats(0, 1))
def test_a_targets_weight_is_its_images_weight(seed, batch, lam):
    """Image i is 1 in channel i, its label is i."""
    partner = torch.randperm(batch, generator=seeded(seed))
    images = interpolate(torch.eye(batch)[:, :, None, None].expand(-1, -1, 3, 3), partner, lam)
    targets = interpolate(soft_targets(torch.arange(batch), batch), partner, lam)
    torch.testing.assert_close(images.mean((2, 3)), targets, atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.sum(1), torch.ones(batch), atol=1e-6, rtol=0)


def test_lam_of_zero_or_one_and_an_own_partner_keep_images_to_the_bit():
    images, partner = torch.randn(5, 3, 4, 4, generator=seeded(0)), torch.tensor([1, 2, 0, 4, 3])
    assert torch.equal(interpolate(images, partner, 1.0), images)
    assert torch.equal(interpolate(images, partner, 0.0), images[partner])
    assert torch.equal(interpolate(images, torch.arange(5), 0.3), images)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_follows_its_beta_distribution(alpha):
    method, generator, lams = InputMixup(alpha), seeded(0), []
    images = torch.zeros(4, 1, 1, 1)
    while len(lams) < 600:
        targets = method(UNUSED, images, torch.arange(4), num_classes=4, generator=generator).targets
        own, top = targets.diagonal(), targets.topk(2).values
        mixed = (top[:, 1] > 0).nonzero()  # rows with another partner than themselves
        if len(mixed):
            lams.append(float(own[mixed[0, 0]]))
    assert scipy.stats.kstest(lams, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert scipy.stats.kstest(lams, scipy.stats.beta(3 * alpha, 3 * alpha).cdf).pvalue < 1e-6  # the test would notice


def test_repeats_with_the_generators_seed_and_leaves_the_global_state():
    images, labels, state = torch.rand(8, 3, 4, 4), torch.arange(8), torch.get_rng_state()
    first, again, other = (InputMixup()(UNUSED, images, labels, num_classes=8, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


def test_agrees_with_torchvision_when_paired_as_it_pairs():
    images, labels = torch.rand(6, 3, 5, 5, generator=seeded(0)), torch.arange(6)
    for seed in range(5):
        torch.manual_seed(seed)
        expected, targets = v2.MixUp(alpha=1.0, num_classes=6)(images, labels)
        partner, lam = torch.arange(6).roll(1), float(targets[0, 0])
        torch.testing.assert_close(interpolate(images, partner, lam), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(interpolate(soft_targets(labels, 6), partner, lam), targets, atol=1e-6, rtol=0)


def test_agrees_with_timm_when_paired_as_it_pairs():
    mixup = pytest.importorskip("timm.data.mixup")
    images, labels = torch.rand(6, 3, 5, 5, generator=seeded(0)), torch.arange(6)
    for seed in range(5):
        with image_oracle.numpy_seed(seed):
            expected, targets = mixup.Mixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=6)(images.clone(), labels)
        partner, lam = torch.arange(6).flip(0), float(targets[0, 0])
        torch.testing.assert_close(interpolate(images, partner, lam), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(interpolate(soft_targets(labels, 6), partner, lam), targets, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha_out_of_range_is_named(alpha):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"alpha must be (finite and )?above 0, got {alpha}"):
        InputMixup(alpha)


def test_trains_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    method = InputMixup()
    assert isinstance(method, Method)
    for _ in range(3):
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
    assert isinstance(method(training.model, *training.next_batch(), num_classes=10), Mixed)
