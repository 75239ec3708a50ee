"""CutMix against loops, torchvision and timm; the boxes that Cutout and SaliencyMix share."""

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
from rlmix.mixing.core import sample_lam, soft_targets
from rlmix.mixing.cutmix import CutMix, box_mask, box_sides, paste, sample_centers
from rlmix.mixing.objective import Method
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
UNUSED = nn.Identity()
"""CutMix asks nothing of the model."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(batch: int, height: int, width: int) -> torch.Tensor:
    """Image i is 1 in channel i: the mean pixel counts what a mixed image has of each."""
    return torch.eye(batch)[:, :, None, None].expand(-1, -1, height, width)


def rectangle(changed: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Centre and sides of the rectangle of pixels that are set."""
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    sides = len(rows), len(columns)
    if not changed.any():
        return torch.zeros(1, 2, dtype=torch.int64), sides
    assert int(changed.sum()) == sides[0] * sides[1]
    return torch.tensor([[int(rows[0]) + sides[0] // 2, int(columns[0]) + sides[1] // 2]]), sides


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_equals_the_loops(batch):
    for seed in range(6):
        images = torch.randn(batch, 3, 8, 11, generator=seeded(seed))
        labels = torch.arange(batch) % 4
        mixed = CutMix(0.7, probability=1.0)(UNUSED, images, labels, num_classes=4, generator=seeded(seed))
        generator = seeded(seed)
        torch.rand((), generator=generator)
        partner = torch.randperm(batch, generator=generator).numpy()
        lam = sample_lam(0.7, generator)
        center = sample_centers(1, (8, 11), generator)[0].tolist()
        sides = image_oracle.cut_sides(lam, 8, 11)
        expected, targets = image_oracle.paste(
            images.double().numpy(), np.eye(4)[labels.numpy()], partner, [center] * batch, sides
        )
        np.testing.assert_allclose(mixed.images.numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-6)


@pytest.mark.parametrize(
    ("center", "sides", "expected"),
    [
        ((1, 2), (2, 2), ["0110", "0110", "0000"]),
        ((1, 2), (3, 1), ["0010", "0010", "0010"]),
        ((0, 0), (2, 3), ["1100", "0000", "0000"]),  # clipped at the top left
        ((2, 3), (2, 4), ["0000", "0111", "0111"]),
        ((2, 3), (0, 4), ["0000", "0000", "0000"]),
        ((1, 1), (6, 8), ["1111", "1111", "1111"]),
    ],
)
def test_boxes_by_hand(center, sides, expected):
    mask = box_mask(torch.tensor([center]), sides, (3, 4))[0]
    assert ["".join(str(int(pixel)) for pixel in row) for row in mask] == expected


def test_sides_by_hand():
    assert box_sides(0.75, (32, 32)) == (16, 16)
    assert box_sides(0.0, (32, 20)) == (32, 20)
    assert box_sides(1.0, (32, 20)) == (0, 0)
    assert box_sides(0.96, (32, 64)) == (6, 12)


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), lam=st.floats(0, 1), height=st.integers(1, 9), width=st.integers(1, 9),
       count=st.integers(1, 4))  # fmt: skip
def test_boxes_equal_the_loops(seed, lam, height, width, count):
    centers = sample_centers(count, (height, width), seeded(seed))
    sides = box_sides(lam, (height, width))
    assert sides == image_oracle.cut_sides(lam, height, width)
    for center, mask in zip(centers.tolist(), box_mask(centers, sides, (height, width)), strict=True):
        for (row, column), pixel in np.ndenumerate(mask.numpy()):
            assert pixel == image_oracle.inside(row, column, center, sides)


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 6), height=st.integers(1, 12), width=st.integers(1, 12),
       alpha=st.sampled_from([0.3, 1.0, 3.0]))  # fmt: skip
def test_a_targets_weight_is_its_images_share_of_the_pixels(seed, batch, height, width, alpha):
    method = CutMix(alpha, probability=1.0)
    mixed = method(UNUSED, coloured(batch, height, width), torch.arange(batch), num_classes=batch, generator=seeded(seed))
    torch.testing.assert_close(mixed.images.mean((2, 3)), mixed.targets, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(batch), atol=1e-6, rtol=0)


def test_one_box_for_the_whole_batch_or_one_an_image():
    images, targets, partner = coloured(3, 6, 6), torch.eye(3), torch.tensor([1, 2, 0])
    centers = torch.tensor([[2, 2], [0, 0], [5, 3]])
    each = paste(images, targets, box_mask(centers, (3, 3), (6, 6)), partner)
    for image in range(3):
        shared = paste(images, targets, box_mask(centers[image : image + 1], (3, 3), (6, 6)), partner)
        assert torch.equal(each.images[image], shared.images[image])
        assert torch.equal(each.targets[image], shared.targets[image])


def simulated_shares(alpha: float, size: int, count: int) -> list[float]:
    """Share of pixels in a box, from its definition."""
    draw, shares = np.random.default_rng(5), []
    for _ in range(count):
        side = int(size * np.sqrt(1 - draw.beta(alpha, alpha)))
        starts = draw.integers(0, size, 2) - side // 2
        ends = np.minimum(starts + side, size)
        shares.append(float(np.prod(ends - np.maximum(starts, 0))) / size**2)
    return shares


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_shares_and_centres_are_distributed_as_defined(alpha):
    generator, size = seeded(0), 32
    shares = [
        float(box_mask(sample_centers(1, (size, size), generator), box_sides(lam, (size, size)), (size, size)).float().mean())
        for lam in (sample_lam(alpha, generator) for _ in range(1000))
    ]
    assert scipy.stats.ks_2samp(shares, simulated_shares(alpha, size, 5000)).pvalue > 0.01
    assert scipy.stats.ks_2samp(shares, simulated_shares(3 * alpha, size, 5000)).pvalue < 1e-6  # the test would notice
    centers = sample_centers(6000, (4, 6), generator)
    counts = np.bincount((centers[:, 0] * 6 + centers[:, 1]).numpy(), minlength=24)
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_the_methods_own_lam_is_beta():
    """Through the partner's weight in the targets, which the definition's simulation has as a box's share."""
    generator, method, shares = seeded(0), CutMix(probability=1.0), []
    images = torch.zeros(4, 1, 32, 32)
    while len(shares) < 600:
        targets = method(UNUSED, images, torch.arange(4), num_classes=4, generator=generator).targets
        partner = targets - torch.diag(targets.diagonal())
        shares.append(float(partner.max()))  # 0 where all are their own partners: 1 batch in 24
    expected = simulated_shares(1.0, 32, 5000)
    own = np.random.default_rng(6).random(5000) < 1 / 24
    assert scipy.stats.ks_2samp(shares, np.where(own, 0, expected)).pvalue > 0.01


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_batch_is_mixed_with_the_stated_probability(probability):
    images, labels, generator = torch.randn(16, 1, 16, 16, generator=seeded(1)), torch.arange(16), seeded(0)
    method = CutMix(alpha=5.0, probability=probability)
    mixed = sum(
        not torch.equal(method(UNUSED, images, labels, num_classes=16, generator=generator).images, images) for _ in range(500)
    )
    if probability == 0.5:
        assert scipy.stats.binomtest(mixed, 500, probability).pvalue > 0.01
    else:
        assert mixed == 500 * probability


def test_agrees_with_torchvision_when_paired_as_it_pairs():
    images, labels = torch.rand(6, 3, 13, 17, generator=seeded(0)), torch.arange(6)
    for seed in range(8):
        torch.manual_seed(seed)
        expected, targets = v2.CutMix(alpha=1.0, num_classes=6)(images, labels)
        center, sides = rectangle((expected[0] != images[0]).any(0))
        mixed = paste(images, soft_targets(labels, 6), box_mask(center, sides, (13, 17)), torch.arange(6).roll(1))
        assert torch.equal(mixed.images, expected)
        torch.testing.assert_close(mixed.targets, targets, atol=1e-6, rtol=0)


def test_agrees_with_timm_when_paired_as_it_pairs():
    mixup = pytest.importorskip("timm.data.mixup")
    images, labels = torch.rand(6, 3, 13, 17, generator=seeded(0)), torch.arange(6)
    for seed in range(8):
        with image_oracle.numpy_seed(seed):
            timm = mixup.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=6)
            expected, targets = timm(images.clone(), labels)
        center, sides = rectangle((expected[0] != images[0]).any(0))
        mixed = paste(images, soft_targets(labels, 6), box_mask(center, sides, (13, 17)), torch.arange(6).flip(0))
        assert torch.equal(mixed.images, expected)
        torch.testing.assert_close(mixed.targets, targets, atol=1e-6, rtol=0)


def test_even_boxes_equal_timms_around_the_same_centres():
    """Odd ones too in some versions; in others they lose the last row and column."""
    mixup = pytest.importorskip("timm.data.mixup")
    compared = 0
    for seed in range(60):
        lam = float(np.random.default_rng(seed).beta(1, 1))
        sides = box_sides(lam, (32, 24))
        if sides[0] % 2 or sides[1] % 2:
            continue
        with image_oracle.numpy_seed(seed):
            top, bottom, left, right = mixup.rand_bbox((6, 3, 32, 24), lam)
        with image_oracle.numpy_seed(seed):
            center = torch.tensor([[np.random.randint(32), np.random.randint(24)]])  # noqa: NPY002
        expected = torch.zeros(1, 32, 24, dtype=torch.bool)
        expected[:, top:bottom, left:right] = True
        assert torch.equal(box_mask(center, sides, (32, 24)), expected)
        compared += 1
    assert compared > 5


def test_repeats_with_the_generators_seed_and_leaves_all_else():
    images, labels = torch.rand(8, 3, 9, 9), torch.arange(8)
    kept, state = images.clone(), torch.get_rng_state()
    first, again, other = (CutMix(probability=1.0)(UNUSED, images, labels, num_classes=8, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


def test_images_keep_their_dtype():
    mixed = CutMix(probability=1.0)(UNUSED, torch.rand(4, 3, 8, 8).bfloat16(), torch.arange(4), num_classes=4)
    assert mixed.images.dtype == torch.bfloat16
    assert mixed.targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.5), "alpha must be above 0, got 0.0"),
        ((float("nan"), 0.5), "alpha must be finite and above 0, got nan"),
        ((1.0, -0.1), r"probability must be in \[0, 1\], got -0.1"),
        ((1.0, 1.5), r"probability must be in \[0, 1\], got 1.5"),
        ((1.0, float("nan")), r"probability must be finite and in \[0, 1\], got nan"),
    ],
)
def test_parameters_out_of_range_are_named(arguments, message):
    with oracle.unchecked(), pytest.raises(ValueError, match=message):
        CutMix(*arguments)


def test_trains_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    method = CutMix(probability=1.0)
    assert isinstance(method, Method)
    for _ in range(3):
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
