"""A network that Python gives: a module, or a function that makes one."""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from rlmix.recipes import GIVEN

Make = Callable[..., nn.Module]

_given: ContextVar[nn.Module | Make | None] = ContextVar("given model", default=None)


@contextmanager
def giving(model: nn.Module | Make | None) -> Iterator[None]:
    """Inside, the network called ``given`` is this one; None leaves things as they are."""
    token = _given.set(_given.get() if model is None else model)
    try:
        yield
    finally:
        _given.reset(token)


def name_of(model: Any) -> str:
    """``module:function`` where that finds ``model`` again, in this process and in others; ``given`` otherwise.

    Raises:
        ValueError: If it is neither a module nor callable.
    """
    if not isinstance(model, nn.Module) and not callable(model):
        raise ValueError(f"model must be a torch.nn.Module or a function that gives one, got {type(model).__name__}")
    home, name = getattr(model, "__module__", None), getattr(model, "__qualname__", "")
    found = getattr(sys.modules.get(str(home)), name, None)
    return f"{home}:{name}" if found is model and home != "__main__" else GIVEN


def build_given(keywords: dict[str, Any]) -> nn.Module:
    """A copy of the module that was given, or what the function makes of those of the keywords that it takes.

    Raises:
        ValueError: If none was given, or the function gives something else.
    """
    model = _given.get()
    if model is None:
        raise ValueError("model given must come with the call, rlmix.train(config, model=...), as in the run's first")
    return copy.deepcopy(model) if isinstance(model, nn.Module) else call(GIVEN, model, keywords)


def call(name: str, build: Make, known: dict[str, Any]) -> nn.Module:
    """Somebody's function, with those of the keywords that it takes.

    Raises:
        ValueError: If it raises, or gives no module.
    """
    parameters = inspect.signature(build).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    keywords = {key: value for key, value in known.items() if key in parameters or (takes_all and key != "in_channels")}
    try:
        model = build(**keywords)
    except Exception as error:  # whatever somebody's function does
        raise ValueError(f"model {name} must be built from {', '.join(keywords)}, got {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name} must give a torch.nn.Module, got {type(model).__name__}")
    return model
