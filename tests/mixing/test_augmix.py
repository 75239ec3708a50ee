"""AugMix: operations against Pillow, the batch against one image at a time, the divergence against SciPy, what is drawn."""

import math

import numpy as np
import oracle
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import nn

import rlmix
from rlmix.mixing.augmix import OPERATIONS, AugDraw, AugMix, augment, jensen_shannon, sample_augmentations
from rlmix.models import build_model
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)
EXACT = ("equalize", "posterize", "solarize", "translate_x", "translate_y")


def byte_images(seed: int, batch: int, height: int = 32, width: int = 32, channels: int = 3) -> torch.Tensor:
    """Smooth ones and noisy ones, of all ranges."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(batch):
        low = rng.integers(0, 100)
        values = rng.integers(low, rng.integers(low + 1, 256), (height, width, channels)).astype(np.uint8)
        if index % 2:
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
            values = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))[:, :, :channels]
        images.append(values)
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def by_pillow(name: str, pixels: torch.Tensor, level: float) -> np.ndarray:
    """One image through Pillow, with the levels of the published code."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    strength, sign, (width, height) = abs(level), int(math.copysign(1, level)), image.size

    def affine(*coefficients):
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR)

    result = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - int(strength * 4 / 10)),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(strength * 256 / 10)),
        "rotate": lambda: image.rotate(sign * int(strength * 30 / 10), resample=Image.Resampling.BILINEAR),
        "shear_x": lambda: affine(1, level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, level * 0.3 / 10, 1, 0),
        "translate_x": lambda: affine(1, 0, sign * int(strength * (width / 3) / 10), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, sign * int(strength * (height / 3) / 10)),
    }[name]()
    return np.asarray(result).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize("size", [(32, 32), (20, 31)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_pillow(name, size):
    rng, pixels = np.random.default_rng(0), byte_images(1, 40, *size)
    levels = (rng.uniform(0.1, 10, 40) * rng.choice((-1, 1), 40)).astype(np.float32)
    got = OPERATIONS[name](pixels, torch.tensor(levels)).numpy().astype(int)
    expected = np.stack([by_pillow(name, *pair) for pair in zip(pixels, levels.tolist(), strict=True)])
    if name in EXACT:
        np.testing.assert_array_equal(got, expected)
    else:  # Pillow cuts off what lies between two bytes; and its doubles where the result is whole
        off = (np.abs(got - expected) > 1).mean()
        assert off <= (0 if name == "autocontrast" else 1e-4)  # a border position may fall on either side


def test_autocontrast_stretches_exactly():
    pixels = byte_images(2, 6)
    got = OPERATIONS["autocontrast"](pixels, torch.ones(6))
    for image, result in zip(pixels.numpy().astype(int), got.numpy(), strict=True):
        for channel, values in zip(image, result, strict=True):
            low, high = channel.min(), channel.max()
            np.testing.assert_array_equal(values, 255 * (channel - low) // (high - low))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_flat_image_stays_flat_inside(name):
    pixels = torch.full((3, 3, 12, 12), 64, dtype=torch.uint8)
    result = OPERATIONS[name](pixels, torch.tensor([0.1, -3.0, 10.0]))
    inner = result[:2, :, 4:8, 4:8]
    assert inner.unique().tolist() == [64]


def test_literal_levels():
    pixels = torch.tensor([0, 100, 179, 180, 255], dtype=torch.uint8).reshape(1, 1, 1, 5)
    level = torch.tensor([-3.0])
    assert OPERATIONS["solarize"](pixels, level).flatten().tolist() == [0, 100, 179, 75, 0]  # from 256 - 76 on
    assert OPERATIONS["posterize"](pixels, level).flatten().tolist() == [0, 96, 160, 160, 224]  # 3 bits
    wide = torch.arange(30, dtype=torch.uint8).reshape(1, 1, 1, 30)
    moved = OPERATIONS["translate_x"](wide, level).flatten().tolist()
    assert moved == [0, 0, 0, *range(27)]  # 3 of 30 pixels


def test_a_batch_equals_one_image_at_a_time():
    pixels = byte_images(3, 9)
    draw = sample_augmentations(9, 1.0, 10.0, 3, 3, torch.Generator().manual_seed(0))
    got = augment(normalized(pixels), draw, torch.tensor(MEAN), torch.tensor(STD))
    names = list(OPERATIONS)
    for image in range(9):
        mixed = np.zeros((3, 32, 32))
        for chain in range(3):
            result = pixels[image : image + 1]
            for code, level in zip(draw.operations[image, chain].tolist(), draw.levels[image, chain], strict=True):
                if code >= 0:
                    result = OPERATIONS[names[code]](result, level[None])
            mixed += float(draw.chain_weights[image, chain]) * result[0].numpy()
        share = float(draw.weight[image])
        expected = (1 - share) * pixels[image].numpy() + share * mixed
        np.testing.assert_allclose(got[image], normalized(torch.tensor(expected)), atol=1e-4)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]))
def test_views_are_images(seed, batch, chains, depth, channels):
    pixels = byte_images(seed, batch, 9, 8, channels)
    draw = sample_augmentations(batch, 1.0, 10.0, chains, depth, torch.Generator().manual_seed(seed))
    mean, std = torch.tensor(MEAN[:channels]), torch.tensor(STD[:channels])
    images = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    views = augment(images, draw, mean, std)
    restored = views * std[:, None, None] + mean[:, None, None]
    assert views.shape == images.shape
    assert -1e-5 <= float(restored.min()) <= float(restored.max()) <= 1 + 1e-5
    clean = augment(images, draw._replace(weight=torch.zeros(batch)), mean, std)
    torch.testing.assert_close(clean, images)
    idle = AugDraw(torch.full_like(draw.operations, -1), *draw[1:])
    torch.testing.assert_close(augment(images, idle, mean, std), images, atol=1e-5, rtol=1e-5)


def test_the_divergence_equals_scipy():
    logits = np.random.default_rng(0).normal(size=(3, 5, 7)) * 3
    probabilities = np.stack([oracle.softmax(view) for view in logits])
    each = [
        np.mean([scipy.stats.entropy(probabilities[view, image], probabilities[:, image].mean(0)) for view in range(3)])
        for image in range(5)
    ]
    divergence = jensen_shannon(torch.tensor(logits).log_softmax(2))
    np.testing.assert_allclose(divergence, np.mean(each))


def test_the_divergence_is_between_0_and_log_3():
    apart = 1000 * torch.eye(3)[:, None]
    assert float(jensen_shannon(apart.log_softmax(2))) == pytest.approx(math.log(3))
    alike = torch.randn(1, 4, 6).expand(3, -1, -1)
    assert float(jensen_shannon(alike.log_softmax(2))) == pytest.approx(0, abs=1e-6)


def test_the_loss_is_cross_entropy_and_divergence():
    images, labels = normalized(byte_images(4, 6)), torch.arange(6)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    generator = torch.Generator().manual_seed(7)
    objective = AugMix(MEAN, STD)(network, images, labels, num_classes=10, generator=generator)
    loss, logits = objective.score(network)
    draw = sample_augmentations(12, 1.0, 3.0, 3, 3, torch.Generator().manual_seed(7))
    views = augment(images.repeat(2, 1, 1, 1), draw, torch.tensor(MEAN), torch.tensor(STD))
    outputs = torch.stack([network(batch) for batch in (images, views[:6], views[6:])])
    expected = F.cross_entropy(outputs[0], labels) + 12 * jensen_shannon(outputs.log_softmax(2))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, outputs[0])
    np.testing.assert_array_equal(objective.targets, np.eye(10)[:6])
    torch.testing.assert_close(objective.images, views[:6])
    assert not torch.allclose(views[:6], views[6:])
    loss.backward()
    assert bool(network[1].weight.grad.any())


def test_what_is_drawn_follows_its_distribution():
    draw = sample_augmentations(1500, 1.0, 3.0, 3, 3, torch.Generator().manual_seed(3))
    assert scipy.stats.kstest(draw.weight, scipy.stats.uniform.cdf).pvalue > 0.01
    assert scipy.stats.kstest(draw.chain_weights[:, 1], scipy.stats.beta(1, 2).cdf).pvalue > 0.01
    np.testing.assert_allclose(draw.chain_weights.sum(1), np.ones(1500), atol=1e-6)
    levels = draw.levels.flatten().numpy()
    assert scipy.stats.kstest(np.abs(levels), scipy.stats.uniform(0.1, 2.9).cdf).pvalue > 0.01
    assert scipy.stats.binomtest(int((levels > 0).sum()), len(levels)).pvalue > 0.01
    used = draw.operations >= 0
    assert scipy.stats.chisquare(np.bincount(used.sum(2).flatten(), minlength=4)[1:]).pvalue > 0.01
    assert bool((used[:, :, :-1] >= used[:, :, 1:]).all())
    assert scipy.stats.chisquare(np.bincount(draw.operations[used], minlength=9)).pvalue > 0.01
    peaked = sample_augmentations(1500, 5.0, 3.0, 3, 3, torch.Generator().manual_seed(3))
    assert scipy.stats.kstest(peaked.weight, scipy.stats.beta(5, 5).cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [1, 3])
def test_batches_of_one_and_odd_ones_repeat_under_one_seed(size):
    model = build_model("preactresnet18_w16", 10)
    images, labels = normalized(byte_images(5, size)), torch.arange(size)
    before, method = torch.get_rng_state(), AugMix(torch.tensor(MEAN), torch.tensor(STD))
    losses = [
        method(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(1)).score(model).loss for _ in range(2)
    ]  # fmt: skip
    assert torch.isfinite(losses[0])
    assert torch.equal(*losses)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 0.0), ("severity", 0.0), ("severity", 11.0), ("num_chains", 0), ("max_depth", 0), ("consistency", -1.0)],
)
def test_parameters_out_of_range_are_refused(name, value):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        AugMix(MEAN, STD, **{name: value})


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="mean and std must have 3 channels, got 1 and 3"):
        AugMix((0.5,), STD)(nn.Identity(), torch.zeros(2, 3, 8, 8), torch.arange(2), num_classes=2)


def test_three_steps_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    for _ in range(3):
        training.fit_step(AugMix(training.data.mean, training.data.std))
    assert np.isfinite(training.epoch_metrics()["train_loss"])
