"""Named stages of a classifier, and hooks on what they give: how methods mix features without a network of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from rlmix.models.wrappers import inner

STAGE_NAMES = ("stage1", "stage2", "stage3", "stage4")
"""What the stages are called on every network; a network may have fewer."""


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """The stages a network has, in order; each gives features (B, C, H, W).

    Networks of the project have them as attributes ``stage1``, ``stage2``, ...; torchvision's residual networks as ``layer1``, ...
    """
    model = inner(model)
    aliases = {name: (name, name.replace("stage", "layer")) for name in STAGE_NAMES}
    found = {name: getattr(model, alias) for name, names in aliases.items() for alias in names if hasattr(model, alias)}
    return {name: module for name, module in found.items() if isinstance(module, nn.Module)}


def stage(model: nn.Module, name: str) -> nn.Module:
    """The stage ``name``; ``"last"`` is the last one.

    Raises:
        ValueError: If the network has no such stage, naming those it has.
    """
    have = stages(model)
    if name == "last" and have:
        return list(have.values())[-1]
    if name not in have:
        listed = ", ".join(have) or "none"
        raise ValueError(f"stage must be one of those {type(model).__name__} has ({listed}), got {name!r}")
    return have[name]


@contextmanager
def transformed(model: nn.Module, name: str, transform: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, what the stage ``name`` gives passes through ``transform``; works through a DDP wrapper of ``model`` as well.

    Raises:
        RuntimeError: At the end, if the stage was not run: another network, or a compiled one that does not look at hooks.
    """
    calls = 0

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return transform(features)

    handle = stage(model, name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise RuntimeError(f"{name} must be run by the network that is scored, and was not")
