"""rlmix export: what other libraries read is what the run has learned."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from toys import write_npz

from rlmix.checkpoints import list_checkpoints, load_checkpoint
from rlmix.models import build_model
from rlmix.scripts import export, train


@pytest.mark.parametrize("options", [["--method", "rlmix"], ["--method", "vanilla"]], ids=lambda options: options[1])
def test_export_is_what_the_newest_checkpoint_holds(options, tmp_path, capsys):
    data = write_npz(tmp_path, 8)
    recipe = ["--batch-size", "16", "--epochs", "1", "--model", "preactresnet18_w16"]
    train.main(["--data", data, *recipe, *options, "--out", str(tmp_path / "run")])
    capsys.readouterr()
    export.main([str(tmp_path / "run"), "--out", str(tmp_path / "exported")])
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names == ["classifier.pt", "policy.zip"][: 1 + ("rlmix" in options)]

    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    model = build_model("preactresnet18_w16", 10)
    model.load_state_dict(torch.load(tmp_path / "exported" / "classifier.pt", weights_only=True))
    assert all(torch.equal(value, state["training"]["model"][name]) for name, value in model.state_dict().items())
    if "rlmix" in options:
        policy = PPO.load(tmp_path / "exported" / "policy.zip", device="cpu").policy
        saved = state["decider"]["parameters"]["policy"]
        assert all(torch.equal(value, saved[name]) for name, value in policy.state_dict().items())
        actions, _ = policy.predict(np.zeros((5, *policy.observation_space.shape), np.float32))
        assert actions.shape == (5,)
        assert set(actions) <= set(range(10))
