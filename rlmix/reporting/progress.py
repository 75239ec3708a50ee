"""What a person sees of a training: a rich bar on a terminal, a line an epoch elsewhere."""

import time
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rlmix.reporting.output import make_console

REFRESH_SECONDS = 0.5
"""Between two looks at the device; a look is a synchronisation."""


ESTIMATED_AFTER = 10
"""Steps after the first one, which is no measure, whose pace is an estimate of the rest."""


class TrainingProgress:
    """Progress of one run; a context manager.

    Args:
        num_steps: Of the whole training.
        done: Steps done before.
        epochs: Of the whole training.
        quiet: Write nothing.
    """

    def __init__(self, num_steps: int, done: int, epochs: int, quiet: bool = False) -> None:
        self.console = make_console(quiet=quiet)
        self.epochs, self._test = epochs, ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = 0.0
        self._num_steps, self._paced = num_steps, (0, 0.0)
        self._estimated = False
        if self.console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(compact=True), console=self.console)
            self._task = self._bar.add_task("starting", total=num_steps, completed=done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def pace(self, step: int) -> None:
        """After a step: once, as soon as the pace is known, say how long the others take."""
        if self._estimated:
            return
        begun, since = self._paced
        if not begun:
            self._paced = (step, time.monotonic())
        elif step - begun >= ESTIMATED_AFTER:
            self._estimated = True
            seconds = (time.monotonic() - since) / (step - begun)
            left = self._num_steps - step
            self.say(f"{'estimate':<9}{spell_seconds(left * seconds)} for the {left} steps left, {seconds:.2g} s each")

    def due(self) -> bool:
        """Whether it is time to show a step: at most twice a second, and only on a terminal."""
        return self._bar is not None and time.monotonic() - self._last > REFRESH_SECONDS

    def step(self, epoch: int, step: int, loss: float, reward: float | None) -> None:
        """Show where the training is."""
        if self._bar is None or self._task is None:
            return
        self._last = time.monotonic()
        parts = [f"epoch {epoch}/{self.epochs}", f"loss {loss:.3f}", self._test]
        parts += [] if reward is None else [f"reward {reward:.3f}"]
        self._bar.update(self._task, completed=step, description="  ".join(filter(None, parts)))

    def stage(self, text: str) -> None:
        """Show on the bar what is being done beside training."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)

    def part(self, what: str, total: float) -> "Part":
        """Show what is being done beside training, and how much of it is done."""
        self.stage(what)
        return Part(self, what, total)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print a line about an epoch."""
        measured = "test_top1" in record
        self._test = f"top-1 {record['test_top1']:.2f}" if measured else self._test
        parts = [f"epoch {record['epoch']}/{self.epochs}", f"step {record['step']}", f"loss {record['train_loss']:.3f}"]
        parts += [self._test] if measured else []
        for figure, form in (("reward_mean", "reward {:.4f}"), ("top_k_mean", "top-k {:.3f}")):
            if figure in record:
                parts.append(form.format(record[figure]))
        parts.append(f"{record['epoch_seconds']:.1f} s")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record["step"])
        self.say("  ".join(parts))

    def say(self, text: str) -> None:
        """Print a line, at once also into a file."""
        self.console.print(text, soft_wrap=True)
        self.console.file.flush()


def spell_seconds(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``, ``2.5 days``: two figures are all that an estimate is worth."""
    for unit, size, least in (("days", 86_400, 48 * 3600), ("h", 3600, 5400), ("min", 60, 100)):
        if seconds >= least:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


class Part:
    """Some work beside the steps of a training; it counts as a :class:`~rlmix.reporting.bar.Bar` does.

    Args:
        progress: Where it is shown.
        what: What is being done.
        total: In any unit.
    """

    def __init__(self, progress: TrainingProgress, what: str, total: float) -> None:
        self.progress, self.what, self.total, self.done = progress, what, total, 0.0

    def advance(self, amount: float = 1) -> None:
        """So much more is done."""
        self.done += amount
        self.progress.stage(f"{self.what}: {self.done / self.total:.0%}")
