"""Command lines from dataclasses, with errors of one line."""

import ast
import contextlib
import io
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, field, make_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro
import yaml

from rlmix.common.groups import aliases_of, changed, compose, options_of
from rlmix.common.ranges import Also
from rlmix.config import followed
from rlmix.experiments.help import first_sentence, print_help
from rlmix.recipes import AUTO

Options = TypeVar("Options")


class UsageError(ValueError):
    """A command line that cannot be understood."""


def parse(
    kind: type[Options], command: str, args: Sequence[str], default: Options | None = None, about: str | None = None
) -> Options:
    """The options of ``rlmix <command>``; --help prints and exits.

    Under --freeze-from, what is not typed is that run's where it has to be: see :func:`rlmix.config.followed`, whose errors are raised.

    Args:
        kind: A composed configuration, see :mod:`rlmix.common.groups`.
        command: By which the help calls it.
        args: The words after it.
        default: What is not typed; the defaults of ``kind`` where not given.
        about: What the help says the command does, with examples.

    Raises:
        UsageError: In one line, where they do not parse.
    """
    args = own_names(kind, args)
    if {"-h", "--help"} & set(args):
        print_help(kind, command, about)
        sys.exit(0)
    options, known = _parse(kind, command, args, default), options_of(kind)
    follows = "freeze_from" in known and known["freeze_from"].of(options) is not None and known["data"].of(options) == AUTO
    return _parse(kind, command, args, followed(options)) if follows else options


def _parse(kind: type[Options], command: str, args: Sequence[str], default: Options | None) -> Options:
    words, open_words = _split_open(kind, args)
    stderr, flat = io.StringIO(), _flat_dataclass(kind, default)
    try:
        with contextlib.redirect_stderr(stderr):
            read = tyro.cli(flat, prog=f"rlmix {command}", args=_with_values(kind, _apart(kind, words)))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(one_line(stderr.getvalue(), options_of(kind))) from None
    values = {name: _read(read, name) for name, option in options_of(kind).items() if not _is_open(option)}
    base = {name: option.of(default) for name, option in options_of(kind).items() if _is_open(option) and default is not None}
    return changed(compose(kind, values | base), open_words)


def _read(read: Any, name: str) -> Any:
    for part in name.split("."):
        read = getattr(read, part)
    return read


def _is_open(option: Any) -> bool:
    """Whether its value is a mapping, whose entries have flags of their own."""
    return option.path[-1] == "hyperparameters"


def _flat_dataclass(kind: type[Any], default: Any) -> type[Any]:
    """A dataclass of the options by their flat names, for tyro; those of a group within a group in one of their own."""
    own: list[Any] = []
    groups: dict[str, list[Any]] = {}
    for name, option in options_of(kind).items():
        if _is_open(option):
            continue
        value = option.default if default is None else option.of(default)
        notes = getattr(option.hint, "__metadata__", ())
        markers = tuple(note for note in notes if note not in option.rules and not isinstance(note, Also))
        hint = Annotated[(option.type, *markers)] if markers else option.type
        group, _, last = name.rpartition(".")
        entry = (last, hint) if value is MISSING else (last, hint, field(default=value))
        (groups.setdefault(group, []) if group else own).append(entry)
    for group, entries in groups.items():
        inner = make_dataclass(group, entries, frozen=True)
        own.append((group, inner, field(default_factory=inner)))
    return make_dataclass(kind.__name__, sorted(own, key=len), frozen=True)


def _split_open(kind: type[Any], args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words of ``--mixing.NAME VALUE...`` apart from the others, as values."""
    outer = {option.path[0] for option in options_of(kind).values() if _is_open(option)}
    words: list[str] = []
    found: dict[str, list[str]] = {}
    target = words
    for arg in args:
        flag, equals, value = arg.partition("=")
        group, dot, name = flag.removeprefix("--").partition(".")
        if flag.startswith("--") and dot and group in outer and name:
            target = found.setdefault(f"{group}.{name.replace('-', '_')}", [])
            target += [value] if equals else []
        elif arg.startswith("--"):
            target = words
            words.append(arg)
        else:
            target.append(arg)
    for name, given in found.items():
        if not given:
            raise UsageError(f"--{name.replace('_', '-')} must be followed by a value")
    values = {name: [yaml.safe_load(word) for word in given] for name, given in found.items()}
    return words, {name: given[0] if len(given) == 1 else given for name, given in values.items()}


def _apart(kind: type[Any], args: Sequence[str]) -> list[str]:
    """``--seeds 0,1`` as ``--seeds 0 1``: of options that take several numbers, and of several names that registries have."""
    several = {
        f"--{name.replace('_', '-')}"
        for name, option in options_of(kind).items()
        for hint in (get_args(option.type) if get_origin(option.type) in (Union, UnionType) else (option.type,))
        if get_origin(hint) is tuple
        and (get_args(hint)[0] in (int, float) or name in ("methods", "models", "metrics", "loggers"))
    }
    words: list[str] = []
    taking = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        taking = (flag in several) if arg.startswith("--") else taking
        split = value if taking and equals else arg if taking and not arg.startswith("--") else ""
        if "," in split:
            words += [*([flag] if equals else []), *(word for word in split.split(",") if word)]
        else:
            words.append(arg)
    return words


def _with_values(kind: type[Any], args: Sequence[str]) -> list[str]:
    """``--flip`` and ``--no-flip`` of options that are True, False or None as the pairs of words that tyro reads."""
    names = [name.replace("_", "-") for name, option in options_of(kind).items() if option.type == bool | None]
    words = {f"--{name}": [f"--{name}", "True"] for name in names} | {f"--no-{name}": [f"--{name}", "False"] for name in names}
    given = [
        arg for arg, after in zip(args, [*args[1:], ""], strict=False) if arg in words and after in ("True", "False", "None")
    ]
    return [word for arg in args for word in ([arg] if arg in given else words.get(arg, [arg]))]


def own_names(kind: type[Any], args: Sequence[str]) -> list[str]:
    """``args`` with the options' own names in place of the others they have."""
    others = {f"--{alias}": f"--{name.replace('_', '-')}" for alias, name in aliases_of(kind).items()}

    def own(arg: str) -> str:
        flag, equals, value = arg.partition("=")
        return others.get(flag.replace("-", "_").replace("__", "--", 1), flag) + equals + value

    return [own(arg) if arg.startswith("--") else arg for arg in args]


ELSEWHERE = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "arch": "model",
    "network": "model",
    "dataset": "data",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "num_workers": "workers",
    "gpu": "device",
    "gpus": "devices",
    "output": "out",
    "output_dir": "out",
    "mixup": "method",
    "early_stopping": "patience",
    "amp": "precision",
    "val_split": "val_fraction",
}
"""What options are called in other places, where no letters would tell."""


def _choice(found: re.Match[str], known: Collection[str]) -> str:
    choices, value = [choice for choice in re.findall(r"'([^']*)'", found[3]) if choice != "None"], found[1]
    near = get_close_matches(value, choices, n=1, cutoff=0.5)
    return f"{found[2]} must be one of {', '.join(choices)}, got {value!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def _words_of(hint: Any) -> str:
    """What somebody has to type for a value of this type."""
    origin, parts = get_origin(hint), [part for part in get_args(hint) if part not in (NoneType, ...)]
    if origin in (Union, UnionType):
        return _words_of(parts[0])
    if origin is tuple:
        return f"one or more, each {_words_of(parts[0])}"
    return {int: "a whole number", float: "a number", bool: "True or False"}.get(hint, "a value of its type")


def _type(found: re.Match[str], known: Collection[str]) -> str:
    option = known.get(found[1].removeprefix("--").replace("-", "_")) if isinstance(known, Mapping) else None
    wanted = "a value of its type" if option is None else _words_of(option.type)
    return f"{found[1]} must be {wanted}, got {' '.join(map(str, ast.literal_eval(found[2])))}"


def _missing(found: re.Match[str], known: Collection[str]) -> str:
    option = known.get(found[1]) if isinstance(known, Mapping) else None
    return f"{found[1].upper()} must be given" + (f": {first_sentence(option.doc)}" if option is not None else "")


_SAID: tuple[tuple[str, Callable[[re.Match[str], Collection[str]], str]], ...] = (
    (r"invalid choice '(.*?)' for argument '(--[\w.-]+)'. Expected one of \((.*)\) ?\.?", _choice),
    (r"Error parsing (--[\w.-]+): .*?(\[.*\])\.?", _type),
    (r"Missing value for argument '(\w+)'.*", _missing),
    (r"Missing from rlmix [\w-]+: \S+ (\w+) \(required\)", _missing),
    (r"Missing value for argument '(--[\w.-]+)'.*", lambda found, known: f"{found[1]} must be followed by a value, got none"),
)
"""What tyro says, and how it is said here."""


def one_line(box: str, known: Collection[str] = ()) -> str:
    """Tyro's boxed error as one line: what is wrong, and the option it would have been, one of ``known``."""
    lines = [re.sub(r"[╭╮╰╯│─]+|-{3,}", " ", line).strip() for line in box.splitlines()[1:]]  # dashes where there is no Unicode
    while lines and not lines[0]:
        del lines[0]
    breaks = [index for index, line in enumerate(lines) if not line]
    what = " ".join(lines[: breaks[0]] if breaks else lines)
    for pattern, said in _SAID:
        found = re.fullmatch(pattern, what)
        if found:
            return said(found, known)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", " ".join(lines))
    typed = re.search(r"Unrecognized options: --([\w-]+)", what)
    name = typed[1].replace("-", "_") if typed else ""
    option = known.get(name) if isinstance(known, Mapping) else None
    if option is not None and option.positional:
        return f"{name.upper()} must be given by itself, without --{name}"
    meant = [ELSEWHERE[name]] if ELSEWHERE.get(name) in known else get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"--{meant[0].replace('_', '-')}" if meant else near[1] if near else None
    return f"{what.rstrip('.')} (did you mean {hint}?)" if hint else what


def typed_options(kind: type[Any], args: Sequence[str]) -> frozenset[str]:
    """Names of the options that stand in ``args``, also where the value is the default; those with a dot as ``agent.gamma``."""
    known, args = options_of(kind), own_names(kind, args)
    outer = {option.path[0] for option in known.values() if _is_open(option)}
    flags = [arg.partition("=")[0].removeprefix("--").replace("-", "_") for arg in args if arg.startswith("--")]
    either = (name for flag in flags for name in (flag, re.sub(r"(^|\.)no_", r"\1", flag)))
    return frozenset(name for name in either if name in known or ("." in name and name.partition(".")[0] in outer))


def read_args(args: Sequence[str] | None) -> list[str]:
    """The arguments given, or the process's."""
    return list(sys.argv[1:] if args is None else args)
