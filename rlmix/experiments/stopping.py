"""Stopping between two steps: on a signal that asks for it, or when the time is up."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_PERSONAL = ("SIGINT", "SIGTERM", "SIGQUIT")
_SCHEDULED = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in (*_PERSONAL, *_SCHEDULED) if hasattr(signal, name))
"""What asks a run to end: people, closed terminals and schedulers (SIGUSR1 and SIGUSR2 some time before the end, as the job says, SIGXCPU
at a limit of CPU time), as far as this system has them."""
TIME_LIMIT_CODE = 124
"""Exit code of a run that its time limit stopped, as of timeout(1); a signal's is 128 and its number."""

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A run was stopped and can be resumed; ``code`` is what the process should exit with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code

    @classmethod
    def by(cls, number: int) -> Self:
        """By a signal."""
        return cls(signal.Signals(number).name, 128 + number)


class StopRequest:
    """Inside this context the first signal of :data:`SIGNALS` only asks to stop.

    A second one of the same kind acts as ever, unless it :func:`comes_again` by itself.

    Args:
        time_limit: Minutes after which to stop; None for no limit.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        self._deadline = None if time_limit is None else time.monotonic() + 60 * time_limit
        self._before: dict[int, Any] = {}
        self._signal: int | None = None

    def __enter__(self) -> Self:
        self._before = handle(self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        put_back(self._before)

    @property
    def reason(self) -> Interrupted | None:
        """What to stop with, where a stop was asked for."""
        if self._signal is not None:
            return Interrupted.by(self._signal)
        if self._deadline is not None and time.monotonic() > self._deadline:
            return Interrupted("the time limit is reached", TIME_LIMIT_CODE)
        return None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if not comes_again(number):
            signal.signal(number, self._before[number])


@contextmanager
def interrupting() -> Iterator[None]:
    """Inside, any of :data:`SIGNALS` raises :class:`Interrupted`, as Ctrl-C does by itself; what :func:`comes_again`, once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if comes_again(number):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted.by(number)

    before = handle(interrupt)
    try:
        yield
    finally:
        put_back(before)


def comes_again(number: int) -> bool:
    """Whether a signal is sent more than once for one reason.

    SIGXCPU is every second, a scheduler's to every process of a job, and then once more by the process that started this
    one. Where that is torchrun, it hands on all of them.
    """
    return "WORLD_SIZE" in os.environ or signal.Signals(number).name in _SCHEDULED


def handle(handler: Handler) -> dict[int, Any]:
    """Have ``handler`` called for :data:`SIGNALS`, and give those from before; a signal that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere no signal arrives
        return {}
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def put_back(handlers: dict[int, Any]) -> None:
    """The inverse of :func:`handle`."""
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None is one that Python has not set
