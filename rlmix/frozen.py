"""A classifier that is taken as it is: the stationary part of an environment in which agents are measured."""

from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from torch import nn

from rlmix.checkpoints import newest_state
from rlmix.config import AUTO, TrainingConfig
from rlmix.models.weights import load_weights
from rlmix.runs import read_config

Config = TypeVar("Config", bound=TrainingConfig)
DATA_OPTIONS: dict[str, tuple[type, ...]] = {
    "data": (str,),
    "data_root": (str,),
    "train_images": (int, NoneType),
    "test_images": (int, NoneType),
    "val_fraction": (float, int),
    "image_size": (int, NoneType),
    "resize_size": (int, NoneType),
    "skip_corrupt": (bool,),
    "relabel": (bool,),
}
"""What settles which images and labels there are, and the types that a run's config.yaml may hold."""


def follow(config: Config, folder: str) -> Config:
    """``config`` with the model of the run in ``folder``; where it names no data, with the run's, and how these were taken.

    Where data are named, the other options are taken to be meant for these.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If ``config`` names another model, or the run's config.yaml holds other than an option's values.
    """
    saved = read_config(Path(folder))
    model = _read(saved, "model", (str, NoneType), folder)
    if None not in (model, config.model) and config.model != model:
        raise ValueError(f"model must be that of freeze_from {folder}, which is {model}, or be left out, got {config.model}")
    taken: dict[str, Any] = {"model": config.model or model}
    if config.data == AUTO:
        defaults = {entry.name: entry.default for entry in fields(TrainingConfig)}
        taken |= {
            name: _read(saved, name, kinds, folder)
            for name, kinds in DATA_OPTIONS.items()
            if name in saved and name in defaults and getattr(config, name) == defaults[name]
        }
    return replace(config, **taken)


def freeze(model: nn.Module, name: str, folder: str) -> None:
    """Give ``model`` the weights and batch-norm statistics of the run in ``folder``, for good: none of them asks for a gradient.

    Args:
        model: The network.
        name: What it is called.
        folder: The run's.

    Raises:
        OSError: If there is no such run, or no checkpoint in it.
        ValueError: If its classifier is another network, or has another number of classes.
    """
    try:
        load_weights(model, name, newest_state(Path(folder))["training"]["model"], folder)
    except ValueError as error:
        raise ValueError(f"freeze_from must name a run of the same model and number of classes: {error}") from error
    model.requires_grad_(False)


def _read(saved: dict[str, Any], name: str, kinds: tuple[type, ...], folder: str) -> Any:
    value = saved.get(name)
    if not isinstance(value, (*kinds, NoneType) if name not in saved else kinds):
        raise ValueError(f"{name} in {folder}/config.yaml must be {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
    return value
