"""timm's networks, fine-tuned by AdamW under the methods that mix images and those that mix features."""

import numpy as np
import pytest
import torch
from toys import write_npz

import rlmix
from rlmix.models import build_model
from rlmix.training.run_folder import read_metrics

pytest.importorskip("timm")

NETWORKS = ["timm:resnet10t", "timm:vit_tiny_patch16_224", "timm:convnext_atto"]


@pytest.mark.parametrize("method", ["rmix", "rlmix", "automix", "alignmix"])
@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.filterwarnings("ignore:.*keeps its stem")
def test_two_steps_under_a_method(model, method, tmp_path):
    config = rlmix.Config.flat(
        data=write_npz(tmp_path, 64, num_train=8, num_test=4, num_classes=4), model=model, method=method, optimizer="adamw",
        batch_size=4, epochs=1, learning_rate=1e-3, schedule="constant", metrics=("ece",), device="cpu", picture_every=0,
        out=tmp_path / "run",
    )  # fmt: skip
    rlmix.train(config, quiet=True)
    (record,) = read_metrics(tmp_path / "run")
    assert record["step"] == 2
    assert 0 < record["train_loss"] < 20
    assert np.isfinite(record["test_loss"])
    trained, drawn = rlmix.load_model(tmp_path / "run", "cpu"), build_model(model, 4, 3, 0, (64, 64))
    moved = [float((new - old).detach().abs().max()) for new, old in zip(trained.parameters(), drawn.parameters(), strict=True)]
    # AdamW's first steps are about the learning rate each, whatever the gradient's size
    assert 1e-4 < np.median(moved) < 4e-3
    assert torch.is_tensor(trained(torch.rand(1, 3, 64, 64)))
