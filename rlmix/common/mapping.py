"""Plain values, as YAML holds them, into a dataclass: every one of the field's type, or refused by name."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlmix.common.names import check_name

Options = TypeVar("Options")


def from_mapping(kind: type[Options], values: Mapping[str, Any], prefix: str = "") -> Options:
    """A ``kind`` of these values; the fields that are not among them keep their defaults.

    Args:
        kind: A dataclass. Its fields are bool, int, float, str, Path, Literal, None, tuples and unions of these, or dataclasses.
        values: By the fields' names.
        prefix: What an error puts before a field's name.

    Raises:
        ValueError: If ``kind`` has no such field, or a value is none of its field's type.
    """
    hints, known = get_type_hints(kind), [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        check_name("option", str(name), known)
    return kind(**{name: checked(value, hints[name], prefix + name) for name, value in values.items()})


def checked(value: Any, hint: Any, name: str) -> Any:
    """``value`` as one of type ``hint``; ValueError, which says what it is the value of (``name``), where it is none."""
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"option {name} must be a mapping, got {value!r}")
        return from_mapping(hint, value, f"{name}.")
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
    if origin is tuple:
        return f"a list of {_spelled(parts[0])}"
    return "None" if hint is types.NoneType else str(hint.__name__)
