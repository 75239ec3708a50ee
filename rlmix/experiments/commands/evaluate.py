"""What ``rlmix evaluate`` is asked for."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's newest checkpoint on its own data, or any state_dict with --model and --data."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or a file with a state_dict."""
    model: str | None = None
    """The state_dict's network, as for rlmix train."""
    data: str | None = None
    """The state_dict's data, as for rlmix train."""
    data_root: str = "data"
    """Folder of torchvision's data sets, for a state_dict."""
    image_size: int | None = None
    """Pixels a side of an imagefolder's images, or of an npz's by --image-fit, for a state_dict."""
    image_fit: Literal["resize", "pad"] = "resize"
    """How an npz's images get these, for a state_dict."""
    keys: tuple[str, ...] | None = None
    """Names of an npz's arrays, for a state_dict."""
    splits: tuple[str, ...] | None = None
    """Names of training and test split, for a state_dict."""
    value_range: tuple[float, ...] | None = None
    """What black and white are, for a state_dict."""
    resize_size: int | None = None
    """Pixels of the shorter side before the crop, for a state_dict."""
    mean: tuple[float, ...] | None = None
    """By which images in [0, 1] were normalised, a channel, for a state_dict; the data's own where not given."""
    std: tuple[float, ...] | None = None
    """Likewise."""
    skip_corrupt: bool = False
    """Leave out images that cannot be decoded, for a state_dict."""
    relabel: bool = False
    """The classes' labels were numbered from 0 in training, for a state_dict."""
    ema: bool = False
    """Measure the average of the run's weights, of a run that was trained with --ema."""
    split: Literal["test", "val"] = "test"
    """What is measured; val is a run's validation split."""
    epsilon: float = 8
    """How far the attacks move a pixel, of 255."""
    attacks: tuple[Literal["fgsm", "pgd"], ...] = ("fgsm", "pgd")
    """Attacks: fgsm is one pass, pgd seven and much harder."""
    boxes: Path | None = None
    """CSV file of an imagefolder's boxes, split,path,x0,y0,x1,y1 in inclusive pixels: measures localization."""
    localization: Literal["comixup", "zhou"] = "comixup"
    """How boxes are drawn: comixup (the paper's; a threshold of the map's range) or zhou (of its maximum). docs/evaluation.md."""
    threshold: float | None = None
    """Part of an activation map's range or maximum that a box is drawn around, 0.15 to 0.25; 0.25 for comixup, 0.2 for zhou."""
    workers: int = 4
    """Processes that decode an imagefolder."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, mps."""
    out: Path | None = None
    """Folder of evaluate.json and reliability.png; the run's own, or the one that the state_dict lies in."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.15 <= self.threshold <= 0.25:
            raise ValueError(f"threshold must be in [0.15, 0.25], got {self.threshold}")
        if not 0 <= self.epsilon <= 255:
            raise ValueError(f"epsilon must be in [0, 255], got {self.epsilon}")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or (self.source if self.source.is_dir() else self.source.parent)


OF_DATA = (
    "model",
    "data",
    "data_root",
    "image_size",
    "image_fit",
    "keys",
    "splits",
    "value_range",
    "resize_size",
    "skip_corrupt",
    "relabel",
)
OF_STATE_DICT = (*OF_DATA, "mean", "std")
"""What a run's folder says itself."""


def check_source(options: Evaluate, typed: Collection[str]) -> None:
    """Raise ValueError where an option was typed that what is measured does not read."""
    of_run = options.source.is_dir()
    for name in sorted(typed):
        if of_run and name in OF_STATE_DICT:
            raise ValueError(f"--{name.replace('_', '-')} must be left out with a run's folder, which has its own")
        if name == "ema" and not of_run:
            raise ValueError("--ema must be left out with a state_dict, which is measured as it is: it would do nothing")
        if name in ("localization", "threshold") and options.boxes is None:
            raise ValueError(f"--{name} must be left out without --boxes: it would do nothing")
        if name == "image_fit" and options.image_size is None:
            raise ValueError("--image-fit must be left out without --image-size: it would do nothing")
        if name == "epsilon" and not options.attacks:
            raise ValueError("--epsilon must be left out without --attacks: it would do nothing")
        if name == "split" and not of_run and options.split == "val":
            raise ValueError("--split must be test with a state_dict, whose data have no validation split, got val")
