"""rlmix export: what other libraries read is what the run has learned."""

import shutil

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from torch import nn
from toys import NETWORK, write_npz

from rlmix.agents.learned import LearnedPolicy
from rlmix.models import build_model
from rlmix.scripts import export, train
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint


@pytest.mark.parametrize("options", [["--method", "rlmix"], ["--method", "vanilla"]], ids=lambda options: options[1])
def test_export_is_what_the_newest_checkpoint_holds(options, tmp_path, capsys):
    data = write_npz(tmp_path, 8)
    recipe = ["--batch-size", "16", "--epochs", "1", "--model", NETWORK]
    train.main(["--data", data, *recipe, *options, "--out", str(tmp_path / "run")])
    capsys.readouterr()
    export.main([str(tmp_path / "run"), "--out", str(tmp_path / "exported")])
    said = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    program = "torch.export.load(...).module(), without rlmix"
    expected = [f"classifier.pt: a state_dict of {NETWORK}", f"classifier.pt2: {program}"]
    if "rlmix" in options:
        expected += ["policy-ppo.zip: stable_baselines3.PPO.load, and no other algorithm's", f"policy.pt2: {program}"]
    assert said == expected

    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    model = build_model(NETWORK, 10)
    model.load_state_dict(torch.load(tmp_path / "exported" / "classifier.pt", weights_only=True))
    assert all(torch.equal(value, state["training"]["model"][name]) for name, value in model.state_dict().items())
    if "rlmix" in options:
        policy = PPO.load(tmp_path / "exported" / "policy-ppo.zip", device="cpu").policy
        saved = state["decider"]["parameters"]["policy"]
        assert all(torch.equal(value, saved[name]) for name, value in policy.state_dict().items())
        actions, _ = policy.predict(np.zeros((5, *policy.observation_space.shape), np.float32))
        assert actions.shape == (5,)
        assert set(actions) <= set(range(10))


LOADERS = {"a2c": A2C, "dqn": DQN}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of each algorithm."""
    root = tmp_path_factory.mktemp("learned")
    recipe = ["--batch-size", "16", "--epochs", "1", "--model", NETWORK, "--num-top-k", "3"]
    for name in ("ppo", "a2c", "dqn", "bandit"):
        train.main(["--data", write_npz(root, 8), *recipe, "--algorithm", name, "--out", str(root / name)])
    return root


@pytest.mark.parametrize("name", LOADERS)
def test_the_file_of_an_algorithm_is_called_after_it(learned, name, tmp_path, capsys):
    export.main([str(learned / name), "--out", str(tmp_path), "--formats", "pt"])
    assert f"policy-{name}.zip: stable_baselines3.{name.upper()}.load" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier.pt", f"policy-{name}.zip"]
    policy = LOADERS[name].load(tmp_path / f"policy-{name}.zip", device="cpu").policy
    saved = load_checkpoint(learned / name / "checkpoints" / "epoch-0001.pt")["decider"]["parameters"]["policy"]
    assert all(torch.equal(value, saved[key]) for key, value in policy.state_dict().items())


def test_the_bandits_policy_stands_alone(learned, tmp_path, capsys):
    """Rebuilt from the file by plain torch, it scores as the run's own does."""
    export.main([str(learned / "bandit"), "--out", str(tmp_path), "--formats", "pt"])
    assert f"{tmp_path / 'policy-bandit.pt'}: torch.load: algorithm, observation, layers" in capsys.readouterr().out
    found = torch.load(tmp_path / "policy-bandit.pt", weights_only=True)
    assert {name: found[name] for name in ("algorithm", "observation", "layers")} == {
        "algorithm": "bandit",
        "observation": "pair",
        "layers": [226, 64, 64, 3],
    }
    assert found["values"] == pytest.approx([0, 0.495, 0.99])
    layers = [
        part
        for before, after in zip(found["layers"], found["layers"][1:], strict=False)
        for part in (nn.Linear(before, after), nn.Tanh())
    ]
    network = nn.Sequential(*layers[:-1])
    network.load_state_dict(found["state_dict"])
    seen = torch.randn(5, 226)
    own = LearnedPolicy(learned / "bandit", seed=0).actor
    assert torch.equal(network(seen), own(seen))


def test_another_algorithms_state_is_refused_by_name(learned, tmp_path, capsys):
    shutil.copytree(learned / "a2c", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("algorithm: a2c", "algorithm: ppo"))
    with pytest.raises(ValueError, match=r"the policy in \S+/run must be one of ppo, as its config\.yaml says, got one of a2c"):
        LearnedPolicy(tmp_path / "run", seed=0)
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["export", str(tmp_path / "run")])
    assert "the agent's state must be one of ppo, got one of a2c" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--resume", str(learned / "bandit"), "--algorithm", "dqn"])
    assert "algorithm is 'bandit' in" in capsys.readouterr().err
    state = load_checkpoint(learned / "ppo" / "checkpoints" / "epoch-0001.pt")["decider"]
    assert state["algorithm"] == "ppo"
