"""Around every command: one line where users' input or the machine is at fault, and the exit codes."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from rlmix.common.groups import aliases_of
from rlmix.config import Config
from rlmix.experiments.stopping import interrupting
from rlmix.reporting.output import enduring_output


def run_command(command: Callable[[], None], args: Sequence[str] | None = None) -> None:
    """Run; where users' input or the machine is at fault, one line and exit code 2. RLMIX_TRACEBACK=1 shows the traceback.

    Args:
        command: What to run.
        args: The command line, by whose words the line names an option; the process's own where not given.
    """
    warnings.formatwarning = lambda message, *rest: f"rlmix: warning: {message}\n"
    with enduring_output():
        _run(command, sys.argv[1:] if args is None else args)


def _run(command: Callable[[], None], args: Sequence[str]) -> None:
    try:
        with interrupting():
            command()
    except KeyboardInterrupt as interrupt:
        _say("interrupted", interrupt, args)
        sys.exit(getattr(interrupt, "code", 130))  # Interrupted tells a signal or a time limit apart
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("RLMIX_TRACEBACK"):
            raise
        _say("error", error, args)
        sys.exit(2)
    except RuntimeError as error:  # torch says so, at any moment, that the system has killed a process which decodes images
        if os.environ.get("RLMIX_TRACEBACK") or not str(error).startswith("DataLoader worker"):
            raise
        _say("error", error, args)
        sys.exit(2)


def as_typed(text: str, args: Sequence[str]) -> str:
    """An error that begins with an option's own name, with the other one it was typed by."""
    flags = {arg.partition("=")[0] for arg in args}
    for alias, name in aliases_of(Config).items():
        typed = f"--{alias.replace('_', '-')}"
        for own in (f"--{name.replace('_', '-')}", name):
            if typed in flags and text.startswith(f"{own} must "):
                return typed + text[len(own) :]
    return text


def with_flag(text: str, args: Sequence[str]) -> str:
    """An error about a file or folder, with the option that named it where the text does not."""
    flag, typed = "", []
    for arg in args:
        if arg.startswith("--"):
            flag, _, value = arg.partition("=")
        else:
            value = arg
        typed.append((flag, value))
    if any(flag and flag in text for flag, _ in typed):
        return text
    for flag, value in typed:
        path = value.partition(":")[2] or value
        if flag and path and path in text and ("/" in value or ":" in value or Path(value).exists()):
            return f"{text} ({flag} {value})"
    return text


def _say(kind: str, error: BaseException, args: Sequence[str]) -> None:
    text = as_typed(" ".join(str(error).split()), args)
    flag = "--" + text.partition(" must ")[0].replace("_", "-")
    if any(arg.partition("=")[0] == flag for arg in args):  # name it as it was typed
        text = flag + text[len(flag) - 2 :]
    text = with_flag(text, args)
    notes = "; ".join(getattr(error, "__notes__", []))
    print(f"rlmix: {kind}: " + "; ".join(filter(None, (text, notes))), file=sys.stderr)  # noqa: T201
