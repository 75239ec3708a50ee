"""What is known of the methods, where images of one colour each can tell: a pixel of a mixture shows whose it is, and how much."""

import pytest
import torch

from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import Objective
from rlmix.mixing.registry import METHODS, Setting
from rlmix.mixing.rmix import RMix
from rlmix.mixing.traits import TRAITS, spell
from rlmix.models import build_model

SHOWN = ("vanilla", "input_mixup", "cutout", "cutmix", "saliencymix", "puzzlemix", "comixup", "automix", "rmix")
"""Methods that mix images and not features, and do not change colours."""


def build(name, model):
    if name == "rmix":
        return RMix()
    plain = torch.zeros(3), torch.ones(3)
    setting, known = Setting(model, (16, 16), *plain, "npz", 10, 0), METHODS[name]
    return known.for_training(setting) if hasattr(known, "for_training") else known()


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_method_does_to_images_and_labels(name):
    model = build_model("preactresnet18_w16", 3)
    method, labels = build(name, model), torch.arange(3)
    images = torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16).contiguous()  # image i has nothing but channel i
    generator = torch.Generator().manual_seed(0)
    full, dropped, mixed, own_loss = True, False, False, False
    for _ in range(12):
        found = method(model, images, labels, num_classes=3, generator=generator)
        own_loss |= isinstance(found, Objective)
        assert isinstance(found, Mixed | Objective)
        assert found.images is not None
        weights = found.images.detach()[:3]
        full &= bool(torch.allclose(weights.sum(1), torch.ones(len(weights), 16, 16), atol=1e-5))
        own, has_label = weights[range(len(weights)), range(len(weights))], found.targets[:3].diagonal() > 0
        dropped |= bool((own[has_label] == 0).any())
        mixed |= bool(((found.targets > 0).sum(1) > 1).any())
    traits = TRAITS[name]
    assert (full, dropped, mixed) == (traits.full_image, traits.dropout, traits.mixed)
    assert traits.second_objective or not own_loss


def test_every_method_is_described():
    assert TRAITS.keys() == {*METHODS, "rmix", "rlmix"}
    assert [spell(trait) for trait in (True, False, None)] == ["yes", "no", "?"]
