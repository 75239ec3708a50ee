"""The memory format that a network may be given."""

import torch
from torch import nn


def takes_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Tell whether a network's convolutions may have their channels last.

    On a CPU, oneDNN's backward pass of a 1x1 convolution with a stride and fewer than 16 channels (8 without AVX-512) writes past its
    memory where channels come last: https://github.com/uxlfoundation/oneDNN/issues/6035. The process dies, or does not.

    Args:
        model: The network.
        device: Where it is trained.

    Returns:
        False for such a network on a CPU.
    """
    return device.type != "cpu" or not any(_overruns(module) for module in model.modules())


def _overruns(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return max(module.kernel_size) == 1 and max(module.stride) > 1 and module.in_channels // module.groups < 16
