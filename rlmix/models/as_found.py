"""A pass through a network that leaves no trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin


class Kept(NamedTuple):
    """What a module held before: its buffers, and the tensors, numbers and empty places among its attributes."""

    module: nn.Module
    buffers: dict[str, Tensor | None]
    parameters: dict[str, nn.Parameter]
    """Those that were made in inference mode, of which no graph can be made."""
    attributes: dict[str, Any]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, passes through ``model`` compute what they always do; after it, all that they wrote is as before.

    Batch norms in training mode go on normalising by the batch, but do not record it. All other modules (instance norms, spectral
    norms, observers, a user's own) work on copies of their buffers, and of the tensors and numbers that are their attributes; the
    originals, which nothing has written to, are put back in the end. A lazy module is initialised by its first pass, and stays so.
    """
    modules = list(model.modules())
    lazy = [module for module in modules if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()]
    if lazy:
        modules = [module for module in modules if module not in lazy]
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats and module.training]
    copies: dict[int, Tensor] = {}
    kept = [_replace(module, copies) for module in modules if _may_write(module)]
    for norm in norms:  # in eval mode the flag would change what they compute
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for before in kept:
            _put_back(before)
        for module in lazy:
            reset: Any = getattr(module, "reset_running_stats", None)
            if reset is not None:
                reset()


def _replace(module: nn.Module, copies: dict[int, Tensor]) -> Kept:
    """Have a module work on copies; tensors that several modules share have one copy."""
    own = vars(module).items()
    attributes = {name: value for name, value in own if value is None or type(value) in (int, float) or isinstance(value, Tensor)}
    vars(module).update({name: _copy(value, copies) for name, value in attributes.items() if isinstance(value, Tensor)})
    parameters = {name: value for name, value in module._parameters.items() if value is not None and value.is_inference()}
    module._parameters.update(
        {name: nn.Parameter(_copy(value, copies), requires_grad=False) for name, value in parameters.items()}
    )
    buffers = dict(module._buffers)
    if not _records_by_flag(module):
        module._buffers.update({name: _copy(value, copies) for name, value in buffers.items() if value is not None})
    return Kept(module, buffers, parameters, attributes)


def _copy(tensor: Tensor, copies: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in copies:
        copies[id(tensor)] = tensor.clone()
    return copies[id(tensor)]


def _put_back(before: Kept) -> None:
    attributes = vars(before.module)
    for name in [name for name, value in attributes.items() if isinstance(value, Tensor) and name not in before.attributes]:
        del attributes[name]
    for name, value in before.attributes.items():
        if value is not None or isinstance(attributes.get(name), Tensor):
            attributes[name] = value
    before.module._parameters.update(before.parameters)
    before.module._buffers.clear()
    before.module._buffers.update(before.buffers)


def _may_write(module: nn.Module) -> bool:
    """False for the many modules of torch that write nothing, which are passed over: their parts need not be looked at."""
    if not type(module).__module__.startswith("torch.nn.modules.") or module._forward_pre_hooks or module._forward_hooks:
        return True
    if module._buffers and not _records_by_flag(module):
        return True
    return any(value is not None and value.is_inference() for value in module._parameters.values())


def _records_by_flag(module: nn.Module) -> bool:
    """Whether it is a batch norm that writes to its buffers only where ``track_running_stats`` says so."""
    return type(module).forward in (_BatchNorm.forward, SyncBatchNorm.forward)
