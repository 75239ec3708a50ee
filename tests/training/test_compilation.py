"""torch.compile: where it cannot work, training goes on; where it can, it computes the same (slow: a compiler runs)."""

import shutil

import pytest
import torch
from toys import toy_config

import rlmix
from rlmix.models import build_model
from rlmix.training.compilation import can_compile, compile_saliency
from rlmix.training.trainer import Training


def test_without_a_compiler_one_warning_and_the_plain_network(tmp_path, monkeypatch):
    def no_compiler(function):
        def fail(*args):
            raise RuntimeError("no C++ compiler\n found")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.warns(RuntimeWarning, match=r"torch.compile does not work here.*no C\+\+ compiler found") as caught:
        training = Training(toy_config(tmp_path, 16, compile=True))
    assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1
    plain = Training(toy_config(tmp_path, 16))
    for each in (training, plain):
        each.fit_epoch()
    assert training.epoch_metrics() == plain.epoch_metrics()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_passes_compute_the_same(tmp_path):
    assert can_compile(torch.device("cpu"))
    model = build_model("preactresnet18_w16", num_classes=10).double()
    images, labels = torch.randn(16, 3, 16, 16, dtype=torch.float64), torch.arange(16) % 10
    plain, compiled = (rlmix.saliency(model, images, labels, forward) for forward in (None, compile_saliency(model)))
    torch.testing.assert_close(compiled, plain, atol=1e-6, rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())
    losses = []
    for compiles in (False, True):
        training = Training(toy_config(tmp_path, 16, compile=compiles, epochs=1))
        losses.append(training.fit_epoch()["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
