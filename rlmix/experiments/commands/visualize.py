"""What ``rlmix visualize`` is asked for."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from rlmix.common.ranges import at_least
from rlmix.option_groups import DataConfig, DeviceConfig, MixingConfig, ModelConfig, OptimConfig


@dataclass(frozen=True)
class Visualize:
    """How images are mixed.

    With a run: image pairs, saliency, masks, regions and mixed images (Figures 2 and 4 of the paper), and of a learned policy what it
    chooses for whom. Without one: the same images, partners and lam under every method, with the saliency of a classifier that trains a
    little first.
    """

    FIRST: ClassVar = ("run", "policy", "images", "methods", "num_images", "out")

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run's folder: its newest classifier and its policy mix its own training images."""
    policy: Path | None = None
    """With a run: another one in which an agent learned, or the same. Its policy mixes on the run's classifier, and DIR/policy shows what
    it chooses for whom and how often that is the best choice. A run in which an agent learned shows its own, without the search."""
    batches: int = 20
    """Batches of the run's data that the policy is shown."""
    searched: int | None = None
    """Batches of these for which the best choices are searched, K + K^2 passes each; 2 with --policy, none without."""
    images: Path | None = None
    """A folder of pictures, mixed instead of the run's data. Without a run, --weights and --model say what is salient, and R-Mix's random
    choice mixes."""
    size: int = 32
    """Pixels a side that --weights' classifier takes."""
    methods: tuple[str, ...] = ("all",)
    """Without a run: methods, or all."""
    num_images: int = 8
    """Images shown; each batch is mixed as a whole."""
    out: Path | None = None
    """Where the pictures go; the run's folder, or methods.png. Of a run figure2.png, figure4.png, top_k.png (an agent's choices by epoch)
    and policy/."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of what is drawn."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=3))
    mixing: MixingConfig = field(default_factory=MixingConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)


READ = {
    "a run's folder": ("policy", "batches", "searched", "images", "num_images", "skip_corrupt", "seed", "out"),
    "--weights": (
        *("weights", "images", "model", "size", "skip_corrupt", "num_images", "seed", "out"),
        *("num_top_k", "num_patches", "alpha", "rule"),
    ),
}
"""All that is read of the options where a picture is of a run, or of a bare classifier."""
OF_THOSE = ("batches", "searched", "size")
"""What is not read where it is of neither."""


def check_typed(options: Visualize, typed: Collection[str]) -> None:
    """Raise ValueError where an option was typed that would do nothing."""
    source = "a run's folder" if options.run is not None else "--weights" if options.model.weights is not None else None
    for name in sorted(typed):
        if (name not in READ[source]) if source else (name in OF_THOSE):
            where = f"with {source}" if source else "without a run's folder or --weights"
            raise ValueError(f"--{name.replace('_', '-')} must be left out {where}: it would do nothing")
