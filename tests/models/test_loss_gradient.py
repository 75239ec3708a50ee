"""Input gradients in float16 against those in float64: nothing underflows, nothing overflows."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlmix.evaluation import fgsm, pgd
from rlmix.maps.gradient import gradient_map, patch_saliency, saliency, salient_mask
from rlmix.mixing.comixup import clean_pass


def network(weight=1.0, features=1.0):
    """Its mean over 64x64 positions leaves each pixel little: half of the unscaled gradient is below float16's smallest number.

    ``weight`` scales the last layer, ``features`` what enters it.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        model[-1].weight.mul_(weight)
        for parameter in model[2].parameters():
            parameter.mul_(features)
    return model


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 64, 64, generator=generator), torch.randint(4, (16,), generator=generator)


def gradient(model, images, labels):
    inputs = images.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(inputs), labels), inputs)[0]


def in_double(model, images, labels):
    return gradient(copy.deepcopy(model).double(), images.double(), labels)


def wrong(map, exact):
    """Part of the mask's patches that differ."""
    middle = torch.full((len(map),), 0.5)
    masks = [salient_mask(patch_saliency(values.float(), 8), middle) for values in (map, exact)]
    return float((masks[0] != masks[1]).float().mean())


half = torch.autocast("cpu", dtype=torch.float16)
# from gradients that vanish entirely to ones that overflow once they are scaled
scales = pytest.mark.parametrize("scales", [(0.01, 1.0), (1.0, 1.0), (1e4, 1e-3)])


@scales
def test_the_map_under_float16_autocast_is_the_exact_one(scales):
    model, (images, labels) = network(*scales), batch()
    exact = gradient_map(in_double(model, images, labels))
    with half:
        found = saliency(model, images, labels)
    assert found.map.dtype == torch.float32
    assert float((found.map - exact).norm() / exact.norm()) < 0.002
    assert torch.equal(found.map == 0, exact.float() == 0)
    assert wrong(found.map, exact) < 0.01


def test_unscaled_it_would_not_be():
    """The case is one that shows the fault."""
    model, (images, labels) = network(0.01), batch()
    with half:
        unscaled = gradient_map(gradient(model, images, labels))
    assert float((unscaled == 0).float().mean()) > 0.5


def test_the_map_of_a_network_in_float16():
    model, (images, labels) = network(0.5), batch()
    exact = gradient_map(in_double(model, images, labels))
    found = saliency(copy.deepcopy(model).half(), images.half(), labels)
    assert found.map.dtype == found.logits.dtype == torch.float32
    assert float((found.map - exact).norm() / exact.norm()) < 0.01
    assert wrong(found.map, exact) < 0.02


def test_a_certain_classifier_still_has_a_map():
    """Residuals of 1e-7: scaled by the batch size alone they would vanish."""
    model, (images, _) = network(), batch()
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([16.0, 0, 0, 0]))
    labels = torch.zeros(16, dtype=torch.int64)
    exact = gradient_map(in_double(model, images, labels))
    assert float(exact.max()) < 1e-9
    with half:
        assert wrong(saliency(model, images, labels).map, exact) < 0.02


@scales
def test_attacks_under_float16_autocast_go_the_exact_way(scales):
    model, (images, labels) = network(*scales), batch()
    images = images.sigmoid()
    sign = in_double(model, images, labels).sign()
    with half:
        moved = fgsm(model, images, labels, 0.01)
    inside = (images > 0.02) & (images < 0.98)
    same = ((moved - images).sign() == sign)[inside].float().mean()
    assert same > 0.99
    with half:
        assert torch.equal(pgd(model, images, labels, 0.01, 0.01, 1), moved)


@scales
def test_comixups_clean_pass_under_float16_autocast(scales):
    model, (images, labels) = network(*scales), batch()
    exact = gradient_map(in_double(model, images, labels))
    double = copy.deepcopy(model).double()
    F.cross_entropy(double(images.double()), labels).backward()
    with half:
        found = clean_pass(model, images, labels)
    assert wrong(found.map, exact) < 0.01
    for name, parameter in double.named_parameters():
        assert float((found.gradients[name] - parameter.grad).norm() / parameter.grad.norm()) < 0.01, name


def test_nothing_changes_in_float32_and_bfloat16():
    model, (images, labels) = network(), batch()
    assert torch.equal(saliency(model, images, labels).map, gradient_map(gradient(model, images, labels)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = images.detach().requires_grad_()
        (expected,) = torch.autograd.grad(F.cross_entropy(model(inputs).float(), labels), inputs)
        assert torch.equal(saliency(model, images, labels).map, gradient_map(expected))


def test_a_map_that_overflows_at_every_scale_is_not_finite_rather_than_wrong():
    model, (images, labels) = network(1e9), batch()
    with half:
        map = saliency(model, images, labels).map
    assert not map.isfinite().all()
    assert torch.equal(patch_saliency(map, 2), torch.full((16, 2, 2), 0.25))
