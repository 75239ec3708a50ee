"""What a method's tensors take at most."""

from types import SimpleNamespace

import pytest
import torch
from pretended_cuda import DEVICE, pretended_cuda

from rlmix.benchmarking import allocations
from rlmix.benchmarking.allocations import _peak_on_cpu, measure_allocated
from rlmix.benchmarking.measure import random_data
from rlmix.benchmarking.options import Benchmark

CPU = torch.device("cpu")
OPTIONS = Benchmark(batch_size=8, image_size=16, num_classes=4, device="cpu", precision="float32")


def test_the_peak_is_of_what_is_there_at_one_time():
    def work():
        four = torch.empty(2**20)
        two = torch.empty(2**19)  # six megabytes now
        del four
        one = torch.empty(2**18)
        return two, one

    assert _peak_on_cpu(work, CPU) == 6 * 2**20


def test_what_was_there_before_does_not_count():
    before = [torch.empty(2**20)]

    def work():
        before.clear()
        torch.empty(2**18)

    assert _peak_on_cpu(work, CPU) == 2**20


@pytest.mark.parametrize("name", ["vanilla", "rmix-recycled", "rlmix"])
def test_a_method_takes_the_same_twice(name):
    data = random_data(OPTIONS)
    config = OPTIONS.training.changed(model="small_network:make")
    first, second = (measure_allocated(name, config, data) for _ in range(2))
    assert first == second > 0


def test_kept_maps_are_what_recycling_takes_more():
    """Of a small network, which is not much itself: two bytes a pixel, and four a class, of 2,000 images."""
    options = Benchmark(model="small_network:make", batch_size=100, image_size=32, num_classes=100, device="cpu")
    data = random_data(options)
    exact, recycled = (measure_allocated(name, options.training, data) for name in ("rmix", "rmix-recycled"))
    assert recycled - exact == pytest.approx(2000 * (2 * 32 * 32 + 4 * 100) / 2**20, rel=0.1)


def test_on_a_gpu_it_is_what_is_allocated_beyond_what_was_there(monkeypatch):
    steps = []
    with pretended_cuda(monkeypatch):
        monkeypatch.setattr(allocations, "open_device", lambda config: (DEVICE, None))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**20)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", steps.append)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**20)
        config = OPTIONS.training.changed(model="small_network:make", device="cuda")
        assert measure_allocated("rmix-recycled", config, random_data(OPTIONS)) == 4
    assert steps == [DEVICE]


def test_there_is_no_figure_where_the_device_tells_none(monkeypatch):
    monkeypatch.setattr(allocations, "open_device", lambda config: (torch.device("mps"), None))
    assert measure_allocated("rmix", OPTIONS.training, SimpleNamespace(to=lambda device: None)) is None
