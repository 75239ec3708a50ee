"""The device a configuration names, and lightning-fabric on it: alone, or one of the processes that torchrun started."""

import atexit
import logging
import os
from inspect import signature
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from rlmix.common.ranks import leave
from rlmix.config import Config


def open_device(config: Config) -> tuple[torch.device, Fabric]:
    """Open it, and join the other processes where there are any.

    Raises:
        ValueError: If there is no such device, or torchrun started another number of processes than the configuration says.
    """
    name = config.device.name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {config.device.name!r}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {config.device.name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one that is there ({torch.cuda.device_count()} CUDA devices), got {config.device.name!r}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device must be one that is there (no mps), got {config.device.name!r}")
    if device.type != "cuda":
        # lightning-fabric sets it when imported; with it, torch's optimizers look for NVIDIA's library on the disk at every step
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    mode = "bf16-mixed" if precision_on(device, config) == "bfloat16" else "32-true"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        devices = 1 if device.type == "cpu" else [device.index or 0]
        return (fabric := Fabric(accelerator=device.type, devices=devices, precision=mode)).device, fabric  # type: ignore[arg-type]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if config.device.devices not in (None, local) or config.device.nodes not in (1, size // local):
        raise ValueError(
            f"devices and nodes must be those started, {local} on {size // local}, got {config.device.devices}, {config.device.nodes}"
        )
    # Batch norms normalise by their rank's share, so that running statistics are never read while training: rank 0's are kept.
    renamed = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    strategy = DDPStrategy(**options)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets
    fabric = Fabric(accelerator=device.type, devices=local, num_nodes=size // local, strategy=strategy, precision=mode)  # type: ignore[arg-type]
    fabric.launch()
    atexit.register(leave)  # a training that an error or a signal has stopped has not left
    return fabric.device, fabric


def precision_on(device: torch.device, config: Config) -> str:
    """float32 or bfloat16, also where the configuration leaves it to the device."""
    if config.device.precision != "auto":
        return config.device.precision
    return "bfloat16" if device.type == "cuda" else "float32"
