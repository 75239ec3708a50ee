"""Somebody's own package: one of every family, as docs/extending.md has them."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from rlmix.envs.observations import OBSERVATIONS, Part
from rlmix.mixing.core import Mixed, soft_targets


def network(num_classes, num_channels):
    """Six channels and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(num_channels, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, num_classes)
    )


class Noise(torch.utils.data.Dataset):
    """Grey levels that tell the class; floats in [0, 1] with the channel in front."""

    def __init__(self, seed, count):
        draw = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3
        self.images = (self.labels[:, None, None, None] * 0.3 + 0.1 * draw.random((count, 3, 16, 16))).astype(np.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index]), int(self.labels[index])


def data():
    return Noise(0, 24), Noise(1, 12)


@dataclass(frozen=True)
class Darken:
    """Every image times a strength; nothing is mixed."""

    strength: float = 0.5

    def __call__(self, model, images, labels, *, num_classes, generator=None):
        return Mixed(self.strength * images, soft_targets(labels, num_classes))


def share_reward(share):
    """The image's own share of its target."""
    return share


def twice(rewards, partner_of):
    """Twice the own reward."""
    return 2 * rewards


WITH_LOSS = {
    **OBSERVATIONS["paper"],
    "loss": Part(lambda decision: decision.saliency.logits.logsumexp(1, keepdim=True), (1,), -1e9, 1e9),
}


def half(own, theirs, lam):
    """Half of each, everywhere."""
    return torch.full(own.shape, 0.5)


def by_brightness(decision):
    """Nothing is salient of bright images."""
    bright = decision.batch.images.mean((1, 2, 3)) > 0
    return torch.where(bright, 0.99, 0.0)


def falling(optimizer, config, num_steps):
    """A rate that falls to nothing."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)


def momentum_free(parameters, lr):
    """Plain SGD."""
    return torch.optim.SGD(parameters, lr)


def mean_logit(logits):
    """The logits' mean."""
    return float(logits.mean())


def number_of_epochs(curves, bins):
    """Epochs of every arm."""
    figure = Figure()
    figure.subplots().bar(list(curves), [len(next(iter(runs.values()))) for runs in curves.values()])
    return figure


class Diary:
    """A logger that keeps a line a step in diary.txt."""

    def __init__(self, folder):
        self.path = folder / "diary.txt"

    def on_log(self, figures):
        with open(self.path, "a") as handle:
            handle.write(f"{figures['step']} {figures['loss']:.6f}\n")


class NoLogger:
    """One that cannot be made."""

    def __init__(self, folder):
        raise KeyError("token")
