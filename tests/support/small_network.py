"""A network small enough that a run of it can be kept among the tests: support/run_before_house was trained with it."""

from torch import nn

import rlmix.models

NAME = "small_network"


def register():
    rlmix.models.MODELS.add(NAME, make)


def make(num_classes, in_channels=3):
    """Six channels and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, num_classes),
    )
