"""Where a training runs, and what that leaves behind in the process."""

import os

import pytest
import torch

import rlmix
from rlmix.training.devices import open_device
from rlmix.training.trainer import Training

CONFIG = rlmix.Config.flat(data="digits", train_images=32, batch_size=16, epochs=1, model="toy_package:network", device="cpu")


def test_a_step_on_the_cpu_looks_for_no_gpu(monkeypatch):
    """With what lightning-fabric sets, every step of torch's optimizers would look for NVIDIA's library."""
    looked = []
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: looked.append(1) or 0)
    assert not torch.cuda.is_available()
    assert looked  # the lookup is the one that the variable asks for
    training = Training(CONFIG)
    looked.clear()
    training.fit_step()
    assert not looked
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ


@pytest.mark.parametrize("name", ["tpu", "xpu", "cuda:9", "mps"])
def test_a_device_that_is_not_there(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"^device must be .*, got '{name}'$"):
        open_device(CONFIG.changed(device=name))
