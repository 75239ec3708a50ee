"""What loops have as labels, and what models give: the same mixture as of int64 indices and a tensor of logits."""

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rlmix

HuggingFace = namedtuple("HuggingFace", ["loss", "logits"])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))


def mixed(labels, model=None, **options):
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return rlmix.RMix(**options)(model or network(), images, labels, generator=torch.Generator().manual_seed(2))


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integers_of_every_type(dtype):
    expected, found = mixed(LABELS), mixed(LABELS.to(dtype))
    assert torch.equal(expected.images, found.images)
    assert torch.equal(expected.targets, found.targets)


def test_one_hot_rows_are_the_labels():
    expected = mixed(LABELS)
    for rows in (F.one_hot(LABELS, 5), F.one_hot(LABELS, 5).float(), F.one_hot(LABELS, 5).double()):
        found = mixed(rows)
        torch.testing.assert_close(found.images, expected.images)
        torch.testing.assert_close(found.targets, expected.targets)


def test_smoothed_and_several_labels_are_shared_as_the_pixels_are():
    smoothed, several = 0.9 * F.one_hot(LABELS, 5) + 0.02, F.one_hot(LABELS, 5) + F.one_hot((LABELS + 1) % 5, 5)
    share = mixed(LABELS).targets
    assert mixed(smoothed).targets.sum(1).tolist() == pytest.approx([1] * 6)
    assert mixed(several).targets.sum(1).tolist() == pytest.approx([2] * 6)
    assert share.sum(1).tolist() == pytest.approx([1] * 6)


def test_classes_are_the_constructors_or_the_models():
    assert mixed(LABELS).targets.shape == (6, 5)
    assert mixed(LABELS, num_classes=7).targets.shape == (6, 7)


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.model, self.wrap = network(), wrap

    def forward(self, images):
        return self.wrap(self.model(images))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: HuggingFace(None, logits),
        lambda logits: {"logits": logits, "aux": None},
        lambda logits: {"out": logits},
        lambda logits: (logits, logits[:, :2]),
        lambda logits: [logits],
    ],
)
def test_logits_are_found_in_what_a_model_gives(wrap):
    expected, found = mixed(LABELS), mixed(LABELS, Wrapped(wrap))
    assert torch.equal(expected.images, found.images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.float(), r"labels must be integers where they are class indices, got torch.float32"),
        (LABELS.bool(), r"labels must be integers where they are class indices, got torch.bool"),
        (LABELS[:3], r"labels must have shape \(6,\) or \(6, classes\), got \(3,\)"),
        (torch.zeros(6, 1, 1), r"labels must have shape \(6,\) or \(6, classes\), got \(6, 1, 1\)"),
        (torch.zeros(6, 4), r"labels must have shape \(6, 5\) where they are soft, got \(6, 4\)"),
        (LABELS.tolist(), r"labels must be a torch tensor, got list"),
    ],
)
def test_other_labels_are_refused_by_name(labels, message):
    from oracle import unchecked

    with unchecked(), pytest.raises(ValueError, match=message):
        mixed(labels)


def test_a_model_without_logits_is_refused():
    with pytest.raises(ValueError, match=r"model must give logits \(batch, classes\), or hold them as .logits, got dict"):
        mixed(LABELS, Wrapped(lambda logits: {"features": logits}))
