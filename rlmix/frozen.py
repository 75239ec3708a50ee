"""A classifier that is taken as it is: the stationary part of an environment in which agents are measured."""

from pathlib import Path

from torch import nn

from rlmix.checkpoints import newest_state


def freeze(model: nn.Module, folder: str) -> None:
    """Give ``model`` the weights and batch-norm statistics of the run in ``folder``, for good: none of them asks for a gradient.

    Raises:
        OSError: If there is no such run, or no checkpoint in it.
        ValueError: If its classifier is another network, or has another number of classes.
    """
    try:
        model.load_state_dict(newest_state(Path(folder))["training"]["model"])
    except RuntimeError as error:
        raise ValueError(f"freeze_from must name a run of the same model and number of classes: {error}") from error
    model.requires_grad_(False)
