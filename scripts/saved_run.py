"""A trained classifier from the folder of its run."""

from pathlib import Path
from typing import Any, NamedTuple

from rlmix.checkpoints import list_checkpoints, load_checkpoint
from rlmix.methods import METHODS
from rlmix.models.weights import load_weights
from rlmix.runs import read_config
from rlmix.scripts.options import parse, to_args
from rlmix.scripts.train import Train
from rlmix.training import Training


class SavedRun(NamedTuple):
    """A run as its newest checkpoint left it."""

    options: Train
    training: Training
    """With the checkpoint's classifier; its optimizer and schedule stand at the beginning."""
    state: dict[str, Any]
    """What the checkpoint holds."""


def read_options(folder: Path) -> Train:
    """The options of the run in ``folder``; FileNotFoundError where it is none."""
    return parse(Train, "train", to_args(Train, read_config(folder)))


def load_run(folder: Path) -> SavedRun:
    """Open the run in ``folder``.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged, or of another model.
    """
    options = read_options(folder).resolved()
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise FileNotFoundError(f"{folder} must hold a checkpoint, and has none")
    state = load_checkpoint(checkpoints[-1])
    training = Training(options.training, method=options.method if options.method in METHODS else "vanilla")
    load_weights(training.model, training.recipe.model, state["training"]["model"], str(checkpoints[-1]))
    return SavedRun(options, training, state)
