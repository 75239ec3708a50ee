"""A classifier of another training: taken as it is, the stationary part of an environment, or as where another begins."""

from pathlib import Path

from torch import nn

from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.models.weights import load_weights, read_weights
from rlmix.training.checkpoints import newest_state


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


def check_data(data: Dataset, config: Config) -> None:
    """Raise ValueError where ``data`` are others than those of the run ``freeze_from``, whose classifier knows no others.

    Its own under the same name may be fewer; a file or folder of the same name may lie elsewhere, and the same images have any name.

    Args:
        data: What is trained on.
        config: Which run, and how the data are named.
    """
    folder, name = str(config.model.freeze_from), config.data.name
    known = str(read_config(Path(folder)).get("data", name))
    if (known.partition(":")[0], Path(known).name) == (name.partition(":")[0], Path(name).name):
        return
    if newest_state(Path(folder)).get("data") != data.checksum():
        raise ValueError(f"data must be those of freeze_from {folder}, which are {known}, or be left out, got {name}")


def read_pretrained(source: Path) -> dict[str, object]:
    """A classifier's state_dict: the newest of a run's folder, or a file's.

    Raises:
        OSError: If there is no such file, or no checkpoint in the folder.
        ValueError: If it holds anything else.
    """
    if not source.is_dir():
        return read_weights(source)
    state: dict[str, object] = newest_state(source)["training"]["model"]
    return state
