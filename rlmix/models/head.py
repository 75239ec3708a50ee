"""A network's last layer, which gives the logits, apart from all that comes before it; and the depth of every weight."""

from torch import Tensor, nn


def head_of(model: nn.Module, num_classes: int) -> str:
    """Name of the layer that gives the logits: the last one whose weight has a row for every class.

    Args:
        model: The classifier.
        num_classes: N.

    Raises:
        ValueError: If it has none.
    """
    found = [name for name, module in model.named_modules() if _rows(module) == num_classes]
    if not found:
        raise ValueError(
            f"model must end in a layer with weights for each of {num_classes} classes, and {type(model).__name__} does not"
        )
    return found[-1]


def _rows(module: nn.Module) -> int | None:
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim >= 2 else None


def freeze_backbone(model: nn.Module, num_classes: int) -> None:
    """Let no step change anything but the head: other weights ask for no gradient, other modules are in eval mode for good.

    Args:
        model: The classifier.
        num_classes: N.

    Raises:
        ValueError: If it has no head.
    """
    head = head_of(model, num_classes)
    model.requires_grad_(False)
    model.get_submodule(head).requires_grad_(True)
    for name, module in model.named_modules():
        if name and not f"{head}.".startswith(f"{name}."):
            module.training = False


def layer_rates(model: nn.Module, num_classes: int, decay: float) -> dict[nn.Parameter, float]:
    """What part of the learning rate every weight has: the head's is 1, and a layer's ``decay`` times the next one's.

    Args:
        model: The classifier.
        num_classes: N.
        decay: In (0, 1].

    Raises:
        ValueError: If it has no head.
    """
    last = list(model.get_submodule(head_of(model, num_classes)).parameters())
    by_depth = layers(model)
    head = next(index for index, layer in enumerate(by_depth) if any(parameter is last[0] for parameter in layer))
    rates = {parameter: decay ** max(0, head - index) for index, layer in enumerate(by_depth) for parameter in layer}
    return rates | dict.fromkeys(last, 1.0)


def layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """The weights layer by layer, in the order of definition.

    A layer is a module of the network, of its ``Sequential`` and ``ModuleList`` containers, and of modules that hold a stack of blocks: a
    residual block, a transformer's block, a stem's convolution. Weights that a container has itself (position embeddings) belong to the
    layer after them.
    """
    found: list[list[nn.Parameter]] = []
    waiting = list(model.parameters(recurse=False))
    for child in model.children():
        parts = layers(child) if is_container(child) or holds_blocks(child) else [list(child.parameters())]
        parts = [part for part in parts if part]
        if parts and waiting:
            parts[0], waiting = [*waiting, *parts[0]], []
        found += parts
    return found + ([waiting] if waiting else [])


def is_container(module: nn.Module) -> bool:
    """Whether it only holds others; not what inherits from a container, such as a convolution with its norm."""
    return type(module) in (nn.Sequential, nn.ModuleList)


def holds_blocks(module: nn.Module) -> bool:
    """Whether a stack of blocks lies within, such as in a transformer's encoder."""
    return any(_is_stack(child) or holds_blocks(child) for child in module.children())


def _is_stack(module: nn.Module) -> bool:
    """Whether it is a container of several modules of one class that have modules themselves."""
    kinds = [type(child) for child in module.children() if any(True for _ in child.children())]
    return is_container(module) and len(kinds) > 1 and len(kinds) == len(list(module.children())) and len(set(kinds)) == 1
