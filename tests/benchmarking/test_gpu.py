"""What only a GPU tells, as far as it can be told without one: how waits are counted in a profile's events."""

from types import SimpleNamespace

import torch

from rlmix.benchmarking.gpu import STEP, count_waits, measure_waits, record_steps
from rlmix.benchmarking.measure import random_data
from rlmix.benchmarking.options import Benchmark

CPU = torch.device("cpu")


def event(name, start, end=None, device="CPU"):
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=device), time_range=SimpleNamespace(start=start, end=end or start + 1)
    )


def test_what_waits_within_steps_is_counted():
    events = [
        event("cudaDeviceSynchronize", 5),  # before the first step
        event(STEP, 10, 20),
        event("cudaMemcpyAsync", 11),
        event("cudaStreamSynchronize", 12),
        event("Memcpy DtoH (Device -> Pageable)", 12, device="CUDA"),
        event(STEP, 30, 40),
        event("cudaLaunchKernel", 31),
        event("cudaStreamSynchronize", 32),
        event("cudaEventSynchronize", 33),
        event("Memcpy HtoD (Pinned -> Device)", 34, device="CUDA"),
        event("Memcpy DtoH (Device -> Pinned)", 45, device="CUDA"),  # the device is late
        event(STEP, 10, 60, device="CUDA"),  # the step's shadow there
        event("cudaDeviceSynchronize", 50),  # the end of the profile
    ]
    assert count_waits(events, 2) == {"synchronisations": 1.5, "copies_to_host": 1.0}
    assert count_waits(reversed(events), 2) == count_waits(events, 2)


def test_the_profiler_tells_steps_apart():
    events = record_steps(lambda: torch.ones(3).sum(), CPU, 4)
    steps = [one for one in events if one.name == STEP]
    assert len(steps) == 4
    sums = [one.time_range.start for one in events if one.name == "aten::sum"]
    assert [any(step.time_range.start <= start <= step.time_range.end for start in sums) for step in steps] == [True] * 4
    assert count_waits(events, 4) == {"synchronisations": 0, "copies_to_host": 0}


def test_there_is_no_figure_without_a_gpu():
    options = Benchmark(model="toys:network", batch_size=8, image_size=16, num_classes=4, device="cpu")
    assert measure_waits("rmix", options.training, random_data(options)) is None
