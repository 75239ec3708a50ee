"""The family of optimizers: what takes the training's steps."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlmix.common.registry import Registry
from rlmix.config import Config

OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimizer")
"""Functions of ``parameters``, groups as torch takes them, and ``config``; classes of torch's form are called with the learning rate and
the weight decay. Trait ``guarded``: whether a step does nothing where the optimizer's ``found_inf`` is 1."""


@OPTIMIZERS.register("sgd", reads=("momentum",), guarded=True)
def sgd(parameters: Sequence[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, the paper's."""
    recipe = config.recipe
    optimizer = torch.optim.SGD(
        parameters, recipe.learning_rate, config.optim.momentum, weight_decay=recipe.weight_decay, nesterov=True, fused=True
    )
    for (
        group
    ) in optimizer.param_groups:  # zeros are what a first step starts from; it would leave them unset where it is left out
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@OPTIMIZERS.register("adamw", guarded=True)
def adamw(parameters: Sequence[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), whose weight decay is apart from the gradient."""
    recipe = config.recipe
    return torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


@OPTIMIZERS.register("adam", guarded=True)
def adam(parameters: Sequence[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), with weight decay as an L2 penalty."""
    recipe = config.recipe
    return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def make_optimizer(
    model: nn.Module, others: Sequence[nn.Parameter], config: Config, rates: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer that ``config.recipe.optimizer`` names.

    Args:
        model: The classifier.
        others: A method's own parameters.
        config: Rates, decay, and whether norms and biases are decayed.
        rates: Of the classifier's parameters, what part of the learning rate they have; all of it where not given.

    Raises:
        ValueError: If there is none, or it cannot be built.
    """
    entry = OPTIMIZERS.entry(config.optim.optimizer)
    groups = parameter_groups(model, others, config.optim.decay_norms)
    if config.model.freeze_backbone:
        groups = [group | {"params": [one for one in group["params"] if one.requires_grad]} for group in groups]
    if rates is not None:
        groups = [part for group in groups for part in by_rate(group, rates, config.recipe.learning_rate)]
    build: Any = entry.thing
    if not callable(build):
        raise ValueError(f"optimizer {entry.name} must be a class or a function, got {type(build).__name__}")
    takes = inspect.signature(build).parameters
    recipe = config.recipe
    known = {"config": config, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    try:
        optimizer = build(groups, **{name: value for name, value in known.items() if name in takes})
    except Exception as error:  # whatever somebody's optimizer does
        raise ValueError(f"optimizer {entry.name} must be built from parameter groups, got {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer {entry.name} must give a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return optimizer


def parameter_groups(model: nn.Module, others: Sequence[nn.Parameter], decay_norms: bool) -> list[dict[str, Any]]:
    """All that asks for a gradient in one group; without ``decay_norms`` in two, the second, vectors and scalars, without weight decay."""
    parameters = [*model.parameters(), *others]
    if decay_norms:
        return [{"params": parameters}]
    flat = [parameter for parameter in parameters if parameter.ndim < 2]
    rest = [parameter for parameter in parameters if parameter.ndim >= 2]
    return [{"params": rest}, {"params": flat, "weight_decay": 0.0}]


def by_rate(group: dict[str, Any], rates: Mapping[nn.Parameter, float], learning_rate: float) -> list[dict[str, Any]]:
    """A group's parameters in a group a rate, the lowest first; ``scale`` is the part of the learning rate that schedules keep to."""
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        parts.setdefault(rates.get(parameter, 1.0), []).append(parameter)
    return [group | {"params": parts[scale], "lr": scale * learning_rate, "scale": scale} for scale in sorted(parts)]


def is_guarded(name: str) -> bool:
    """Whether a step of the optimizer called so does nothing where its ``found_inf`` is 1."""
    return bool(OPTIMIZERS.entry(name).traits.get("guarded"))


def guarded_step(optimizer: Any, finite: Tensor, guarded: bool) -> None:
    """Take a step where ``finite`` is true. An optimizer that is not ``guarded`` costs a synchronisation."""
    if guarded:
        optimizer.optimizer.found_inf = (~finite).float()  # the fused step does nothing where it is 1
        optimizer.step()
    elif bool(finite):
        optimizer.step()
