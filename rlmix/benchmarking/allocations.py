"""The most memory that a method's tensors take at one time."""

from collections.abc import Callable
from typing import Any

import torch

from rlmix.benchmarking.profiler import recording
from rlmix.benchmarking.steps import prepare
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.training.devices import open_device


def measure_allocated(name: str, config: Config, data: ImageData) -> float | None:
    """Most memory in MB that tensors take under method ``name``: its network, five steps and a policy's update, not the data.

    What libraries take for themselves within an operation is not counted: resident memory, which has it, varies by a seventh from one
    process to the next. None where the device does not tell, as mps.
    """
    device, _ = open_device(config)
    there = data.to(device)

    def work() -> None:
        timed = prepare(name, config, there)
        for _ in range(5):
            timed.step()
        timed.once_an_epoch()

    measure = {"cuda": _peak_on_cuda, "cpu": _peak_on_cpu}.get(device.type)
    return None if measure is None else measure(work, device) / 2**20


def _peak_on_cuda(work: Callable[[], object], device: torch.device) -> int:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(work: Callable[[], object], device: torch.device) -> int:
    with recording(device, profile_memory=True) as recorded:  # what was there before is in none of its events
        work()
    raw: Any = recorded.profiler  # the averages that a profile gives know no order
    events = [event for event in raw.kineto_results.events() if event.name() == "[memory]"]
    peak = taken = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()
        peak = max(peak, taken)
    return peak
