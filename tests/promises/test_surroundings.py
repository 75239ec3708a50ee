"""A loop of somebody's own may set torch as it likes: the transforms mix the same in it."""

import copy
import itertools
import pickle
from contextlib import contextmanager
from types import SimpleNamespace

import oracle
import pytest
import torch
from lightning_fabric import Fabric

import rlmix
from rlmix.envs.credit import CREDITS
from rlmix.mixing.comixup import CoMixup
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


def test_a_state_from_before_the_first_batch_is_gone_back_to():
    model = build_model("preactresnet18_w16", 4)
    mixer = rlmix.RLMix(learn=True, agent=rlmix.PPOConfig(rollout_steps=2), action="top_k_cut", num_patches=(4,))
    state = copy.deepcopy(mixer.state_dict())
    first = learned(mixer, model)
    mixer.load_state_dict(state)
    for own, other in zip(first, learned(mixer, model), strict=True):
        assert torch.equal(own, other)


class Output(torch.nn.Module):
    """A classifier that gives an object, as Hugging Face's do."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.stage1, self.stage2, self.stage3, self.stage4 = (getattr(model, f"stage{number}") for number in range(1, 5))

    def forward(self, images):
        return SimpleNamespace(logits=self.model(images))


@pytest.mark.parametrize("name", NAMES)
def test_a_method_takes_models_that_give_an_object(name):
    batches = []
    for wrap in (lambda model: model, Output):
        torch.manual_seed(0)
        model = build_model("preactresnet18_w16", 4)
        with oracle.unchecked():
            batches.append(mixed_batches(transform(name, model), wrap(model)))
    for expected, found in zip(*batches, strict=True):
        for own, other in zip(expected, found, strict=True):
            assert torch.equal(own, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_transform_is_pickled(name):
    batches = []
    for way in (lambda mixer: mixer, lambda mixer: pickle.loads(pickle.dumps(mixer))):
        torch.manual_seed(0)
        model = build_model("preactresnet18_w16", 4)
        mixer = transform(name, model)
        batches.append(mixed_batches(way(mixer), model, 1)[0])
    for own, other in zip(*batches, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8])
def test_co_mixup_takes_labels_of_any_integer_type(kind):
    model, images = build_model("preactresnet18_w16", 4), IMAGES
    found = [
        CoMixup()(model, images, LABELS.to(dtype), num_classes=4, generator=torch.Generator().manual_seed(0))
        for dtype in (torch.int64, kind)
    ]
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].targets, found[1].targets)


def test_co_mixup_keeps_the_precision_of_fabrics_module():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-true")
    model = fabric.setup_module(build_model("preactresnet18_w16", 4))
    with torch.inference_mode():
        images = IMAGES.clone()
    for given in (IMAGES, images):
        mixed = rlmix.mixer("comixup")(model, given, LABELS, generator=torch.Generator().manual_seed(0))
        loss, logits = mixed.score(model)
        assert loss.isfinite()
        assert logits.shape == (8, 4)


def test_a_credit_of_another_form_is_named_in_a_loop_too(register):
    register(CREDITS, "mean", lambda rewards, partner_of: rewards.mean())
    model = build_model("preactresnet18_w16", 4)
    mixer = rlmix.RLMix(learn=True, credit="mean", num_patches=(4,))
    mixed = mixer(model, IMAGES, LABELS, generator=torch.Generator().manual_seed(0))
    score(mixed, model).loss.backward()
    with pytest.raises(ValueError, match=r"^credit mean must give one number an image, \(8,\), got \(\)$"):
        mixer.feedback()
    with pytest.raises(ValueError, match=r"^credit must be one of"):
        rlmix.RLMix(learn=True, credit="nobody")
