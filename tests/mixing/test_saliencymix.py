"""SaliencyMix against loops, saliency included."""

import image_oracle
import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rlmix
from rlmix.maps.static import fine_grained_saliency
from rlmix.mixing.core import sample_lam
from rlmix.mixing.objective import Method
from rlmix.mixing.saliencymix import SaliencyMix, most_salient
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
UNUSED = nn.Identity()
"""SaliencyMix asks nothing of the model."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (4, 3), (5, 1)])
def test_equals_the_loops(batch, channels):
    for seed in range(4):
        images = torch.randn(batch, channels, 12, 15, generator=seeded(seed))
        labels = torch.arange(batch) % 4
        mixed = SaliencyMix(0.7, probability=1.0)(UNUSED, images, labels, num_classes=4, generator=seeded(seed))
        generator = seeded(seed)
        torch.rand((), generator=generator)
        partner = torch.randperm(batch, generator=generator).numpy()
        sides = image_oracle.cut_sides(sample_lam(0.7, generator), 12, 15)
        arrays = images.double().numpy()
        maps = [image_oracle.fine_grained(image_oracle.luma(image), rounded=False) for image in arrays]
        centers = [np.unravel_index(maps[other].argmax(), (12, 15)) for other in partner]
        expected, targets = image_oracle.paste(arrays, np.eye(4)[labels.numpy()], partner, centers, sides)
        np.testing.assert_allclose(mixed.images.numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-6)


def test_every_box_holds_the_bright_point_of_the_partner():
    """Eight dark images with one bright pixel each, below the middle: wherever a box has any pixel, it has that one."""
    generator, points = seeded(0), torch.tensor([[16 + image // 2, 16 + image] for image in range(8)])
    images = torch.zeros(8, 3, 32, 32)
    images[torch.arange(8), :, points[:, 0], points[:, 1]] = 1
    assert torch.equal(most_salient(fine_grained_saliency(images)), points)
    boxes = 0
    for _ in range(10):
        mixed = SaliencyMix(probability=1.0)(UNUSED, images, torch.arange(8), num_classes=8, generator=generator)
        shares = mixed.targets - torch.diag(mixed.targets.diagonal())
        for image in range(8):
            if shares[image].max() > 0:
                row, column = points[shares[image].argmax()]
                assert mixed.images[image, :, row, column].tolist() == [1, 1, 1]
                boxes += 1
    assert boxes > 40


def test_most_salient_by_hand():
    maps = torch.tensor([[[0.0, 2.0, 1.0], [0.0, 0.0, 2.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]], [[0.0] * 3] * 2])
    assert most_salient(maps).tolist() == [[0, 1], [1, 2], [0, 0]]


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 6), height=st.integers(2, 12), width=st.integers(2, 12))
def test_a_targets_weight_is_its_images_share_of_the_pixels(seed, batch, height, width):
    """Every channel c of image i is i + noise below a thousandth: the rounded pixels count what is left of each image."""
    colour = torch.arange(batch).float()[:, None, None, None]
    images = colour + 1e-3 * torch.rand(batch, 2, height, width, generator=seeded(seed))
    mixed = SaliencyMix(probability=1.0)(UNUSED, images, torch.arange(batch), num_classes=batch, generator=seeded(seed))
    shares = nn.functional.one_hot(mixed.images[:, 0].floor().long(), batch).float().mean((1, 2))
    torch.testing.assert_close(shares, mixed.targets, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(batch), atol=1e-6, rtol=0)


def test_images_of_one_colour_are_mixed_at_the_top_left():
    colours = torch.eye(4)[:, :, None, None].expand(-1, -1, 8, 8)
    mixed = SaliencyMix(probability=1.0)(UNUSED, colours, torch.arange(4), num_classes=4, generator=seeded(2))
    torch.testing.assert_close(mixed.images.mean((2, 3)), mixed.targets, atol=1e-6, rtol=0)
    assert torch.equal(mixed.images[:, :, 7, 7], torch.eye(4))


def test_lam_is_beta():
    """With the most salient point in the middle no box is clipped: its share gives the side, and the side lam."""
    images, method, generator, shares = torch.zeros(2, 1, 48, 48), SaliencyMix(2.0, probability=1.0), seeded(0), []
    images[:, :, 24, 24] = 1
    while len(shares) < 400:
        targets = method(UNUSED, images, torch.arange(2), num_classes=2, generator=generator).targets
        if targets[0, 1] > 0:
            shares.append(float(targets[0, 1]))
    lams = np.random.default_rng(0).beta(2, 2, 5000)
    expected = [share for share in (int(48 * np.sqrt(1 - lam)) ** 2 / 48**2 for lam in lams) if share > 0]
    assert scipy.stats.ks_2samp(shares, expected).pvalue > 0.01
    assert scipy.stats.ks_2samp(shares, np.random.default_rng(0).random(5000)).pvalue < 1e-6  # the test would notice


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_batch_is_mixed_with_the_stated_probability(probability):
    images, labels, generator = torch.randn(16, 1, 8, 8, generator=seeded(1)), torch.arange(16), seeded(0)
    method = SaliencyMix(alpha=5.0, probability=probability)
    mixed = sum(
        not torch.equal(method(UNUSED, images, labels, num_classes=16, generator=generator).images, images) for _ in range(500)
    )
    if probability == 0.5:
        assert scipy.stats.binomtest(mixed, 500, probability).pvalue > 0.01
    else:
        assert mixed == 500 * probability


def test_repeats_with_the_generators_seed_and_leaves_all_else():
    images, labels = torch.rand(8, 3, 9, 9), torch.arange(8)
    kept, state = images.clone(), torch.get_rng_state()
    first, again, other = (
        SaliencyMix(probability=1.0)(UNUSED, images, labels, num_classes=8, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.5), "alpha must be above 0, got 0.0"),
        ((1.0, 1.5), r"probability must be in \[0, 1\], got 1.5"),
    ],
)
def test_parameters_out_of_range_are_named(arguments, message):
    with oracle.unchecked(), pytest.raises(ValueError, match=message):
        SaliencyMix(*arguments)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trains_on_digits(precision):
    config = rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1, precision=precision)
    training = Training(config)
    method = SaliencyMix(probability=1.0)
    assert isinstance(method, Method)
    for _ in range(3):
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
