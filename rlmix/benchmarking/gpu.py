"""What only a GPU tells of a step: how often the host waits for it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import record_function

from rlmix.benchmarking.profiler import recording
from rlmix.benchmarking.steps import prepare
from rlmix.benchmarking.stopwatch import synchronize
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.training.devices import open_device

WARMUP, STEPS = 3, 10
"""Steps before those looked at, and those. Together fewer than an epoch of the benchmark's images: its end reads what it counted."""
STEP = "rlmix: a step"
"""By which a profile's events tell what happened within a step."""


def measure_waits(name: str, config: Config, data: ImageData) -> dict[str, float] | None:
    """How often a step of method ``name`` waits, as of :func:`count_waits`, a policy's update left out; None where there is no GPU."""
    device, _ = open_device(config)
    if device.type != "cuda":
        return None
    timed = prepare(name, config, data.to(device))
    for _ in range(WARMUP):
        timed.step()
    return count_waits(record_steps(timed.step, device, STEPS), STEPS)


def record_steps(step: Callable[[], object], device: torch.device, steps: int) -> list[Any]:
    """The profiler's events of so many steps, each within an event :data:`STEP`."""
    synchronize(device)
    with recording(device) as recorded:
        for _ in range(steps):
            with record_function(STEP):
                step()
        synchronize(device)  # outside of the steps, and not counted
    return list(recorded.events() or ())


def count_waits(events: Iterable[Any], steps: int) -> dict[str, float]:
    """Count what makes the host wait.

    Args:
        events: Of a profile, with ``name``, ``device_type`` and ``time_range``.
        steps: How many steps they are of.

    Returns:
        ``synchronisations``: calls within a step that return when the device is done (``cudaStreamSynchronize`` and its like; each
        copy to memory that is not pinned has one), and ``copies_to_host``: copies from the device to the host. Both a step.
    """
    host: list[Any] = []
    device: list[Any] = []
    for event in events:
        (host if event.device_type.name == "CPU" else device).append(event)
    within = [event.time_range for event in host if event.name == STEP]
    waiting = [
        event
        for event in host
        if event.name.endswith("Synchronize") and any(span.start <= event.time_range.start <= span.end for span in within)
    ]
    copies = [event for event in device if event.name.startswith("Memcpy DtoH")]
    return {"synchronisations": len(waiting) / steps, "copies_to_host": len(copies) / steps}
