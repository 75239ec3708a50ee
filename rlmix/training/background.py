"""Work that is done beside a training, one piece at a time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Background:
    """A thread that takes one piece of work after another. What a piece raises comes with the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rlmix")  # no thread before its first work; the interpreter's end waits for it
        self._work: Future[object] | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin ``work`` when what is in hand is done."""
        self.settle()
        self._work = self._pool.submit(work)

    def settle(self) -> None:
        """Wait for what is in hand, and raise what it has raised; where the wait is interrupted, it stays in hand."""
        if self._work is not None:
            wait([self._work])
            work, self._work = self._work, None
            work.result()
