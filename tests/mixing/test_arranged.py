"""One partner and one lam for every method, so that their pictures can be compared."""

import pytest
import torch

from rlmix.experiments.gallery import LAM, always_mixing, strips, under
from rlmix.mixing.core import Arranged, sample_lam, sample_partner
from rlmix.mixing.registry import METHODS
from rlmix.models import build_model
from rlmix.training.trainer import Training


@pytest.mark.parametrize("name", ["input_mixup", "cutmix", "manifold_mixup", "alignmix", "puzzlemix", "saliencymix"])
def test_methods_take_the_partners_and_the_lam_that_are_arranged(name, monkeypatch):
    monkeypatch.setattr(torch, "randperm", lambda *args, **options: pytest.fail("drawn"))
    draw = Arranged(torch.tensor([1, 2, 0]), 0.25, seed=3)
    assert (sample_partner(3, draw).tolist(), sample_lam(1.0, draw)) == ([1, 2, 0], 0.25)
    images, labels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    method = always_mixing(METHODS[name]())
    mixed = method(build_model("preactresnet18_w16", 3), images, labels, num_classes=3, generator=draw)
    if name == "input_mixup":
        torch.testing.assert_close(mixed.images, 0.25 * images + 0.75 * images[[1, 2, 0]])
        torch.testing.assert_close(mixed.targets, 0.25 * torch.eye(3) + 0.75 * torch.eye(3)[[1, 2, 0]])
    for row in range(3):
        assert set((mixed.targets[row] > 0).nonzero().flatten().tolist()) <= {row, (row + 1) % 3}


def test_the_rest_is_drawn_as_by_any_other():
    draw = Arranged(torch.tensor([1, 0]), 0.5, seed=7)
    assert torch.equal(torch.rand(4, generator=draw), torch.rand(4, generator=torch.Generator().manual_seed(7)))


def test_strips_show_images_partners_and_the_blend_of_both(tiny_config):
    training = Training(tiny_config)
    batch = training.next_batch()
    shown = {"input_mixup": under(training, METHODS["input_mixup"]())}
    image, partner, mixed = strips(training, batch, shown, 3, seed=0).rows
    assert [strip.title for strip in (image, partner, mixed)] == ["image", "partner", "input_mixup"]
    labels = batch.labels.tolist()
    for index in range(3):
        assert image.tiles[index].lines == [f"class {labels[index]}"]
        assert partner.tiles[index].lines == [f"class {labels[index + 3]}"]
        blend = LAM * image.tiles[index].pixels.astype(float) + (1 - LAM) * partner.tiles[index].pixels
        assert abs(mixed.tiles[index].pixels - blend).max() <= 1.5  # bytes
        if labels[index] != labels[index + 3]:
            assert mixed.tiles[index].lines == [f"{labels[index]}: 0.60", f"{labels[index + 3]}: 0.40"]
