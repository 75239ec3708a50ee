"""Plain values, as YAML holds them, as those of a type, or refused by name."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Options = TypeVar("Options")


def checked(value: Any, hint: Any, name: str) -> Any:
    """``value`` as one of type ``hint``; ValueError, which says what it is the value of (``name``), where it is none.

    Args:
        value: As YAML has it.
        hint: bool, int, float, str, Path, Literal, None, a mapping, or a tuple or union of these.
        name: What an error calls it.
    """
    try:
        return _converted(value, hint)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be {_spelled(hint)}, got {value!r}") from None


def _converted(value: Any, hint: Any) -> Any:
    """ValueError where it cannot be. A number may be a string, for 1e-3 is none in YAML."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for part in parts:
            try:
                return _converted(value, part)
            except (TypeError, ValueError):
                continue
    elif origin is Mapping:
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return dict(value)
    elif origin is Literal:
        if value in parts and not isinstance(value, bool):
            return value
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_converted(entry, parts[0]) for entry in value)
    elif hint is types.NoneType:
        if value is None:
            return None
    elif hint in (int, float):
        if (
            isinstance(value, int | float | str)
            and not isinstance(value, bool)
            and (hint is float or not isinstance(value, float))
        ):
            return hint(value)
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif isinstance(value, hint):
        return value
    raise ValueError


def _spelled(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_spelled, parts))
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin is Mapping:
        return "a mapping"
    if origin is tuple:
        return f"a list of {_spelled(parts[0])}"
    return "None" if hint is types.NoneType else str(hint.__name__)


def spread(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give options by flat name: a mapping's entries stand by themselves, such as ``agent.gamma`` of ``agent``."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, Mapping) else {name: value}
    return found
