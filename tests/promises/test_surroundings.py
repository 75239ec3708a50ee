"""A loop of somebody's own may set torch as it likes: the transforms mix the same in it."""

import itertools
from contextlib import contextmanager

import oracle
import pytest
import torch

import rlmix
from rlmix.mixing.objective import score
from rlmix.mixing.registry import METHODS
from rlmix.models import build_model

REQUIRED = {"automix": {"num_steps": 10}, "augmix": {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}}
NAMES = ["rmix", *METHODS]


@contextmanager
def default_dtype(kind):
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SURROUNDINGS = {
    "float64 by default": lambda: default_dtype(torch.float64),
    "another device by default": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
}


IMAGES, LABELS = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def transform(name, model):
    required = REQUIRED.get(name, {}) | ({"model": model} if name == "automix" else {})
    return rlmix.mixer(name, **required)


def mixed_batches(mixer, model, number=3):
    """Images (none of features that are mixed), targets and loss of so many batches."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(number):
        mixed = mixer(model, IMAGES, LABELS, generator=draw)
        found.append([*([] if mixed.images is None else [mixed.images]), mixed.targets, score(mixed, model).loss])
    return found


@pytest.mark.parametrize("around", SURROUNDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_method_mixes_the_same_whatever_is_set_around_it(name, around):
    batches = []
    for within in (False, True):
        torch.manual_seed(0)
        model = build_model("preactresnet18_w16", 4)
        mixer = transform(name, model)
        with oracle.unchecked(), SURROUNDINGS[around]() if within else torch.enable_grad():
            batches.append(mixed_batches(mixer, model))
    for expected, found in zip(*batches, strict=True):
        for own, other in zip(expected, found, strict=True):
            assert other.dtype == torch.float32
            assert torch.equal(own, other)


def learned(mixer, model, number=4):
    """What a policy chose and was paid in so many batches, of which two make a rollout; and what it is after that."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(number):
        mixed = mixer(model, IMAGES, LABELS, generator=draw)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(mixed, model).loss, mixed.images)
        found += [mixed.images.detach(), mixed.targets, mixer.feedback(gradient)]
    return found + list(mixer.learner.ppo.policy.parameters())


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_a_policy_learns_the_same_whatever_is_set_around_it(around, tmp_path):
    outcomes = []
    for within in (False, True):
        model = build_model("preactresnet18_w16", 4)
        with oracle.unchecked(), SURROUNDINGS[around]() if within else torch.enable_grad():
            mixer = rlmix.RLMix(learn=True, agent=rlmix.PPOConfig(rollout_steps=2), action="top_k_cut", num_patches=(4,))
            outcomes.append(learned(mixer, model))
        mixer.save(tmp_path / "policy.zip")
        model = build_model("preactresnet18_w16", 4)
        with oracle.unchecked(), SURROUNDINGS[around]() if within else torch.enable_grad():
            frozen = rlmix.RLMix(tmp_path / "policy.zip")
            mixed = frozen(model, IMAGES, LABELS, generator=torch.Generator().manual_seed(0))
            outcomes[-1] += [mixed.images, mixed.targets]
    for own, other in zip(*outcomes, strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(own, other)


def test_a_policy_learns_in_float32_within_a_callers_autocast():
    model, draw = build_model("preactresnet18_w16", 4), torch.Generator().manual_seed(0)
    mixer = rlmix.RLMix(learn=True, agent=rlmix.PPOConfig(rollout_steps=2), num_patches=(4,))
    weights = []
    for _ in range(5):
        with torch.autocast("cpu", torch.bfloat16):
            mixed = mixer(model, IMAGES, LABELS, generator=draw)
            loss = score(mixed, model).loss
        loss.backward()
        mixer.feedback()
        weights.append([weight.detach().clone() for weight in mixer.learner.ppo.policy.parameters()])
    assert mixer.learner.num_updates == 2
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights[-1])
    changed = [any(not torch.equal(*pair) for pair in zip(*steps, strict=True)) for steps in itertools.pairwise(weights)]
    assert changed == [False, True, False, True]
