"""Eight hours in small: 500 epochs on a tiny network, without growth of memory, of open files or of what lies in the folder."""

import os
import resource
import sys

import numpy as np
import pytest
from torch import nn

import rlmix.models
from rlmix.experiments.session import Session
from rlmix.scripts import train as command

EPOCHS = 500


def tiny_network(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, num_classes)
    )


def resident_mb():
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_five_hundred_epochs_grow_nothing(tmp_path, monkeypatch, register):
    register(rlmix.models.MODELS, "tiny", tiny_network)
    out, memory, files, kept = tmp_path / "run", [], [], []
    end_epoch = Session.end_epoch

    def measure(session, update):
        end_epoch(session, update)
        memory.append(resident_mb())
        files.append(len(os.listdir("/proc/self/fd")))
        names = ["events" if "tfevents" in path.name else path.suffix for path in out.rglob("*") if path.is_file()]
        kept.append(sorted(names))

    monkeypatch.setattr(Session, "end_epoch", measure)
    options = ["--data", "digits", "--train-images", "128", "--batch-size", "32", "--epochs", str(EPOCHS), "--model", "tiny"]
    command.main([*options, "--method", "rlmix", "--agent.passes", "2", "--out", str(out)])
    assert len(memory) == EPOCHS
    assert max(files[10:]) <= files[10] + 1
    assert kept[10] == kept[-1] == [".jsonl", ".pt", ".pt", ".yaml", "events"]
    hundreds = [float(np.median(memory[start : start + 100])) for start in range(100, EPOCHS, 100)]
    print("MB, medians of a hundred epochs each:", hundreds, "files:", files[10], files[-1])  # noqa: T201
    assert hundreds[-1] < hundreds[0] + 20  # the records of 500 epochs are a few hundred kilobytes
