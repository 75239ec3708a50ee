"""Command lines from dataclasses, with errors of one line."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

import tyro

from rlmix.config import AUTO, TrainingConfig
from rlmix.names import check_name

Options = TypeVar("Options")


class UsageError(ValueError):
    """A command line that cannot be understood."""


def parse(kind: type[Options], command: str, args: Sequence[str], default: Options | None = None) -> Options:
    """The options of ``rlmix <command>``; UsageError, in one line, where they do not parse. --help prints and exits.

    Under --freeze-from, what is not typed is that run's where it has to be: see :func:`rlmix.frozen.follow`, whose errors are raised.
    """
    options = _parse(kind, command, args, default)
    if isinstance(options, TrainingConfig) and options.freeze_from is not None and options.data == AUTO:
        return _parse(kind, command, args, options.followed())
    return options


def _parse(kind: type[Options], command: str, args: Sequence[str], default: Options | None) -> Options:
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            if default is None:
                return tyro.cli(kind, prog=f"rlmix {command}", args=list(args))
            return tyro.cli(kind, prog=f"rlmix {command}", args=list(args), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(one_line(stderr.getvalue())) from None


def one_line(box: str) -> str:
    """tyro's boxed error as one line: what is wrong, and the option it would have been."""
    lines = [re.sub(r"[╭╮╰╯│─]+|-{3,}", " ", line).strip() for line in box.splitlines()[1:]]  # dashes where there is no Unicode
    while lines and not lines[0]:
        del lines[0]
    breaks = [index for index, line in enumerate(lines) if not line]
    what = " ".join(lines[: breaks[0]] if breaks else lines)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", " ".join(lines))
    return f"{what.rstrip('.')} (did you mean {near[1]}?)" if near else what


def to_args(kind: type[Any], values: dict[str, Any], prefix: str = "") -> list[str]:
    """A mapping as command-line arguments, so that a file's values pass the same checks as typed ones.

    Raises:
        ValueError: If ``kind`` has no such option.
    """
    known = {field.name: field for field in fields(kind)}
    args: list[str] = []
    for name, value in values.items():
        check_name("option", str(name), known)
        flag = f"--{prefix}{name.replace('_', '-')}"
        field = known[name]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if is_dataclass(default):
            if not isinstance(value, dict):
                raise ValueError(f"option {name} must be a mapping, got {value!r}")
            args += to_args(type(default), value, f"{name}.")
        elif isinstance(default, bool) and isinstance(value, bool):
            args.append(flag if value else f"--{prefix}no-{name.replace('_', '-')}")
        elif isinstance(value, list):
            args += [flag, *map(str, value)]
        else:
            args += [flag, str(value)]
    return args


def read_args(args: Sequence[str] | None) -> list[str]:
    """The arguments given, or the process's."""
    return list(sys.argv[1:] if args is None else args)
