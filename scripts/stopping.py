"""Stopping between two steps: on SIGTERM, on SIGINT, or when the time is up."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIME_LIMIT_CODE = 124
"""Exit code of a run that its time limit stopped, as of timeout(1); a signal's is 128 and its number."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped and can be resumed; ``code`` is what the process should exit with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class StopRequest:
    """Inside this context the first signal only asks to stop; a second one of the same kind acts as ever.

    Args:
        time_limit: Minutes after which to stop; None for no limit.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        self._deadline = None if time_limit is None else time.monotonic() + 60 * time_limit
        self._before: dict[int, Any] = {}
        self._signal: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere no signal arrives
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> Interrupted | None:
        """What to stop with, where a stop was asked for."""
        if self._signal is not None:
            return Interrupted("", 128 + self._signal)
        if self._deadline is not None and time.monotonic() > self._deadline:
            return Interrupted("the time limit is reached", TIME_LIMIT_CODE)
        return None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, self._before[number])
