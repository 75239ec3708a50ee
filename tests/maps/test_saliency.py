"""Eq. 2 to 4 against NumPy, and that the saliency pass leaves everything as found."""

import copy

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlmix.maps.gradient import gradient_map, patch_saliency, saliency, salient_mask
from rlmix.mixing.core import top_k_values

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def small_net(seed: int = 0) -> nn.Module:
    """Batch norm, dropout, strides: whatever a saliency pass could disturb."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def small_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 2, 6, 6, generator=generator), torch.tensor([0, 2, 1, 2])


def test_map_equals_the_hand_derived_gradient_of_a_linear_model():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        channels = 1 + seed % 3
        images = rng.normal(size=(5, channels, 4, 6))
        labels = rng.integers(0, 7, 5)
        weight, bias = rng.normal(size=(7, channels * 24)), rng.normal(size=7)
        model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 24, 7))
        model[1].weight.data, model[1].bias.data = torch.tensor(weight).float(), torch.tensor(bias).float()
        result = saliency(model, torch.tensor(images).float(), torch.tensor(labels))
        expected = oracle.gradient_map(oracle.linear_gradient(images, labels, weight, bias))
        np.testing.assert_allclose(result.map.numpy(), expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result.logits.numpy(), images.reshape(5, -1) @ weight.T + bias, atol=1e-5)


def test_map_of_one_linear_image_by_hand():
    """Two classes, weights 0 and w: the gradient is p1 * w for label 0, with p1 = 1/2 at x = 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.0] * 8, [3.0, 0.0, 0.0, 1.0, 4.0, 0.0, 2.0, 1.0]])
    map = saliency(model, torch.zeros(1, 2, 2, 2), torch.tensor([0])).map
    expected = torch.tensor([[[5.0, 0.0], [2.0, 2**0.5]]]) / 2 / 2**0.5
    torch.testing.assert_close(map, expected)


@pytest.mark.parametrize("training", [True, False])
def test_map_equals_finite_differences_through_batch_norm(training):
    """In training mode the batch's statistics depend on the pixels; that is part of the gradient."""
    model = small_net()
    model[3].p = 0.0
    model[1].running_mean += 0.3
    model.train(training)
    images, labels = small_batch()
    double = copy.deepcopy(model).double()

    def loss(pixels: np.ndarray) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(copy.deepcopy(double)(torch.tensor(pixels)), labels))

    expected = oracle.gradient_map(oracle.finite_differences(loss, images.double().numpy()))
    np.testing.assert_allclose(saliency(model, images, labels).map.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("preset", [True, False])
def test_model_and_random_state_are_left_as_found(training, preset):
    model = small_net().train(training)
    model[1].train(not training)  # a frozen batch norm in a training model, and the other way round
    if preset:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.25)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    images, labels = small_batch()
    before = images.clone()
    random_state = torch.get_rng_state()
    saliency(model, images, labels)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert model[1].track_running_stats
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for parameter in model.parameters():
        assert torch.equal(parameter.grad, torch.full_like(parameter, 0.25)) if preset else parameter.grad is None
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None


def test_batch_norm_is_as_found_after_a_model_that_fails():
    model = small_net()
    with pytest.raises(RuntimeError):
        saliency(model, torch.zeros(2, 2, 8, 8), torch.tensor([0, 1]))  # the linear layer wants 6x6
    assert model[1].track_running_stats
    assert int(model[1].num_batches_tracked) == 0


def test_dropout_draws_the_same_as_the_step_that_follows():
    """The random state is restored, so the training step sees the masks that the saliency pass saw."""
    model, (images, labels) = small_net(), small_batch()
    torch.manual_seed(5)
    seen = saliency(model, images, labels).logits
    assert torch.equal(model(images).detach(), seen)


@pytest.mark.parametrize("training", [True, False])
def test_works_under_no_grad_and_with_frozen_weights(training):
    model, (images, labels) = small_net().train(training), small_batch()
    expected = saliency(model, images, labels)
    with torch.no_grad():
        result = saliency(model, images, labels)
        assert not torch.is_grad_enabled()
    assert torch.equal(result.map, expected.map)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    frozen = saliency(model, images.requires_grad_(), labels)
    assert torch.equal(frozen.map, expected.map)
    assert images.grad is None
    assert not result.map.requires_grad
    assert not result.logits.requires_grad


def test_float32_under_bf16_autocast_and_close_to_the_float32_map():
    model, (images, labels) = small_net().eval(), small_batch()
    exact = saliency(model, images, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = saliency(model, images, labels)
    assert result.map.dtype == result.logits.dtype == torch.float32
    assert float((result.map - exact.map).norm() / exact.map.norm()) < 0.05
    assert not torch.equal(result.map, exact.map)  # autocast did reach the model


@pytest.mark.parametrize("num_patches", [1, 2, 3, 4, 6, 12])
def test_patches_equal_the_loop(num_patches):
    for seed in range(3):
        maps = np.random.default_rng(seed).gamma(0.5, size=(5, 12, 24))
        result = patch_saliency(torch.tensor(maps).float(), num_patches)
        np.testing.assert_allclose(result.numpy(), oracle.patch_saliency(maps, num_patches), atol=1e-5)
        np.testing.assert_allclose(result.sum((1, 2)).numpy(), 1, atol=1e-6)


def test_patches_by_hand():
    map = torch.tensor([[[1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0], [5.0, 1.0, 0.0, 8.0], [1.0, 1.0, 0.0, 0.0]]])
    torch.testing.assert_close(patch_saliency(map, 2), torch.tensor([[[1 / 6, 1 / 6], [1 / 3, 1 / 3]]]))


def test_zero_and_non_finite_maps_become_uniform_and_others_stay():
    good = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    nan, inf = good.clone(), good.clone()
    nan[3, 3], inf[0, 7] = float("nan"), float("inf")
    result = patch_saliency(torch.stack([torch.zeros(8, 8), good, nan, inf]), 4)
    assert torch.equal(result[[0, 2, 3]], torch.full((3, 4, 4), 1 / 16))
    np.testing.assert_allclose(result[1].numpy(), oracle.patch_saliency(good[None].double().numpy(), 4)[0], atol=1e-6)
    assert salient_mask(result, torch.full((4,), 0.5))[[0, 2, 3]].all()  # ties: all at their quantile


@pytest.mark.parametrize("num_patches", [1, 2, 4, 8])
@pytest.mark.parametrize("num_top_k", [1, 2, 10])
def test_mask_equals_numpys_quantile(num_patches, num_top_k):
    rng = np.random.default_rng(num_patches * 100 + num_top_k)
    top_k = top_k_values(num_top_k)[rng.integers(0, num_top_k, 40)]
    patches = patch_saliency(torch.tensor(rng.gamma(1.0, size=(40, 8, 8))).float(), num_patches)
    expected = oracle.salient_mask(patches.double().numpy(), top_k.double().numpy())
    assert np.array_equal(salient_mask(patches, top_k).numpy(), expected)


def test_mask_by_hand():
    patches = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]).repeat(5, 1, 1)
    mask = salient_mask(patches, torch.tensor([0.0, 0.2, 0.5, 0.7, 0.99]))
    assert mask.flatten(1).int().tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_mask_with_ties_equals_torch_quantile():
    patches = torch.tensor([[[1.0, 2.0, 2.0], [2.0, 3.0, 3.0], [0.0, 0.0, 2.0]]]).repeat(10, 1, 1) / 15
    top_k = top_k_values(10)
    for row, value in zip(salient_mask(patches, top_k), top_k, strict=True):
        assert torch.equal(row, patches[0] >= torch.quantile(patches[0], value))


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    num_patches=st.sampled_from([1, 2, 4, 8]),
    scale=st.sampled_from([2.0**-40, 2.0**-10, 0.5, 2.0, 2.0**10, 2.0**40]),
    top_k=st.floats(0, 0.99),
)
def test_masks_do_not_depend_on_the_scale_of_the_gradient(seed, num_patches, scale, top_k):
    """Exactly, for powers of two: no rounding hides anything."""
    gradient = torch.tensor(np.random.default_rng(seed).normal(size=(3, 2, 8, 8))).float()
    patches = patch_saliency(gradient_map(gradient), num_patches)
    scaled = patch_saliency(gradient_map(scale * gradient), num_patches)
    assert torch.equal(patches, scaled)
    quantiles = torch.full((3,), top_k)
    assert torch.equal(salient_mask(patches, quantiles), salient_mask(scaled, quantiles))


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_patches_do_not_depend_on_any_scale(seed, scale):
    gradient = torch.tensor(np.random.default_rng(seed).normal(size=(3, 2, 8, 8))).float()
    patches, scaled = (patch_saliency(gradient_map(factor * gradient), 4) for factor in (1.0, scale))
    np.testing.assert_allclose(patches.numpy(), scaled.numpy(), rtol=1e-5)


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), num_patches=st.sampled_from([2, 4, 8]))
def test_higher_top_k_never_adds_a_patch_and_the_largest_always_stays(seed, num_patches):
    patches = torch.tensor(np.random.default_rng(seed).random((1, num_patches, num_patches))).float()
    previous = torch.ones_like(patches, dtype=torch.bool)
    for value in top_k_values(10):
        mask = salient_mask(patches, value[None])
        assert not (mask & ~previous).any()
        assert mask.flatten()[patches.argmax()]
        previous = mask


@pytest.mark.parametrize("value", [1.0, -0.1, 1.5, float("nan")])
def test_top_k_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=rf"top_k must be in \[0, 1\), got {value}"):
        salient_mask(torch.rand(2, 2, 2), torch.tensor([0.5, value]))


@pytest.mark.parametrize("wrong", [1.0, -0.1, 1.5])
def test_a_top_k_out_of_range_is_named_beside_one_of_zero(wrong):
    with pytest.raises(ValueError, match=rf"top_k must be in \[0, 1\), got {wrong}"):
        salient_mask(torch.rand(3, 2, 2), torch.tensor([0.0, wrong, 0.5]))


@pytest.mark.parametrize("num_patches", [0, -1, 9, 16])
def test_num_patches_out_of_range_are_named(num_patches):
    with pytest.raises(ValueError, match=rf"num_patches must be in \[1, 8\] where images have 8x12 pixels, got {num_patches}$"):
        patch_saliency(torch.rand(2, 8, 12), num_patches)


def test_wrong_shapes_are_named():
    model, (images, labels) = small_net(), small_batch()
    with oracle.unchecked():
        with pytest.raises(ValueError, match=r"images must have shape .* got \(4, 2, 6\)"):
            saliency(model, images[..., 0], labels)
        with pytest.raises(ValueError, match=r"labels must have shape \(4,\) or \(4, classes\), got \(3,\)"):
            saliency(model, images, labels[:3])
        with pytest.raises(ValueError, match=r"top_k must have shape \(4,\), got \(3,\)"):
            salient_mask(torch.rand(4, 2, 2), torch.rand(3))
