"""A trained classifier from the folder of its run."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from rlmix.agents.learned import LearnedPolicy
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.data.own import settle_given
from rlmix.experiments.settings import is_policy, settled
from rlmix.models.weights import load_weights
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.trainer import Training


class SavedRun(NamedTuple):
    """A run as its newest checkpoint left it."""

    options: Config
    training: Training
    """With the checkpoint's classifier; its optimizer and schedule stand at the beginning."""
    state: dict[str, Any]
    """What the checkpoint holds."""


def read_settings(folder: Path) -> Config:
    """The settings of the run in ``folder``; FileNotFoundError where it is none."""
    return Config.from_mapping(read_config(folder))


def load_run(folder: str | Path, data: Dataset | tuple[Any, Any] | str | None = None, **changes: Any) -> SavedRun:
    """Open the run in ``folder``.

    Args:
        folder: The run's.
        data: Its own by default; the name of others, or as of :func:`rlmix.train`, which a run that was trained so needs.
        changes: Options to open it with in place of its own, such as another device.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged, or of another model.
    """
    folder = Path(folder)
    options = settled(read_settings(folder))
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise FileNotFoundError(f"{folder} must hold a checkpoint, and has none")
    state = load_checkpoint(checkpoints[-1])
    opened = options.changed(**(changes if not isinstance(data, str) else changes | {"data": data}))
    dataset, opened = settle_given(None if isinstance(data, str) else data, opened)
    training = Training(opened, dataset, method="vanilla" if is_policy(options.run.method) else options.run.method)
    load_weights(training.model, training.recipe.model, state["training"]["model"], str(checkpoints[-1]))
    return SavedRun(options, training, state)


def load_model(folder: str | Path, device: str = "auto", data: Dataset | tuple[Any, Any] | str | None = None) -> nn.Module:
    """Load a run's classifier as its newest checkpoint has it, in eval mode.

    It takes images normalised by its data's mean and deviation, which :func:`load_run` gives.

    Args:
        folder: The run's.
        device: Where to, as for ``rlmix train``.
        data: As of :func:`load_run`.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged.
    """
    return load_run(Path(folder), data, device=device).training.model.eval()


def load_policy(folder: str | Path, seed: int = 0) -> LearnedPolicy:
    """Load the policy that was learned in a run, frozen.

    Args:
        folder: The run's.
        seed: Of the policy's draws.

    Raises:
        FileNotFoundError: If it holds no run.
        ValueError: If nobody learned in it.
    """
    return LearnedPolicy(Path(folder), seed)
