"""How far several trainings are together, and how long the rest takes: by the epochs that lie in their folders."""

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from rlmix.config import Config
from rlmix.experiments.settings import settled
from rlmix.reporting.bar import Bar
from rlmix.reporting.output import make_console
from rlmix.reporting.progress import spell_seconds

NAMED = 2
"""Trainings in progress that are named at most."""


class Overall:
    """What a person sees of several trainings; a context manager.

    Args:
        runs: What is trained, by name.
        at_once: Several at a time, each out of sight: one bar is over all of them. Otherwise each shows itself, and a line before it says
            which of how many it is.
        quiet: Write nothing.
    """

    def __init__(self, runs: Mapping[str, Config], at_once: bool, quiet: bool = False) -> None:
        self._runs, self._at_once = runs, at_once
        self._epochs = {name: settled(run).recipe.epochs for name, run in runs.items()}
        self._console = make_console(quiet=quiet)
        self._ended: set[str] = set()
        self._begun, self._since = self._count(), time.monotonic()
        self._bar = Bar("", sum(self._epochs.values()) - self._begun, quiet=quiet or not at_once)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        self.look()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.__exit__(kind, error, trace)

    def begin(self, name: str) -> None:
        """Say which training follows."""
        done = self._count() - self._begun
        left = sum(self._epochs.values()) - self._begun - done
        ahead = f", {spell_seconds((time.monotonic() - self._since) * left / done)} left for all" if done else ""
        self._say(f"{len(self._ended) + 1}/{len(self._runs)} {name}{ahead}")

    def look(self, running: Iterable[str] = ()) -> None:
        """Show how far those that run at once are; where nothing has changed nothing is written."""
        done, names = self._count() - self._begun, list(running)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        what = f"{len(self._ended)}/{len(self._runs)} trained" + (f", now {', '.join(names[:NAMED])}{more}" if names else "")
        if done != self._bar.done or what != self._bar.what:
            self._bar.advance(done - self._bar.done, what)

    def end(self, name: str, error: str | None) -> None:
        """One has come to its end, or failed."""
        self._ended.add(name)
        if self._at_once or error is not None:
            self._say(f"{len(self._ended)}/{len(self._runs)} {name}: {error or 'finished'}")

    def _count(self) -> int:
        """Epochs done."""
        return sum(epochs if name in self._ended else self._count_of(name) for name, epochs in self._epochs.items())

    def _count_of(self, name: str) -> int:
        path = self._runs[name].folder / "metrics.jsonl"
        return min(path.read_bytes().count(b"\n"), self._epochs[name]) if path.exists() else 0

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()
