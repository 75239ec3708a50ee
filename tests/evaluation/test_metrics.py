"""Metrics against NumPy and formulas written by hand."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from rlmix import evaluation as metrics
from rlmix.data.memory import image_data


def random_predictions(seed: int, number: int = 400, num_classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(num_classes, 0.3), number), rng.integers(0, num_classes, number)


@pytest.mark.parametrize("num_bins", [1, 10, 15, 20])
def test_ece_equals_the_loop_over_bins(num_bins):
    for seed in range(5):
        probabilities, labels = random_predictions(seed)
        result = metrics.expected_calibration_error(torch.tensor(probabilities), torch.tensor(labels), num_bins)
        assert result == pytest.approx(oracle.expected_calibration_error(probabilities, labels, num_bins), abs=1e-9)


def test_ece_takes_a_confidence_of_exactly_one():
    """One of four is wrong at confidence 1: the gap is 25 %."""
    probabilities = torch.eye(3)[[0, 1, 2, 0]]
    assert metrics.expected_calibration_error(probabilities, torch.tensor([0, 1, 2, 1])) == 25
    mixed = torch.tensor([[1.0, 0.0], [0.75, 0.25]])
    assert metrics.expected_calibration_error(mixed, torch.tensor([0, 0])) == pytest.approx(100 * 0.25 / 2)


@pytest.mark.parametrize("num_bins", [4, 10, 15])
def test_ece_counts_a_bins_upper_edge_to_it(num_bins):
    """At confidence i/M, right, with a wrong neighbour half a bin below, a right one above: the bin decides the sum."""
    for edge in range((num_bins + 1) // 2, num_bins):
        confidence = np.array([edge, edge - 0.5, edge + 0.5]) / num_bins
        confidence = np.maximum(confidence, 0.5)
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        labels = np.array([0, 1, 0])
        expected = oracle.expected_calibration_error(probabilities, labels, num_bins)
        result = metrics.expected_calibration_error(torch.tensor(probabilities), torch.tensor(labels), num_bins)
        assert result == pytest.approx(expected, abs=1e-9)


def test_ece_by_hand():
    """Bins of 0.5: (0, 0.5] holds nothing, (0.5, 1] two at 0.8 and 0.6, one right: |1 - 1.4| / 2 = 20 %."""
    probabilities = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    assert metrics.expected_calibration_error(probabilities, torch.tensor([0, 0]), 2) == pytest.approx(20, abs=1e-5)


def test_reliability_bins_hold_the_diagrams_data():
    """Three bins of a third: two images at 0.6 (one right), one at 0.9 (right), none in the first."""
    probabilities = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], dtype=torch.float64)
    bins = metrics.reliability_bins(probabilities, torch.tensor([0, 0, 1]), 3).as_dict()
    assert bins["edges"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert bins["count"] == [0, 2, 1]
    assert bins["confidence"] == [None, pytest.approx(0.6), pytest.approx(0.9)]
    assert bins["accuracy"] == [None, 0.5, 1.0]


def test_topk_of_more_than_there_are_classes_is_all():
    assert int(metrics.topk_correct(torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), 5)) == 6


def test_logits_that_are_not_a_number_are_right_about_nothing():
    logits = torch.eye(10)
    logits[:4] = torch.nan
    logits[4, 9] = torch.nan
    result = metrics.accuracy(logits, torch.arange(10))
    assert result["test_top1"] == result["test_top5"] == 50


def test_accuracy_is_in_percent():
    logits = torch.zeros(4, 10)
    logits[:, :6] = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    labels = torch.tensor([0, 4, 5, 9])
    result = metrics.accuracy(logits, labels)
    assert result["test_top1"] == 25
    assert result["test_top5"] == 50
    probabilities = oracle.softmax(logits.double().numpy())
    assert result["test_loss"] == pytest.approx(-np.log(probabilities[np.arange(4), labels]).mean(), rel=1e-5)


def linear_model(seed: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(4, 3 * 16)), rng.normal(size=4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 4))
    model[1].weight.data, model[1].bias.data = torch.tensor(weight).float(), torch.tensor(bias).float()
    return model, weight, bias


@pytest.mark.parametrize("epsilon", [0.0, 8 / 255, 0.5])
def test_fgsm_equals_the_formula_of_a_linear_model(epsilon):
    model, weight, bias = linear_model(0)
    rng = np.random.default_rng(1)
    images, labels = rng.random((6, 3, 4, 4)), rng.integers(0, 4, 6)
    images[0, 0, 0], images[1, 0, 0] = 0.0, 1.0  # at the border, where the step is clipped
    gradient = oracle.linear_gradient(images, labels, weight, bias)
    inputs = torch.tensor(images).float()
    with torch.no_grad():
        moved = metrics.fgsm(model, inputs, torch.tensor(labels), epsilon)
    np.testing.assert_allclose(moved.numpy(), np.clip(images + epsilon * np.sign(gradient), 0, 1), atol=1e-6)
    assert float((moved - inputs).abs().max()) <= epsilon + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert not moved.requires_grad
    assert torch.equal(inputs, torch.tensor(images).float())
    assert all(parameter.grad is None for parameter in model.parameters())


def small_network(seed: int = 0) -> nn.Module:
    """Of normalised pixels, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
        )
    return metrics.PixelModel(model, torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.1])).eval()


def pixels_of(number: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (number, 3, 8, 8), generator=generator).float() / 255
    return images, torch.randint(4, (number,), generator=generator)


def test_fgsm_equals_the_attack_written_out_to_the_bit():
    model, (images, labels) = small_network(), pixels_of(6)
    inputs = images.clone().requires_grad_()
    (-torch.log_softmax(model(inputs), 1)[torch.arange(6), labels]).mean().backward()
    step = torch.where(inputs.grad > 0, 8 / 255, torch.where(inputs.grad < 0, -8 / 255, 0.0))
    expected = torch.minimum(torch.maximum(images + step, torch.tensor(0.0)), torch.tensor(1.0))
    moved = metrics.fgsm(model, images, labels)
    assert torch.equal(moved, expected)
    assert float((moved.double() - images.double()).abs().max()) <= 8 / 255 + 1e-7


@pytest.mark.parametrize("start", [True, False])
def test_pgd_equals_the_loop_written_out(start):
    model, (images, labels) = small_network(), pixels_of(6)
    noise = (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 1) * 8 / 255 if start else None
    current = images.numpy().astype(np.float64) + (0 if noise is None else noise.numpy())
    low, high = (np.clip(images.double().numpy() + sign * 8 / 255, 0, 1) for sign in (-1, 1))
    current = np.clip(current, 0, 1)
    for _ in range(7):
        inputs = torch.tensor(current).float().requires_grad_()
        nn.functional.nll_loss(model(inputs).log_softmax(1), labels).backward()
        current = np.clip(current + 2 / 255 * np.sign(inputs.grad.double().numpy()), low, high)
    moved = metrics.pgd(model, images, labels, noise=noise)
    np.testing.assert_allclose(moved.numpy(), current, atol=1e-6)
    assert float((moved - images).abs().max()) <= 8 / 255 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


def test_attacks_equal_torchattacks_to_the_bit():
    torchattacks = pytest.importorskip("torchattacks")
    model, (images, labels) = small_network(), pixels_of(6)
    assert torch.equal(metrics.fgsm(model, images, labels), torchattacks.FGSM(model, eps=8 / 255)(images, labels))
    theirs = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=7, random_start=False)(images, labels)
    torch.testing.assert_close(metrics.pgd(model, images, labels), theirs, rtol=0, atol=1e-6)


def test_more_steps_are_the_harder_attack_and_repeat():
    data, model = small_data(8), small_network().model
    assert metrics.pgd_error(model, data) == metrics.pgd_error(model, data)
    images, labels = pixels_of(40, seed=2)
    model = small_network(2)
    losses = [
        float(nn.functional.cross_entropy(model(moved), labels).detach())
        for moved in (images, metrics.fgsm(model, images, labels), metrics.pgd(model, images, labels))
    ]
    assert losses[0] < losses[1] < losses[2] * 1.001


def small_data(size: int = 4):
    """Of 4x4 pixels, which is less than a data set is loaded with."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    data = image_data(images, np.arange(20) % 4, images[:10], np.arange(10) % 4)
    return replace(data, train_images=data.train_images[:, :size, :size], test_images=data.test_images[:, :size, :size])


def test_pixel_model_normalises_inside():
    model, weight, bias = linear_model(0)
    pixels, mean, std = np.random.default_rng(0).random((5, 3, 4, 4)), np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.1])
    wrapped = metrics.PixelModel(model, torch.tensor(mean).float(), torch.tensor(std).float())
    normalized = (pixels - mean[:, None, None]) / std[:, None, None]
    expected = normalized.reshape(5, -1) @ weight.T + bias
    np.testing.assert_allclose(wrapped(torch.tensor(pixels).float()).detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("batch_size", [3, 500])
def test_fgsm_error_equals_the_formula_of_a_linear_model(batch_size):
    model, weight, bias = linear_model(3)
    data = small_data()
    mean, std = (value.double().numpy()[:, None, None] for value in (data.mean, data.std))
    pixels, labels = data.test_images.double().permute(0, 3, 1, 2).numpy() / 255, data.test_labels.numpy()
    gradient = oracle.linear_gradient((pixels - mean) / std, labels, weight, bias) / std
    moved = np.clip(pixels + 8 / 255 * np.sign(gradient), 0, 1)
    predicted = (((moved - mean) / std).reshape(10, -1) @ weight.T + bias).argmax(1)
    assert metrics.fgsm_error(model, data, batch_size=batch_size) == pytest.approx(100 * (predicted != labels).mean())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("measure", [metrics.fgsm_error, metrics.predict])
def test_measuring_leaves_the_model_as_found(training, measure):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 4)).train(training)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    first, second = measure(model, small_data()), measure(model, small_data())
    assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))  # eval mode: no dropout
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_former_mode_comes_back_after_an_error():
    model = nn.Linear(2, 2).train()
    data = small_data()
    with pytest.raises(RuntimeError):
        metrics.predict(model, data)  # the images have other shapes
    assert model.training


def test_predict_equals_the_model_batch_by_batch():
    model, weight, bias = linear_model(0)
    data = small_data()
    images = (data.test_images.double() / 255 - data.mean) / data.std
    expected = images.permute(0, 3, 1, 2).reshape(10, -1).numpy() @ weight.T + bias
    np.testing.assert_allclose(metrics.predict(model, data, batch_size=3).numpy(), expected, atol=1e-4)
