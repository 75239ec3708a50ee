"""From the host to the device, without waiting for it."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Give the same tensor on ``device``. What goes to a GPU goes through pinned memory: a copy from other memory may wait for the GPU.

    Source: NVIDIA, "API synchronization behavior", of asynchronous copies: where pageable memory is staged, the driver may synchronize.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
