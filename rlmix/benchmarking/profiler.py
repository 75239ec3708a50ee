"""What torch.profiler tells of a training step, and which operators its time goes to."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from rlmix.benchmarking.stopwatch import synchronize


@contextmanager
def recording(device: torch.device, profile_memory: bool = False) -> Iterator[profile]:
    """Have torch.profiler watch the host and ``device``, without a word of its own on the terminal."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *cuda], profile_memory=profile_memory) as recorded:
        yield recorded


def top_operators(step: Callable[[], object], device: torch.device, steps: int = 5, rows: int = 12) -> str:
    """The operators with most time of their own on ``device``, without what they call, as a text table.

    Args:
        step: What to profile, warmed up.
        device: Where its work happens.
        steps: Steps profiled.
        rows: Operators listed; one more line sums the others.
    """
    on_cuda = device.type == "cuda"
    with recording(device) as recorded:
        for _ in range(steps):
            step()
        synchronize(device)
    microseconds = {
        entry.key: (entry.self_device_time_total if on_cuda else entry.self_cpu_time_total, entry.count)
        for entry in recorded.key_averages()
        if not on_cuda or entry.device_type.name == "CUDA"  # kernels; operators would count their time again
    }
    total = sum(own for own, _ in microseconds.values())
    ranked = sorted(microseconds.items(), key=lambda item: -item[1][0])
    lines = [f"{'ms a step':>10} {'share':>7} {'calls':>7}  operator"]
    for name, (own, count) in ranked[:rows]:
        lines.append(f"{own / 1000 / steps:10.2f} {own / max(total, 1e-9):7.1%} {count / steps:7.1f}  {name[:70]}")
    others = sum(own for _, (own, _) in ranked[rows:])
    lines.append(f"{others / 1000 / steps:10.2f} {others / max(total, 1e-9):7.1%} {'':7}  {len(ranked[rows:])} others")
    return "\n".join(lines)
