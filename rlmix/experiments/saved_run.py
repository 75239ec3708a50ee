"""A trained classifier from the folder of its run."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rlmix.common.mapping import from_mapping
from rlmix.common.saved_config import read_config
from rlmix.experiments.settings import Train
from rlmix.mixing.registry import METHODS
from rlmix.models.weights import load_weights
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.trainer import Training


class SavedRun(NamedTuple):
    """A run as its newest checkpoint left it."""

    options: Train
    training: Training
    """With the checkpoint's classifier; its optimizer and schedule stand at the beginning."""
    state: dict[str, Any]
    """What the checkpoint holds."""


def read_settings(folder: Path) -> Train:
    """The settings of the run in ``folder``; FileNotFoundError where it is none."""
    return from_mapping(Train, read_config(folder))


def load_run(folder: Path, **changes: Any) -> SavedRun:
    """Open the run in ``folder``.

    Args:
        folder: The run's.
        changes: Settings to open it with in place of its own, such as another device.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged, or of another model.
    """
    options = read_settings(folder).resolved()
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise FileNotFoundError(f"{folder} must hold a checkpoint, and has none")
    state = load_checkpoint(checkpoints[-1])
    training = Training(replace(options.training, **changes), method=options.method if options.method in METHODS else "vanilla")
    load_weights(training.model, training.recipe.model, state["training"]["model"], str(checkpoints[-1]))
    return SavedRun(options, training, state)
