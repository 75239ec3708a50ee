"""Configurations that are composed of groups, and their flat names.

A group is a frozen dataclass; a configuration's fields are groups and options. An option of a group has its own name on the command line
and in config.yaml (``--epochs``); one called ``name`` has the group's (``data.name`` is ``--data``); one of a group within a group has the
outer one's before its own (``agent.ppo.gamma`` is ``--agent.gamma``).
"""

import ast
import inspect
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from rlmix.common.mapping import checked
from rlmix.common.names import check_name
from rlmix.common.ranges import Also

Composed = TypeVar("Composed")


class Option(NamedTuple):
    """An option of a composed configuration."""

    path: tuple[str, ...]
    """Fields from the configuration down to it."""
    hint: Any
    """Its type, with what else is annotated."""
    default: Any
    """MISSING where there is none."""
    doc: str
    """The text below the field."""
    group: type
    """The dataclass that holds it."""

    @property
    def type(self) -> Any:
        """Its type alone."""
        return get_args(self.hint)[0] if get_origin(self.hint) is Annotated else self.hint

    @property
    def rules(self) -> tuple[Any, ...]:
        """What its value must be, see :mod:`rlmix.common.ranges`."""
        notes = get_args(self.hint)[1:] if get_origin(self.hint) is Annotated else ()
        return tuple(note for note in notes if hasattr(note, "check"))

    @property
    def aliases(self) -> tuple[str, ...]:
        """Flat names that it has beside its own, see :func:`rlmix.common.ranges.also`."""
        notes = get_args(self.hint)[1:] if get_origin(self.hint) is Annotated else ()
        return tuple(_flat_name((*self.path[:-1], name)) for note in notes if isinstance(note, Also) for name in note.names)

    @property
    def positional(self) -> bool:
        """Whether it is typed by itself, without a flag."""
        return "Positional" in str(getattr(self.hint, "__metadata__", ()))  # tyro's marker; nothing here imports tyro

    def of(self, config: Any) -> Any:
        """Its value."""
        for name in self.path:
            config = getattr(config, name)
        return config


def aliases_of(kind: type[Any]) -> dict[str, str]:
    """Flat names by the others that options have."""
    return {alias: name for name, option in options_of(kind).items() for alias in option.aliases}


def check_option(name: str, allowed: Collection[str], known: Mapping[str, Option]) -> None:
    """Raise ValueError where ``name`` is no option; of a run's many, the nearest and the command that lists them."""
    check_name("option", name, allowed, "rlmix list options" if "epochs" in known else None)


def options_of(kind: type[Any]) -> dict[str, Option]:
    """Every option of a composed configuration by its flat name, group by group."""
    known: Any = kind
    return _options_of(known)


@cache
def _options_of(kind: type) -> dict[str, Option]:
    return dict(_walk(kind, (), None))


def _walk(kind: type, path: tuple[str, ...], given: Any) -> Iterator[tuple[str, Option]]:
    hints, docs = get_type_hints(kind, include_extras=True), field_docs(kind)
    for entry in fields(kind):
        below, hint = (*path, entry.name), hints[entry.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _walk(hint, below, default_of(entry) if given is None else getattr(given, entry.name))
        else:
            default = default_of(entry) if given is None else getattr(given, entry.name)
            yield _flat_name(below), Option(below, hint, default, docs.get(entry.name, ""), kind)


def _flat_name(path: tuple[str, ...]) -> str:
    *groups, own = path
    if len(groups) > 1:
        return f"{groups[0]}.{own}"
    return groups[-1] if groups and own in ("name", "hyperparameters") else own


def default_of(entry: Field[Any]) -> Any:
    """A field's default, MISSING where it has none."""
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The text below each field of a dataclass, on one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        if not is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body  # type: ignore[attr-defined]
        for line, text in pairwise(body):
            if isinstance(line, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[line.target.id] = " ".join(str(text.value.value).split())  # type: ignore[union-attr]
    return found


def compose(kind: type[Composed], values: Mapping[str, Any]) -> Composed:
    """A configuration of values under their flat names; the others have their defaults.

    Raises:
        TypeError: If an option without a default has no value.
    """
    return kind(**_composed(kind, (), values))


def _composed(kind: type, path: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    hints, found = get_type_hints(kind), {}
    for entry in fields(kind):
        below, hint = (*path, entry.name), hints[entry.name]
        if is_dataclass(hint) and isinstance(hint, type):
            found[entry.name] = hint(**_composed(hint, below, values))
        elif _flat_name(below) in values:
            found[entry.name] = values[_flat_name(below)]
    return found


def changed(config: Composed, values: Mapping[str, Any]) -> Composed:
    """``config`` with other values under these flat names, or whole groups under theirs.

    Args:
        config: A composed configuration.
        values: A mapping under a group's name is of options within a group in it, such as ``{"agent": {"gamma": 0.5}}``.

    Raises:
        ValueError: If there is no option of a name.
    """
    known, inner, others = options_of(type(config)), inner_groups(type(config)), aliases_of(type(config))
    for given, value in values.items():
        name = others.get(given, given)
        outer, _, own = name.partition(".")
        if is_dataclass(value):
            config = _put(config, _place_of_group(config, name, type(value)), value)
        elif name in known:
            config = _put(config, known[name].path, _text_or_path(value, known[name].type))
        elif name in inner and isinstance(value, Mapping):
            config = changed(config, {f"{name}.{below}": entry for below, entry in value.items()})
        elif own and outer in known and isinstance(given := known[outer].of(config), Mapping):
            config = _put(config, known[outer].path, {**given, own: value})
        else:
            check_option(str(name), [*known, *inner], known)
            raise ValueError(f"option {name} must be a mapping, got {value!r}")
    return config


def _text_or_path(value: Any, kind: Any) -> Any:
    """A text as a path where that is what the option holds, and a path as text where that is."""
    if isinstance(value, str) and kind in (Path, Path | None):
        return Path(value)
    return str(value) if isinstance(value, Path) and kind in (str, str | None) else value


def _place_of_group(config: Any, name: str, kind: type) -> tuple[str, ...]:
    path, inner = inner_groups(type(config)).get(name, ((), None))
    outer = get_type_hints(type(config)).get(name)
    if kind not in (outer, inner):
        raise ValueError(f"option {name} must be a {getattr(outer, '__name__', 'known option')}, got a {kind.__name__}")
    return (name,) if kind is outer else path


def inner_groups(kind: type[Any]) -> dict[str, tuple[tuple[str, ...], type]]:
    """Where each group within a group lies, and its dataclass, by the outer one's name."""
    known: Any = kind
    return _inner_groups(known)


@cache
def _inner_groups(kind: type) -> dict[str, tuple[tuple[str, ...], type]]:
    found: dict[str, tuple[tuple[str, ...], type]] = {}
    for outer, hint in get_type_hints(kind).items():
        for inner, own in get_type_hints(hint).items() if is_dataclass(hint) else ():
            if is_dataclass(own) and isinstance(own, type):
                found[outer] = ((outer, inner), own)
    return found


def _put(config: Any, path: tuple[str, ...], value: Any) -> Any:
    name, *below = path
    return replace(config, **{name: _put(getattr(config, name), tuple(below), value) if below else value})


def read_flat(config: Composed, values: Mapping[str, Any]) -> Composed:
    """``config`` with plain values, as YAML holds them, under their flat names.

    Raises:
        ValueError: If there is no option of a name, or a value is none of its option's type.
    """
    known, inner, others = options_of(type(config)), inner_groups(type(config)), aliases_of(type(config))
    read: dict[str, Any] = {}
    for name, value in values.items():
        check_option(str(name), [*known, *inner], known)
        if name in known:
            read[name] = checked(value, known[name].type, name)
        elif not isinstance(value, Mapping):
            raise ValueError(f"option {name} must be a mapping, got {value!r}")
        else:
            for own, entry in value.items():
                flat = others.get(f"{name}.{own}", f"{name}.{own}")
                check_name(
                    "option", flat.partition(".")[2], [flat.partition(".")[2] for flat in known if flat.startswith(f"{name}.")]
                )
                if flat in read:
                    raise ValueError(f"option {name}.{own} must be given once, and is {flat} too")
                read[flat] = checked(entry, known[flat].type, f"{name}.{own}")
    return changed(config, read)


def to_flat(config: Any) -> dict[str, Any]:
    """Plain values by their flat names; those of a group within a group as a mapping under the outer one's name."""
    flat: dict[str, Any] = {}
    for name, option in options_of(type(config)).items():
        value = _plain(option.of(config))
        group, _, own = name.rpartition(".")
        if group:
            flat.setdefault(group, {})[own] = value
        else:
            flat[name] = value
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def check_values(config: Any, prefix: str = "") -> None:
    """Raise ValueError where a value is not what its field says it must be; None and the default always are."""
    for name, option in options_of(type(config)).items():
        value = option.of(config)
        for rule in option.rules if value is not None and value != option.default else ():
            rule.check(prefix + name, value)
