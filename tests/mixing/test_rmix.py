"""The drop-in against the equations, step by step; what it draws, and from where."""

import numpy as np
import oracle
import pytest
import torch
from torch import nn

import rlmix
from rlmix.maps.gradient import patch_saliency, salient_mask
from rlmix.mixing.core import mix, sample_pairing, sample_top_k
from rlmix.mixing.rmix import RMix

RULES = ("cut_top", "cut_top_least", "mix_top", "mix_least")


def linear_model(seed: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(3, 2 * 64)) / 8, rng.normal(size=3)  # no saturated softmax: float32 would cancel
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 3))
    model[1].weight.data, model[1].bias.data = torch.tensor(weight).float(), torch.tensor(bias).float()
    return model, weight, bias


@pytest.mark.parametrize("rule", RULES)
def test_drop_in_equals_the_equations_step_by_step(rule):
    seen = set()
    for seed in range(6):
        model, weight, bias = linear_model(seed)
        rng = np.random.default_rng(100 + seed)
        images, labels = rng.normal(size=(6, 2, 8, 8)), rng.integers(0, 3, 6)
        mixed = RMix(num_top_k=5, num_patches=(2, 4, 8), alpha=0.7, rule=rule)(
            model,
            torch.from_numpy(images).float(),
            torch.tensor(labels),
            num_classes=3,
            generator=torch.Generator().manual_seed(seed),
        )
        generator = torch.Generator().manual_seed(seed)
        partner, lam, num_patches = sample_pairing(6, (2, 4, 8), 0.7, generator)
        top_k = sample_top_k(6, 5, generator)
        map = oracle.gradient_map(oracle.linear_gradient(images, labels, weight, bias))
        mask = oracle.salient_mask(oracle.patch_saliency(map, num_patches), top_k.double().numpy())
        expected, targets = oracle.mix(images, np.eye(3)[labels], mask, partner.numpy(), lam, rule)
        np.testing.assert_allclose(mixed.images.numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-5)
        seen.add(num_patches)
    assert len(seen) > 1


def test_drop_in_repeats_with_its_generators_seed_and_moves_no_other_state():
    model, *_ = linear_model(0)
    images, labels = torch.rand(8, 2, 8, 8), torch.arange(8) % 3
    random_state = torch.get_rng_state()
    first, again, other = (
        RMix()(model, images, labels, num_classes=3, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)


def test_drop_in_without_a_generator_follows_the_global_seed():
    model, *_ = linear_model(0)
    images, labels = torch.rand(8, 2, 8, 8), torch.arange(8) % 3
    batches = []
    for _ in range(2):
        torch.manual_seed(11)
        batches.append(RMix()(model, images, labels, num_classes=3).images)
    assert torch.equal(*batches)
    assert not torch.equal(batches[0], RMix()(model, images, labels, num_classes=3).images)


def test_own_generator_for_top_k_leaves_the_pairing_alone():
    model, *_ = linear_model(0)
    images, labels = torch.rand(6, 2, 8, 8), torch.arange(6) % 3
    streams = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)]
    for stream, top_k_seed in zip(streams, (5, 6), strict=True):
        top_k_generator = torch.Generator().manual_seed(top_k_seed)
        RMix()(model, images, labels, num_classes=3, generator=stream, top_k_generator=top_k_generator)
    assert torch.equal(streams[0].get_state(), streams[1].get_state())


def test_drop_in_has_the_papers_settings():
    mixer = RMix()
    assert (mixer.num_top_k, mixer.num_patches, mixer.alpha, mixer.rule) == (10, (2, 4), 1.0, "mix_top")


def test_apply_uses_exactly_what_was_drawn():
    images, labels = torch.rand(4, 2, 8, 8), torch.tensor([0, 1, 2, 1])
    map = torch.rand(4, 8, 8)
    pairing, top_k = sample_pairing(4, (4,), 1.0), torch.tensor([0.0, 0.3, 0.6, 0.9])
    mixed = RMix().apply(images, labels, map, pairing, top_k, num_classes=3)
    mask = salient_mask(patch_saliency(map, 4), top_k)
    expected = mix(images, labels, mask, pairing.partner, pairing.lam, num_classes=3)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"alpha": -1.0}, "alpha must be above 0, got -1.0"),
        ({"alpha": float("nan")}, "alpha must be above 0, got nan"),
        ({"num_top_k": 0}, "num_top_k must be at least 1, got 0"),
        ({"num_patches": ()}, r"num_patches must be one or more numbers of at least 1, got \(\)"),
        ({"num_patches": (2, 0)}, r"num_patches must be one or more numbers of at least 1, got \(2, 0\)"),
        ({"rule": "nope"}, "rule must be one of .*, got 'nope'"),
    ],
)
def test_wrong_parameters_of_the_drop_in_are_named(arguments, message):
    with oracle.unchecked(), pytest.raises(ValueError, match=message):
        rlmix.RMix(**arguments)


def test_more_patches_than_pixels_are_named_by_the_drop_in_whichever_is_drawn():
    model, *_ = linear_model(0)
    for seed in range(8):
        with pytest.raises(ValueError, match=r"num_patches must be in \[1, 8\] where images have 8x8 pixels, got 9, 16"):
            RMix(num_patches=(2, 9, 4, 16))(
                model, torch.rand(2, 2, 8, 8), torch.tensor([0, 1]), num_classes=3, generator=torch.Generator().manual_seed(seed)
            )
