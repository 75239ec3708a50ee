"""Every method as a transform in a loop of one's own."""

import pytest
import torch
from torch import nn

import rlmix
from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import Objective, score
from rlmix.mixing.registry import METHODS
from rlmix.models import build_model

OWN_LOSS = {"manifold_mixup", "automix", "alignmix", "augmix", "comixup"}


def needs(name, model):
    if name == "automix":
        return {"model": model, "num_steps": 4, "image_size": (16, 16)}
    return {"mean": [0.5] * 3, "std": [0.25] * 3} if name == "augmix" else {}


@pytest.mark.parametrize("name", [*METHODS, "rmix"])
def test_images_and_targets_or_a_loss_of_its_own_without_counting_classes(name):
    model = build_model("preactresnet18_w16", 5).train()
    mixer, images = rlmix.mixer(name, **needs(name, model)), torch.rand(8, 3, 16, 16)
    labels, kinds = (torch.arange(8) % 5).to(torch.int32), set()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    draw, same = (torch.Generator().manual_seed(0) for _ in range(2))
    for step in range(6):
        mixed = mixer(model, images, labels, generator=draw)
        if step == 0 and name not in OWN_LOSS:
            plain = mixer.method(model, images, labels.long(), num_classes=5, generator=same)
            assert torch.equal(mixed.images, plain.images)
            assert torch.equal(mixed.targets, plain.targets)
        kinds.add(type(mixed))
        loss, logits = (
            score(mixed, model) if name in OWN_LOSS else (nn.functional.cross_entropy(model(mixed.images), mixed.targets), None)
        )
        assert loss.isfinite()
        assert logits is None or logits.shape[1] == 5
        model.load_state_dict(before)
    assert model.training
    assert kinds <= ({Mixed, Objective} if name in OWN_LOSS else {Mixed})
    assert name not in OWN_LOSS or Objective in kinds


def test_counting_classes_leaves_the_model_and_the_random_state():
    model, state = build_model("preactresnet18_w16", 5).train(), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mixed = rlmix.mixer("vanilla")(model, torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert mixed.targets.shape == (4, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cutmx", {}, "method must be one of .*did you mean 'cutmix'"),
        ("cutmix", {"probabilty": 0.5}, "hyperparameter of cutmix must be one of alpha, probability, got 'probabilty'"),
        ("cutmix", {"probability": 1.5}, r"probability must be in \[0, 1\], got 1.5"),
        ("augmix", {}, "mean, std must be given to augmix, which cannot do without"),
        ("automix", {}, "model, num_steps must be given to automix, which cannot do without"),
        ("rmix", {"alpha": 0}, "alpha must be above 0, got 0"),
    ],
)
def test_what_is_wrong_is_named(name, options, message):
    from oracle import unchecked

    with unchecked(), pytest.raises(ValueError, match=message):
        rlmix.mixer(name, **options)
