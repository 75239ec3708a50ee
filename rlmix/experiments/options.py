"""Command lines from dataclasses, with errors of one line."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import tyro

from rlmix.config import TrainingConfig
from rlmix.recipes import AUTO

Options = TypeVar("Options")


class UsageError(ValueError):
    """A command line that cannot be understood."""


def parse(kind: type[Options], command: str, args: Sequence[str], default: Options | None = None) -> Options:
    """The options of ``rlmix <command>``; UsageError, in one line, where they do not parse. --help prints and exits.

    Under --freeze-from, what is not typed is that run's where it has to be: see :meth:`rlmix.config.TrainingConfig.followed`, whose errors
    are raised.
    """
    options = _parse(kind, command, args, default)
    if isinstance(options, TrainingConfig) and options.freeze_from is not None and options.data == AUTO:
        return _parse(kind, command, args, options.followed())
    return options


def _parse(kind: type[Options], command: str, args: Sequence[str], default: Options | None) -> Options:
    stderr, args = io.StringIO(), _with_values(kind, args)
    try:
        with contextlib.redirect_stderr(stderr):
            if default is None:
                return tyro.cli(kind, prog=f"rlmix {command}", args=args)
            return tyro.cli(kind, prog=f"rlmix {command}", args=args, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(one_line(stderr.getvalue())) from None


def _with_values(kind: type[Any], args: Sequence[str]) -> list[str]:
    """``--flip`` and ``--no-flip`` of options that are True, False or None as the pairs of words that tyro reads."""
    names = [name.replace("_", "-") for name, hint in get_type_hints(kind).items() if hint == bool | None]
    words = {f"--{name}": [f"--{name}", "True"] for name in names} | {f"--no-{name}": [f"--{name}", "False"] for name in names}
    given = [
        arg for arg, after in zip(args, [*args[1:], ""], strict=False) if arg in words and after in ("True", "False", "None")
    ]
    return [word for arg in args for word in ([arg] if arg in given else words.get(arg, [arg]))]


def one_line(box: str) -> str:
    """tyro's boxed error as one line: what is wrong, and the option it would have been."""
    lines = [re.sub(r"[╭╮╰╯│─]+|-{3,}", " ", line).strip() for line in box.splitlines()[1:]]  # dashes where there is no Unicode
    while lines and not lines[0]:
        del lines[0]
    breaks = [index for index, line in enumerate(lines) if not line]
    what = " ".join(lines[: breaks[0]] if breaks else lines)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", " ".join(lines))
    return f"{what.rstrip('.')} (did you mean {near[1]}?)" if near else what


def typed_options(kind: type[Any], args: Sequence[str]) -> frozenset[str]:
    """Names of the options that stand in ``args``, also where the value is the default; those of a group as ``agent.gamma``."""
    flags = [arg.partition("=")[0].removeprefix("--").replace("-", "_") for arg in args if arg.startswith("--")]
    return frozenset(name for flag in flags for name in (flag, re.sub(r"(^|\.)no_", r"\1", flag)) if name in _names(kind))


def _names(kind: type[Any], prefix: str = "") -> set[str]:
    names = set()
    for entry in fields(kind):
        group: Any = entry.default_factory  # of a nested group its class
        names |= _names(group, f"{prefix}{entry.name}.") if is_dataclass(group) else {prefix + entry.name}  # type: ignore[arg-type]
    return names


def read_args(args: Sequence[str] | None) -> list[str]:
    """The arguments given, or the process's."""
    return list(sys.argv[1:] if args is None else args)
