"""The same images, partners and lam under every mix-up method, as pictures."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rlmix.config import Config
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import AGENT_PATCHES
from rlmix.mixing.core import Arranged, Mixed
from rlmix.mixing.objective import Method, Objective
from rlmix.mixing.registry import METHODS, build_method
from rlmix.mixing.rmix import RMix
from rlmix.reporting.bar import Bar
from rlmix.reporting.strips import Strip, Strips, Tile, draw_strips
from rlmix.training.trainer import Batch, Training

DROP_INS = {"rmix": RMix(), "rmix-p8": RMix(num_patches=(AGENT_PATCHES,))}
SHOWN = ("vanilla", *DROP_INS, *(name for name in METHODS if name != "vanilla"))
LAM = 0.6
"""Of every picture: a draw near 0 or 1 would show one image alone."""

Shown = Callable[[Batch, Arranged], Mixed | Objective]
"""Mixes a batch as a method does."""


def draw_methods(config: Config, names: Sequence[str], num_images: int) -> Figure:
    """Train a classifier a little, without mixing, and show one of its batches under each method."""
    training = Training(config, MixingProcess(config).data)
    with Bar("training a classifier a little", training.num_steps) as bar:
        while not training.finished:
            training.fit_step()
            bar.advance()
    shown = {name: under(training, build(training, name)) for name in names}
    return draw_strips(strips(training, training.next_batch(), shown, num_images, config.run.seed))


def strips(training: Training, batch: Batch, shown: dict[str, Shown], num_images: int, seed: int) -> Strips:
    """The first images of a batch, their partners, and what each method makes of these pairs at :data:`LAM`.

    Args:
        training: Whose data they are.
        batch: Of one size for all methods; it is mixed as a whole.
        shown: The methods, by title.
        num_images: How many are shown.
        seed: Of what methods draw beside partners and lam.
    """
    count = min(num_images, len(batch.labels))
    partner = torch.arange(len(batch.labels)).roll(-count)  # nobody's own, and none of those shown where the batch has others
    rows = [("image", batch.images, batch.labels), ("partner", batch.images[partner], batch.labels[partner])]
    found = [
        Strip(name, [Tile(_pixels(training, images, index), [f"class {int(labels[index])}"]) for index in range(count)])
        for name, images, labels in rows
    ]
    for name, mix in shown.items():
        mixed = mix(batch, Arranged(partner, LAM, seed))
        tiles = [
            Tile(None if mixed.images is None else _pixels(training, mixed.images, index), shares(mixed.targets[index]))
            for index in range(count)
        ]
        found.append(Strip(name, tiles))
    return Strips(
        found, f"One partner an image and lam = {LAM} for every method that takes them; below: class and its part of the target"
    )


def build(training: Training, name: str) -> Method:
    """The method ``name`` for a training; one that mixes now and then, as one that mixes."""
    method: Any = DROP_INS.get(name) or build_method(name, training.config, training.model, training.data, training.num_updates)
    return always_mixing(method)


def always_mixing(method: Any) -> Method:
    """The method, with probability 1 where it has one."""
    if is_dataclass(method) and not isinstance(method, type) and "probability" in {field.name for field in fields(method)}:
        method = replace(method, probability=1.0)
    found: Method = method
    return found


def under(training: Training, method: Method) -> Shown:
    """What a method makes of a batch with the classifier of a training."""
    if isinstance(method, torch.nn.Module):
        method.to(training.device)

    def mix(batch: Batch, generator: Arranged) -> Mixed | Objective:
        with training.fabric.autocast():
            return method(training.model, *batch, num_classes=training.data.num_classes, generator=generator)

    return mix


def shares(target: Tensor) -> list[str]:
    """The classes of a target with more than 1 %, largest first, three at most."""
    found = sorted(((float(share), label) for label, share in enumerate(target.tolist()) if share > 0.01), reverse=True)
    return [f"{label}: {share:.2f}" for share, label in found[:3]]


def _pixels(training: Training, images: Tensor, index: int) -> Any:
    return training.to_pixels(images[index : index + 1])[0, ..., :3].cpu().numpy()
