"""An exponential moving average of a classifier's weights, which is evaluated beside it (Polyak and Juditsky 1992)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_average(model: nn.Module, decay: float, device: torch.device) -> AveragedModel:
    """A copy of ``model`` that ``update_parameters(model)`` moves to it at first, and towards it by ``1 - decay`` from then on.

    Args:
        model: The classifier.
        decay: What is kept of the average at an update; of the running statistics of batch norms likewise.
        device: Where the copy lies.
    """
    average = AveragedModel(model, device, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return average.requires_grad_(False)


def averaged_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The classifier's state_dict out of an average's."""
    return {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
