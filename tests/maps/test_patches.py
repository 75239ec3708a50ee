"""Images whose sides no number of patches divides: cells, shares and labels against loops over pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import NETWORK, toy_config

from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.maps.gradient import patch_saliency
from rlmix.maps.patches import enlarge, patch_sides, pixel_share, pool
from rlmix.mixing.core import mix
from rlmix.mixing.rmix import RMix
from rlmix.scripts import train as command

CASES = [(30, 30, 4), (28, 28, 8), (33, 50, 7), (9, 31, 8), (250, 150, 16), (8, 8, 8), (13, 11, 1), (32, 24, 4)]
cut = pytest.mark.parametrize(("height", "width", "num_patches"), CASES)


def cells(length, num_patches):
    """Which patch each pixel lies in: the last one that has begun."""
    starts = [int(np.floor(index * length / num_patches)) for index in range(num_patches)]
    return [max(index for index, start in enumerate(starts) if start <= pixel) for pixel in range(length)]


def test_sides_of_thirty_pixels_in_four():
    assert patch_sides(30, 4) == [7, 8, 7, 8]
    assert patch_sides(32, 4) == [8] * 4


@cut
def test_pooled_maps_equal_a_loop_over_pixels(height, width, num_patches):
    maps = np.random.default_rng(height).gamma(0.5, size=(2, height, width))
    total, count = np.zeros((2, num_patches, num_patches)), np.zeros((num_patches, num_patches))
    rows, columns = cells(height, num_patches), cells(width, num_patches)
    for y in range(height):
        for x in range(width):
            total[:, rows[y], columns[x]] += maps[:, y, x]
            count[rows[y], columns[x]] += 1
    expected = total / count
    np.testing.assert_allclose(pool(torch.tensor(maps).float(), num_patches).numpy(), expected, rtol=1e-5)
    patches = patch_saliency(torch.tensor(maps).float(), num_patches).numpy()
    np.testing.assert_allclose(patches, expected / expected.sum((1, 2), keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(patches.sum((1, 2)), 1, rtol=1e-6)


@cut
def test_enlarged_patches_cover_the_pixels_that_were_pooled(height, width, num_patches):
    patches = torch.arange(2 * num_patches**2).reshape(2, num_patches, num_patches)
    expected = patches.numpy()[:, cells(height, num_patches)][:, :, cells(width, num_patches)]
    assert np.array_equal(enlarge(patches, (height, width)).numpy(), expected)
    weights = torch.rand(2, num_patches, num_patches)
    torch.testing.assert_close(pixel_share(weights, (height, width)), enlarge(weights, (height, width)).mean((1, 2)))


def test_where_patches_divide_the_size_nothing_has_changed_to_the_bit():
    maps, weights = torch.rand(3, 24, 32), torch.rand(3, 4, 4)
    assert torch.equal(pool(maps, 4), F.avg_pool2d(maps[:, None], (6, 8))[:, 0])
    assert torch.equal(enlarge(weights, (24, 32)), weights.repeat_interleave(6, 1).repeat_interleave(8, 2))
    assert torch.equal(pixel_share(weights, (24, 32)), weights.mean((1, 2)))


@pytest.mark.parametrize("rule", ["cut_top", "cut_top_least", "mix_top", "mix_least"])
@cut
def test_a_targets_weight_is_the_share_of_pixels_its_image_has(rule, height, width, num_patches):
    """Image i has the constant value i + 1: the mixed image tells who gave what, its mean which share."""
    images = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None].expand(3, 1, height, width)
    mask = torch.rand(3, num_patches, num_patches, generator=torch.Generator().manual_seed(1)) < 0.5
    partner = torch.tensor([1, 2, 0])
    mixed = mix(images, torch.eye(3), mask, partner, 0.3, rule)
    for index, other in enumerate(partner.tolist()):
        own = (mixed.images[index, 0].double() - (other + 1)) / (index - other)
        np.testing.assert_allclose(float(mixed.targets[index, index]), float(own.mean()), atol=1e-6)
    np.testing.assert_allclose(mixed.targets.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("size", [(28, 28), (30, 30), (33, 50), (150, 250)])
def test_the_drop_in_takes_any_size(size):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    images, labels = torch.rand(4, 1, *size), torch.tensor([0, 1, 2, 1])
    for seed in range(4):
        mixed = RMix(num_patches=(2, 4, 7))(model, images, labels, num_classes=3, generator=torch.Generator().manual_seed(seed))
        assert mixed.images.shape == images.shape
        np.testing.assert_allclose(mixed.targets.sum(1), 1, rtol=1e-6)


def test_an_environment_of_thirty_pixels(tmp_path):
    config = toy_config(tmp_path, 30, batch_size=4, num_train=8, num_classes=3, num_patches=(2, 4))
    env = RLMixEnv(config)
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["saliency"].sum((1, 2)), 1, rtol=1e-5)
    for _ in range(2):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert 0 <= reward <= 1
        mixed = env.process.outcome.mixed
        assert mixed.images.shape == (4, 3, 30, 30)


def test_the_label_share_that_a_reward_reads_is_the_targets(tmp_path):
    config = toy_config(tmp_path, 30, batch_size=4, num_train=8, num_classes=3, reward="cosine_shares", num_patches=(4,))
    process, shares = MixingProcess(config), []
    process.reset()
    decision, mixing = process.observe(), process._mix
    process._mix = lambda *args: shares.append(mixing(*args)[1]) or mixing(*args)
    process.act(torch.tensor([0.0, 0.3, 0.6, 0.9]))
    targets, labels, partner = process.outcome.mixed.targets, decision.batch.labels, decision.pairing.partner
    for row in range(4):
        share = float(shares[0][row]) if labels[row] != labels[partner[row]] else 1.0
        assert float(targets[row, labels[row]]) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("method", ["rmix", "rlmix"])
def test_the_train_command_on_images_of_28_pixels(method, tmp_path):
    config = toy_config(tmp_path, 28, num_train=16)
    args = ["--data", config.data.name, "--model", NETWORK, "--epochs", "1", "--batch-size", "8", "--method", method]
    command.main([*args, "--device", "cpu", "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "result.json").exists()
