"""Mix-up methods by name. Each follows :class:`rlmix.objective.Method` and is usable alone in any training loop."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from rlmix.methods.vanilla import Vanilla
from rlmix.objective import Method


class Setting(NamedTuple):
    """What a method may need to know to be built for a training."""

    model: nn.Module
    num_classes: int
    image_size: tuple[int, int]
    data: str
    """Kind of data set: digits, cifar10, cifar100, fashion_mnist, npz."""
    alpha: float | None
    """Of ``lam ~ Beta(alpha, alpha)``; the method's own default where None."""
    seed: int
    """Of the method's own parameters."""


METHODS: dict[str, Callable[[Setting], Method]] = {
    "vanilla": lambda setting: Vanilla(),
}
"""Builders of the methods that need no environment; R-Mix and RL-Mix are policies in :mod:`rlmix.envs`."""
