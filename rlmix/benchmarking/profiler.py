"""Which operators a training step's time goes to, by torch.profiler."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from rlmix.benchmarking.stopwatch import synchronize


def top_operators(step: Callable[[], object], device: torch.device, steps: int = 5, rows: int = 12) -> str:
    """The operators with most time of their own on ``device``, without what they call, as a text table.

    Args:
        step: What to profile, warmed up.
        device: Where its work happens.
        steps: Steps profiled.
        rows: Operators listed; one more line sums the others.
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
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
