"""The help of a command: its groups of options, a line each, the most wanted first."""

import shutil
import textwrap
from dataclasses import MISSING
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rlmix.common.groups import Option, options_of

NARROWEST = 80
FLAGS = 26
"""Columns of an option's flag and what follows it."""


def print_help(kind: type[Any], command: str, about: str | None = None) -> None:
    """Print it, as wide as the terminal."""
    print(describe(kind, command, about, max(NARROWEST, min(shutil.get_terminal_size().columns, 120))))  # noqa: T201


def describe(kind: type[Any], command: str, about: str | None = None, width: int = NARROWEST) -> str:
    """The help of ``rlmix <command>``.

    Args:
        kind: Its options; ``kind.FIRST`` names those that most people need first.
        command: What it is called.
        about: What it does, and lines of examples that begin with ``rlmix``; the docstring of ``kind`` where not given.
        width: Of a line.
    """
    summary, *more = (about or getdoc(kind) or "").strip().split("\n")
    examples = [f"  {line.strip()}" for line in more if line.strip().startswith("rlmix ")]
    known = {name: option for name, option in options_of(kind).items() if "Suppress" not in str(option.hint)}
    first = [name for name in getattr(kind, "FIRST", ()) if name in known]
    lines = [f"usage: rlmix {command} [OPTIONS]", "", *textwrap.wrap(summary, width), *examples]
    if first:
        lines += ["", "First of all:", *(line for name in first for line in _lines(name, known[name], width))]
    for title, names in _groups(kind, known).items():
        rest = [name for name in names if name not in first]
        if rest:
            lines += ["", f"{title}:", *(line for name in rest for line in _lines(name, known[name], width))]
    return "\n".join(
        [*lines, "", "rlmix list FAMILY names methods, models, rewards, ...; docs/options.md tells more of every option."]
    )


def _groups(kind: type[Any], known: dict[str, Option]) -> dict[str, list[str]]:
    """Names of the options by their group's title."""
    groups: dict[str, list[str]] = {}
    for name, option in known.items():
        title = "Of this command" if option.group is kind else (getdoc(option.group) or "").partition("\n")[0].rstrip(".")
        groups.setdefault(title.partition(":")[0].partition(", after")[0], []).append(name)
    return groups


def _lines(name: str, option: Option, width: int) -> list[str]:
    flag = f"  {spell_flag(name, option)}"
    text = f"{flag:<{FLAGS - 2}}  {first_sentence(option.doc)}{spell_default(option)}{_spell_aliases(option)}"
    return textwrap.wrap(text, width, subsequent_indent=" " * FLAGS, break_on_hyphens=False)


def first_sentence(doc: str) -> str:
    """Up to the first full stop that ends a sentence, without it."""
    end = doc.find(". ")
    return (doc if end < 0 else doc[:end]).rstrip(".")


def spell_flag(name: str, option: Option) -> str:
    """``--learning-rate FLOAT``; a positional argument in capitals."""
    flag = f"--{name.replace('_', '-')}"
    if option.path[-1] == "hyperparameters":
        return f"{flag}.NAME VALUE"
    if option.positional:
        return name.upper()
    if option.type is bool:
        return f"--no-{flag[2:]}" if option.default is True else flag
    if option.type == bool | None:
        return f"--[no-]{flag[2:]}"
    return f"{flag} {_spell_type(option.type)}"


def _spell_type(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _spell_type(next(part for part in parts if part is not NoneType))
    if origin is Literal:
        return "|".join(map(str, parts)) if len(parts) < 3 else "NAME"
    if origin is tuple:
        return f"{_spell_type(parts[0])}.."
    return {"str": "NAME", "int": "N", "float": "X", "Path": "PATH"}.get(getattr(hint, "__name__", ""), "VALUE")


def spell_default(option: Option) -> str:
    """`` [0.3]``; nothing where the recipe decides, or it is off."""
    value = option.default
    if value in (None, False, True, "", MISSING) or value == () or option.path[-1] == "hyperparameters":
        return ""
    return f" [{' '.join(map(str, value)) if isinstance(value, tuple) else value}]"


def _spell_aliases(option: Option) -> str:
    """`` (n-epochs)``: what it is called too, in the same group."""
    return f" ({', '.join(_flag(alias).rpartition('.')[2] for alias in option.aliases)})" if option.aliases else ""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def options_page(kind: type[Any]) -> str:
    """docs/options.md: every option with all of its text, its default and what it may be."""
    lines = ["# Options", "", "Of `rlmix train`; `rlmix list options` prints this page. A recipe is what a data set settles, see"]
    lines += ["`rlmix/recipes.py`. Other commands hold some of the groups, with the same names and defaults."]
    known = options_of(kind)
    for title, names in _groups(kind, known).items():
        lines += ["", f"## {title}", ""]
        for name in names:
            option = known[name]
            default = spell_default(option).strip(" []") or ("off" if option.type is bool and not option.default else "")
            allowed = "; ".join(rule.words for rule in option.rules if hasattr(rule, "words"))
            others = f"or `{'`, `'.join(map(_flag, option.aliases))}`" if option.aliases else ""
            notes = ", ".join(part for part in (others, f"default {default}" if default else "", allowed) if part)
            text = f"- `{spell_flag(name, option)}`{f' ({notes})' if notes else ''}: {option.doc}"
            lines += textwrap.wrap(text, 140, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines) + "\n"
