"""The same images under every mix-up method, as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlmix.config import Config
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import AGENT_PATCHES
from rlmix.mixing.core import Mixed, RMix
from rlmix.mixing.objective import Method, Objective
from rlmix.mixing.registry import METHODS, build_method
from rlmix.reporting.bar import Bar
from rlmix.training.trainer import Batch, Training

DROP_INS = {"rmix": RMix(), "rmix-p8": RMix(num_patches=(AGENT_PATCHES,))}
SHOWN = ("vanilla", *DROP_INS, *(name for name in METHODS if name != "vanilla"))


def draw_methods(config: Config, names: Sequence[str], num_images: int) -> Figure:
    """Train a classifier a little, without mixing, and show one of its batches under each method."""
    training = Training(config, MixingProcess(config).data)
    with Bar("training a classifier a little", training.num_steps) as bar:
        while not training.finished:
            training.fit_step()
            bar.advance()
    return draw(training, training.next_batch(), names, num_images, config.run.seed)


def draw(training: Training, batch: Batch, names: Sequence[str], num_images: int, seed: int) -> Figure:
    """A row a method: what it makes of the first images of the batch, from the same random seed; below each the target's largest shares."""
    num_images = min(num_images, len(batch.labels))
    figure = Figure(figsize=(1.1 * num_images + 1.4, 1.35 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), num_images, squeeze=False)
    for name, row in zip(names, panels, strict=True):
        mixed = apply(training, batch, name, seed)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for index, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(shares(mixed.targets[index]), fontsize=6, labelpad=1)
            if mixed.images is None:
                axes.text(0.5, 0.5, "features\nmixed", ha="center", va="center", fontsize=7)
            else:
                axes.imshow(pixels(training, mixed, index))
    return figure


def apply(training: Training, batch: Batch, name: str, seed: int) -> Mixed | Objective:
    """The batch under the method ``name``, drawn from ``seed``."""
    method: Method = (
        DROP_INS[name]
        if name in DROP_INS
        else build_method(name, training.config, training.model, training.data, training.num_updates)
    )
    if isinstance(method, torch.nn.Module):
        method.to(training.device)
    generator = torch.Generator().manual_seed(seed)
    with training.fabric.autocast():
        return method(training.model, *batch, num_classes=training.data.num_classes, generator=generator)


def pixels(training: Training, mixed: Mixed | Objective, index: int) -> NDArray[np.uint8]:
    """One image (H, W, 3) as bytes."""
    assert mixed.images is not None
    return training.to_pixels(mixed.images[index : index + 1])[0, ..., :3].cpu().numpy()


def shares(target: torch.Tensor) -> str:
    """The classes of a target with more than 1 %, largest first."""
    found = sorted(((float(share), label) for label, share in enumerate(target.tolist()) if share > 0.01), reverse=True)
    return "  ".join(f"{label}: {share:.2f}" for share, label in found[:3])
