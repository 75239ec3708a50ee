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
from rlmix.models.given import Make, giving
from rlmix.models.weights import load_weights
from rlmix.training.average import averaged_weights
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


def load_run(
    folder: str | Path,
    data: Dataset | tuple[Any, Any] | str | None = None,
    *,
    model: nn.Module | Make | None = None,
    averaged: bool = False,
    maps: bool = False,
    **changes: Any,
) -> SavedRun:
    """Open the run in ``folder``.

    Args:
        folder: The run's.
        data: Its own by default; the name of others, or as of :func:`rlmix.train`, which a run that was trained so needs.
        model: As of :func:`rlmix.train`, which a run that was trained on one needs.
        averaged: Take the average of the classifier's weights in their place, which a run with the option ``ema`` keeps.
        maps: Have the saliency maps that it kept, of its own training images; exact ones otherwise, which take no memory.
        changes: Options to open it with in place of its own, such as another device.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged, of another model, or holds no average.
    """
    folder = Path(folder)
    options = settled(read_settings(folder))
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise FileNotFoundError(f"{folder} must hold a checkpoint, and has none")
    state = load_checkpoint(checkpoints[-1])
    if averaged and options.optim.ema is None:
        raise ValueError(f"ema must be left out with {folder}, which was trained without it and keeps no average of the weights")
    changes = {"weights": None} | changes  # the checkpoint has them
    changes |= {} if maps else {"saliency_mode": "exact"}
    opened = options.changed(**(changes if not isinstance(data, str) else changes | {"data": data}))
    dataset, opened = settle_given(None if isinstance(data, str) else data, opened)
    with giving(model):
        training = Training(opened, dataset, method="vanilla" if is_policy(options.run.method) else options.run.method)
    weights = averaged_weights(state["training"]["ema"]) if averaged else state["training"]["model"]
    load_weights(training.model, training.recipe.model, weights, str(checkpoints[-1]))
    if training.average is not None:
        training.average.load_state_dict(state["training"]["ema"])
    if maps:
        training.saliency_source.load_state_dict(state["training"]["saliency"])
    return SavedRun(options, training, state)


def load_model(
    folder: str | Path,
    device: str = "auto",
    data: Dataset | tuple[Any, Any] | str | None = None,
    *,
    model: nn.Module | Make | None = None,
    ema: bool = False,
) -> nn.Module:
    """Load a run's classifier as its newest checkpoint has it, in eval mode.

    It takes images normalised by its data's mean and deviation, which :func:`load_run` gives.

    Args:
        folder: The run's.
        device: Where to, as for ``rlmix train``.
        data: As of :func:`load_run`.
        model: As of :func:`load_run`.
        ema: Take the average of its weights, of a run that was trained with ``--ema``.

    Raises:
        FileNotFoundError: If it holds no run, or no checkpoint yet.
        ValueError: If the checkpoint is damaged, or holds no average.
    """
    return load_run(Path(folder), data, model=model, averaged=ema, device=device).training.model.eval()


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
