"""Channels come last, but where oneDNN would write past its memory."""

import pytest
import torch
from torch import nn
from toys import toy_config, write_npz

from rlmix.models.memory_format import takes_channels_last
from rlmix.models.preactresnet import PreActResNet
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.trainer import Training

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("layer", "may"),
    [
        (nn.Conv2d(4, 8, 1, 2), False),
        (nn.Conv2d(15, 8, 1, (1, 2)), False),
        (nn.Conv2d(32, 32, 1, 2, groups=4), False),
        (nn.Conv2d(16, 8, 1, 2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, 2), True),
        (nn.Linear(4, 8), True),
    ],
)
def test_strided_1x1_convolutions_of_few_channels_may_not(layer, may):
    assert takes_channels_last(nn.Sequential(nn.ReLU(), layer), CPU) == may
    assert takes_channels_last(layer, torch.device("cuda"))


def test_a_narrow_network_trains_as_with_channels_first(tmp_path):
    """Without the rule the process dies within a few steps."""
    data = write_npz(tmp_path, 16)
    args = [
        "train",
        "--data",
        data,
        "--model",
        "test_memory_format:narrow",
        "--batch-size",
        "16",
        "--epochs",
        "2",
        "--device",
        "cpu",
    ]
    for name, options in (("default", []), ("first", ["--no-channels-last"])):
        rlmix_main([*args, *options, "--method", "rmix", "--out", str(tmp_path / name)])
    states = [torch.load(tmp_path / name / "checkpoints" / "epoch-0002.pt", weights_only=False) for name in ("default", "first")]
    first, second = (state["training"]["model"] for state in states)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize(("model", "last"), [("preactresnet18_w16", True), ("test_memory_format:narrow", False)])
def test_images_come_in_the_networks_format(model, last, tmp_path):
    training = Training(toy_config(tmp_path, 16, model=model))
    images = training.next_batch().images
    assert images.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    weight = max(training.model.parameters(), key=lambda parameter: parameter.numel())
    assert weight.is_contiguous(memory_format=torch.channels_last) == last


def narrow(num_classes, in_channels):
    return PreActResNet((1, 1, 1, 1), num_classes, width=4, in_channels=in_channels)
