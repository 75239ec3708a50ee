"""A command as a person at a terminal sees it, and when there was something new to see."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?!\n)")
"""What moves a cursor or colours a text."""
FORGOTTEN = 10.0
"""Seconds in which a text was not drawn. As long as the silence that is asked for, so that a bar that stands still is never new."""


class Watched(NamedTuple):
    """What came of a command."""

    lines: list[str]
    first: float
    """Seconds until something was shown."""
    silence: float
    """The longest time in seconds in which nothing new was: a bar that is drawn again as it was is nothing new; what a later training
    says in the words of an earlier one is, where these were gone for :data:`FORGOTTEN`."""
    seconds: float


def watch(args: Sequence[str], folder: Path, meanwhile: Callable[[], object] = lambda: None) -> Watched:
    """Run a command in a pseudo-terminal of 120 columns, to which both of its streams go; it must succeed.

    It has as many threads as a person's would: what the tests settle for themselves is not handed on.

    Args:
        args: After ``python``.
        folder: Where it runs.
        meanwhile: Called several times a second.
    """
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    begun = time.monotonic()
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, *args], cwd=folder, stdin=its, stdout=its, stderr=its, env=own)
    os.close(its)
    drawn: dict[str, float] = {}
    text, news = b"", []
    try:
        while True:
            meanwhile()
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(ours, 2**16)
            except OSError:  # how a terminal ends
                part = b""
            if not part:
                break
            now, text = time.monotonic(), text + part
            lines = _lines(part)
            news += [now] if any(now - drawn.get(line, -FORGOTTEN) >= FORGOTTEN for line in lines) else []
            drawn |= dict.fromkeys(lines, now)
        code = process.wait(60)
    finally:
        process.kill()
        os.close(ours)
    ended, lines = time.monotonic(), _lines(text)
    assert code == 0, lines[-5:]
    silence = max(after - before for before, after in pairwise([begun, *news, ended]))
    return Watched(lines, news[0] - begun, silence, ended - begun)


def _lines(text: bytes) -> list[str]:
    """Without those that are empty; what is drawn over another is one of its own."""
    return [line.strip() for line in CONTROL.sub("\n", text.decode(errors="replace")).splitlines() if line.strip()]
