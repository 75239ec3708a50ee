"""Seconds that steps take, as a whole and by part; on a GPU, after it has finished."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch


class Span(NamedTuple):
    """A method of an object, and the part of a step that the time inside it belongs to."""

    owner: object
    method: str
    part: str


def synchronize(device: torch.device) -> None:
    """Wait until everything asked of ``device`` has happened."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_steps(step: Callable[[], object], device: torch.device, lead: int = 0, run: int = 1) -> float:
    """Seconds a step, as a mean over ``run`` consecutive ones that follow ``lead`` untimed ones."""
    for _ in range(lead):
        step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(run):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / run


def time_parts(
    step: Callable[[], object], spans: Sequence[Span], rest: str, device: torch.device, lead: int = 0, run: int = 1
) -> dict[str, float]:
    """Seconds a step by part, adding up to the step; steps as in :func:`time_steps`.

    The methods in ``spans`` are watched meanwhile. A part does not count what the parts called from within it take, and ``rest``
    is what belongs to no span.
    """
    for _ in range(lead):
        step()
    watch = Stopwatch(device)
    with ExitStack() as stack:
        for span in spans:
            stack.enter_context(watch.watching(span))
        for _ in range(run):
            watch.timed(rest, step)()
    return {part: seconds / run for part, seconds in watch.seconds.items()}


class Stopwatch:
    """Adds up seconds by part, in nested calls each part without those within it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, with its time added to ``part``."""

        def call(*args: Any, **options: Any) -> Any:
            synchronize(self.device)
            start = time.perf_counter()
            self._within.append(0.0)
            result = function(*args, **options)
            synchronize(self.device)
            elapsed = time.perf_counter() - start
            self.seconds[part] += elapsed - self._within.pop()
            self._within[-1] += elapsed
            return result

        return call

    @contextmanager
    def watching(self, span: Span) -> Iterator[None]:
        """Time a method of one object; the object is left as found."""
        setattr(span.owner, span.method, self.timed(span.part, getattr(span.owner, span.method)))
        try:
            yield
        finally:
            delattr(span.owner, span.method)
