"""The classifiers, by name."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from rlmix.models.preactresnet import PreActResNet
from rlmix.names import check_name
from rlmix.seeding import derive

MODELS: dict[str, Callable[..., nn.Module]] = {
    "preactresnet18": partial(PreActResNet, (2, 2, 2, 2), width=64),
    "preactresnet18_w16": partial(PreActResNet, (2, 2, 2, 2), width=16),
}


def build_model(name: str, num_classes: int, in_channels: int = 3, seed: int = 0) -> nn.Module:
    """A freshly initialised classifier.

    Args:
        name: A key of :data:`MODELS`.
        num_classes: N.
        in_channels: Channels of the images.
        seed: Of the initial weights. The global random state is left as found.

    Raises:
        ValueError: If there is no such model.
    """
    check_name("model", name, MODELS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "init"))
        return MODELS[name](num_classes=num_classes, in_channels=in_channels)
