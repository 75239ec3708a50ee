"""A CUDA device where there is none: tensors that lie on it have shapes and no numbers, and whatever makes the host wait is written down.

Fake tensors of torch._subclasses would not do: without a driver torch's engine takes no backward pass through what it thinks lies on CUDA.
Here it thinks of meta tensors; Python sees ``cuda:0``. What lies on the host is real.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import rlmix
from rlmix.common.seeding import stream

DEVICE, META = torch.device("cuda", 0), torch.device("meta")
PRODUCT = Path(rlmix.__file__).resolve().parents[1]

aten = torch.ops.aten
WAIT = (aten.multinomial, aten.bincount, aten.nonzero, aten.masked_select, aten._unique2, aten.equal, aten.is_nonzero)
"""Operations whose CUDA kernels look at a number."""
PINNED = "pretended_pinned"
"""The mark of what lies in pinned memory."""
NO_KERNEL = (aten._fused_sgd_, aten._fused_adam_, aten._amp_foreach_non_finite_check_and_unscale_)
"""In place, and unknown to meta tensors in some releases."""


class OnDevice(Tensor):
    """A tensor on the pretended device; torch's engine, and its kernels while they run, know a meta tensor."""

    in_kernel: ClassVar = False
    device = property(lambda self: META if OnDevice.in_kernel else DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: not OnDevice.in_kernel)  # type: ignore[assignment]
    is_meta = property(lambda self: OnDevice.in_kernel)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        return memo.setdefault(id(self), nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied)


class Accelerator(CPUAccelerator):
    """Takes any device."""

    def setup_device(self, device: torch.device) -> None:
        """There is nothing to set up."""


class PretendedCuda(TorchDispatchMode):
    """Inside, there is a device ``cuda:0``.

    Attributes:
        found: What a CUDA device would have made the host wait for, what lay on the host in an operation there, and what was float64;
            each with the function of the product that asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, OnDevice) for tensor in tensors)
        wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if not there and wanted not in ("cuda", "meta"):
            return func(*args, **kwargs)
        packet = func.overloadpacket
        waits_not = kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:] == (True,))
        if packet is aten._local_scalar_dense:
            self._note("a number is read")
            return torch.ones((), dtype=args[0].dtype).item()
        if (there and wanted == "cpu") or (packet is aten.copy_ and not isinstance(args[0], OnDevice)):
            self._note("a copy to the host")
            return args[0] if packet is aten.copy_ else torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if packet in (aten._to_copy, aten.copy_):
            if any(not isinstance(tensor, OnDevice) and not (waits_not and hasattr(tensor, PINNED)) for tensor in tensors):
                self._note("a copy from the host that waits")
        elif any(tensor.ndim and not isinstance(tensor, OnDevice) for tensor in tensors):
            self._note(f"{packet.__name__} of a tensor on the host")
        indices = [index for index in args[1] if index is not None] if packet in (aten.index, aten.index_put_) else []
        if packet in WAIT or any(index.dtype == torch.bool for index in indices):
            self._note(f"{packet.__name__} waits")
        return self._run(func, args, kwargs)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.overloadpacket in NO_KERNEL:
            return None
        if "device" in kwargs:
            kwargs["device"] = META
        for name in ("pin_memory", "generator"):  # there is nothing to lay or to draw
            kwargs.pop(name, None)

        def lay(leaf: Any) -> Any:
            return leaf.to("meta") if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice) else leaf

        def wrap(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or isinstance(leaf, OnDevice):
                return leaf
            if leaf.dtype == torch.float64:
                self._note(f"{func.overloadpacket.__name__} gives float64")
            return Tensor._make_subclass(OnDevice, leaf)

        OnDevice.in_kernel = True
        try:
            found = func(*tree_map(lay, args), **tree_map(lay, kwargs))
        finally:
            OnDevice.in_kernel = False
        return tree_map(wrap, found)

    def _note(self, what: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        asking: list[str] = []
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PRODUCT) and path.relative_to(PRODUCT).parts[0] in ("rlmix", "envs", "agents", "scripts"):
                asking.append(frame.f_code.co_qualname)
            frame = frame.f_back
        self.found.append(f"{what}: {' < '.join(asking[:2])}")


class _Built(TorchFunctionMode):
    """What torch builds of Python numbers, past every dispatcher, is built on the host and copied, as it is for CUDA.

    Pinned memory, which needs a driver, is memory that carries a mark.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.pin_memory:
            pinned = args[0].clone()
            setattr(pinned, PINNED, True)
            return pinned
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def pretended_cuda(patch: pytest.MonkeyPatch) -> Iterator[PretendedCuda]:
    """Enter a pretended CUDA device, on which trainings open."""
    patch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)  # a parameter is the same one after its move
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    patch.setattr(torch.cuda, "get_rng_state", lambda device=DEVICE: torch.zeros(16, dtype=torch.uint8))
    patch.setattr(torch.cuda, "set_rng_state", lambda state, device=DEVICE: None)
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(
        torch.cuda, "is_bf16_supported", lambda *args: True
    )  # autocast is entered; a meta tensor has no precision of it
    fabric = Fabric(strategy=SingleDeviceStrategy(DEVICE, Accelerator()))
    for module in ("base_class", "buffers", "policies"):  # where there is no driver Stable-Baselines3 takes the CPU
        patch.setattr(f"stable_baselines3.common.{module}.get_device", lambda device="auto": torch.device(device))
    patch.setattr("rlmix.agents.sb3.on_device.stream", lambda seed, name, device: stream(seed, name))
    patch.setattr("rlmix.training.trainer.open_device", lambda config: (DEVICE, fabric))
    with PretendedCuda() as device, _Built():
        yield device
