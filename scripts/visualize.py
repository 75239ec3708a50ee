"""Show the same images under every mix-up method.

rlmix visualize --methods all --out methods.png
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlmix.allocator import keep_freed_memory
from rlmix.config import TrainingConfig
from rlmix.envs.process import MixingProcess
from rlmix.methods import METHODS
from rlmix.mixing import Mixed, RMix
from rlmix.names import check_name
from rlmix.objective import Method, Objective
from rlmix.scripts.options import parse, read_args
from rlmix.training import Batch, Training, build_method

DROP_INS = {"rmix": RMix(num_patches=(2, 4)), "rmix-p8": RMix(num_patches=(8,))}
SHOWN = ("vanilla", *DROP_INS, *(name for name in METHODS if name != "vanilla"))


@dataclass(frozen=True)
class Visualize(TrainingConfig):
    """Show the same images under mix-up methods, with the saliency of a classifier that trains a little first."""

    methods: tuple[str, ...] = ("all",)
    """Methods, or all."""
    epochs: int | None = 3
    """Epochs of vanilla training before the picture, so that there is something salient."""
    num_images: int = 8
    """Images shown; each batch is mixed as a whole."""
    out: Path = Path("methods.png")
    """The picture."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train a little, draw."""
    options = parse(Visualize, "visualize", read_args(args))
    names = SHOWN if options.methods == ("all",) else options.methods
    for name in names:
        check_name("method", name, SHOWN)
    if not options.num_images >= 1:
        raise ValueError(f"num_images must be at least 1, got {options.num_images}")
    keep_freed_memory()
    config = TrainingConfig(**{name: getattr(options, name) for name in TrainingConfig.__dataclass_fields__}).resolved()
    training = Training(config, MixingProcess(config).data)
    while not training.finished:
        training.fit_epoch()
    figure = draw(training, training.next_batch(), names, options.num_images, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110, metadata={"Software": ""})


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
        else build_method(name, training.config, training.model, training.data, training.num_steps)
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


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
