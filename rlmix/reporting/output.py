"""What people read: it shows paths and names letter by letter, and outlives its reader.

A closed terminal or pipe, or a full disk under a log, costs the lines and not the run.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def make_console(**options: Any) -> "Console":
    """A rich console on which no part of a path or name is markup, an emoji or a number to colour: not [/b], nor [lr=0.1], nor :x:."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def conclude(table: "Table", sentences: Iterable[str], written: str) -> None:
    """Print what a study comes to: its table, what is to be said of it, and last where it was written."""
    console = make_console() if sys.stdout.isatty() else make_console(width=180)
    console.print(table)
    for line in (*sentences, f"written to {written}"):
        console.print(line, soft_wrap=True)


def literal(text: str) -> str:
    """``text`` for matplotlib, to which a pair of dollars is a formula."""
    return text.replace("$", r"\$")


class Enduring:
    """A text stream that goes on as nothing where writing fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._abandon()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._abandon()

    def _abandon(self) -> None:
        """Let the descriptor lead nowhere: what is buffered, and what others write, does not fail any more."""
        with contextlib.suppress(OSError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def enduring_output() -> Iterator[None]:
    """Inside, the process's streams are :class:`Enduring`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Enduring(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
