"""Augmentation against a loop over images, its draws, and bytes that come back exactly."""

import numpy as np
import pytest
import scipy.stats
import torch

from rlmix.data.augmentation import CropFlip, crop_flip, denormalize, normalize, sample_crop_flip


def crop_flip_by_loop(images: np.ndarray, draw: CropFlip, padding: int) -> np.ndarray:
    result = np.zeros_like(images)
    for index, image in enumerate(images):
        height, width, _ = image.shape
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        top, left = int(draw.top[index]), int(draw.left[index])
        cropped = padded[top : top + height, left : left + width]
        result[index] = np.fliplr(cropped) if draw.mirror[index] else cropped
    return result


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 10, 1)])
def test_crop_flip_equals_the_loop(padding, flip, shape):
    images = np.random.default_rng(padding).integers(0, 256, (30, *shape), dtype=np.uint8)
    draw = sample_crop_flip(30, padding, flip, torch.Generator().manual_seed(padding))
    result = crop_flip(torch.tensor(images), draw, padding)
    assert result.dtype == torch.uint8
    assert np.array_equal(result.numpy(), crop_flip_by_loop(images, draw, padding))


def test_crop_by_hand():
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)[None, :, :, None].repeat(4, 1, 1, 1)
    draw = CropFlip(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 0]), torch.tensor([False, False, True, True]))
    assert crop_flip(image, draw, 1)[..., 0].tolist() == [[[0, 0], [0, 1]], [[1, 2], [3, 4]], [[4, 3], [0, 0]], [[0, 0], [1, 0]]]


def test_argument_is_not_written_to():
    images = torch.randint(256, (5, 8, 8, 3), dtype=torch.uint8)
    before = images.clone()
    for padding in (0, 2):
        crop_flip(images, sample_crop_flip(5, padding, True, torch.Generator()), padding)
    normalize(images, torch.full((3,), 0.5), torch.full((3,), 0.2))
    assert torch.equal(images, before)


def test_every_offset_is_equally_likely_and_independent_of_the_others():
    draw = sample_crop_flip(20000, 2, True, torch.Generator().manual_seed(0))
    table = np.zeros((5, 5, 2), int)
    np.add.at(table, (draw.top.numpy(), draw.left.numpy(), draw.mirror.int().numpy()), 1)
    assert table.sum() == 20000
    assert scipy.stats.chisquare(table.ravel()).pvalue > 0.01


def test_each_image_has_its_own_draw():
    draw = sample_crop_flip(64, 2, True, torch.Generator().manual_seed(0))
    assert [len(set(part.tolist())) for part in draw] == [5, 5, 2]


def test_without_flip_and_padding_images_stay():
    images = torch.randint(256, (5, 8, 8, 3), dtype=torch.uint8)
    draw = sample_crop_flip(5, 0, False, torch.Generator().manual_seed(0))
    assert torch.equal(crop_flip(images, draw, 0), images)


def test_same_seed_same_draw_and_the_global_state_stays():
    random_state = torch.get_rng_state()
    first, again, other = (sample_crop_flip(50, 4, True, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_flip_does_not_move_the_offsets():
    """So that a run with flip and one without crop alike, and draw alike afterwards."""
    generators = [torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)]
    with_flip, without = (sample_crop_flip(9, 2, flip, g) for flip, g in zip((True, False), generators, strict=True))
    assert torch.equal(with_flip.top, without.top)
    assert torch.equal(with_flip.left, without.left)
    assert not without.mirror.any()
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.4914, 0.2023), (0.1307, 0.3081), (0.999, 0.001), (1 / 3, 0.29)])
def test_every_byte_comes_back(mean, std):
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(2, 1, 1, 3)
    means, stds = torch.tensor([mean, 0.5, 0.0]), torch.tensor([std, 0.25, 1.0])
    normalized = normalize(images, means, stds)
    assert torch.equal(denormalize(normalized, means, stds), images)
    assert torch.equal(denormalize(normalized.contiguous().requires_grad_(), means, stds), images)


def test_normalize_is_the_formula_in_the_models_layout():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.1])
    result = normalize(torch.tensor(images), torch.tensor(mean).float(), torch.tensor(std).float())
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), ((images / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-5)


def test_denormalize_clamps():
    wild = torch.tensor([-100.0, 0.0, 100.0]).reshape(1, 1, 1, 3)
    assert denormalize(wild, torch.tensor([0.5]), torch.tensor([0.2])).flatten().tolist() == [0, 128, 255]
