"""What a person sees of any other long work: a rich bar on a terminal, elsewhere a line now and then; both go to standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rlmix.data.dataset import Dataset
from rlmix.reporting.output import make_console
from rlmix.reporting.progress import Part, spell_seconds

Item = TypeVar("Item")
LINE_SECONDS = 10.0
"""Between two lines where there is no terminal; work that is over sooner has none."""


class Bar:
    """How much of some work is done, and how long the rest takes; a context manager.

    Args:
        what: What is being done.
        total: In any unit.
        quiet: Write nothing.
    """

    def __init__(self, what: str, total: float, quiet: bool = False) -> None:
        self.what, self.total, self.done = what, total, 0.0
        self.console = make_console(stderr=True, quiet=quiet)
        self._begun = self._said = time.monotonic()
        self._bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TaskProgressColumn())
            above = sys.stdout.isatty()  # where lines printed meanwhile go; otherwise they stay in stdout's file
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True, redirect_stdout=above)
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: float = 1, what: str | None = None) -> None:
        """So much more is done; ``what`` is being done from now on."""
        self.done, self.what = self.done + amount, what or self.what
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=self.what)
            return
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS and 0 < self.done < self.total:
            self._said = now
            left = (now - self._begun) * (self.total - self.done) / self.done
            self.console.print(f"{self.what}: {self.done / self.total:.0%}, {spell_seconds(left)} left", soft_wrap=True)
            self.console.file.flush()

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Give the items, and count each when it is done with."""
        for item in items:
            yield item
            self.advance()


@Dataset.register
class Watched:
    """A data set of which every image that is read counts.

    Args:
        data: The data set.
        bar: What counts them.
    """

    def __init__(self, data: Any, bar: Bar | Part) -> None:
        self._data, self._bar = data, bar

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def batches(self, split: str, batch_size: int) -> Iterator[Any]:
        """Give the data set's own."""
        for batch in self._data.batches(split, batch_size):
            yield batch
            self._bar.advance(len(batch.labels))
