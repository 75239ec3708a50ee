"""A zip of Stable-Baselines3 as a policy: it decides as the algorithm that saved it does."""

import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from torch import nn
from toys import NETWORK, toy_config, write_npz

import rlmix
from rlmix.agents.actors import SPACE
from rlmix.agents.features import policy_features
from rlmix.agents.learned import LearnedPolicy
from rlmix.common.saved_config import read_config
from rlmix.envs.conversion import to_host
from rlmix.envs.process import MixingProcess
from rlmix.experiments.export import Export, export
from rlmix.mixing.actions import ACTIONS
from rlmix.scripts import train
from rlmix.scripts.main import main as rlmix_main


class Features(gymnasium.Env):
    """Some features, and a choice of so many values."""

    def __init__(self, num_features, num_values):
        self.observation_space = spaces.Box(-2, 7, (num_features,), np.float32)
        self.action_space = spaces.Discrete(num_values)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, True, {}


def scores_of(model, seen):
    """By the algorithm's own code: values of choices, or logarithms of their probabilities."""
    return model.q_net(seen) if isinstance(model, DQN) else model.policy.get_distribution(seen).distribution.logits


@pytest.fixture(scope="module")
def decision(tmp_path_factory):
    process = MixingProcess(toy_config(tmp_path_factory.mktemp("toy"), 8, num_train=16, num_classes=4, batch_size=8))
    process.reset()
    return process.observe()


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN], ids=lambda algorithm: algorithm.__name__)
@pytest.mark.parametrize(
    ("observation", "size", "options"),
    [
        ("paper", 74, {}),
        ("pair", 226, {"net_arch": [8]}),
        ("paper", 74, {"activation_fn": nn.ELU, "net_arch": [5, 9]}),
    ],
    ids=["default", "pair", "elu"],
)
def test_it_decides_as_the_algorithm_does(algorithm, observation, size, options, decision, tmp_path):
    model = algorithm("MlpPolicy", Features(size, 5), seed=3, device="cpu", policy_kwargs=options)
    for parameter in model.policy.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save(tmp_path / "policy.zip")
    policy = LearnedPolicy(tmp_path / "policy.zip", seed=0)
    assert policy.observation == observation
    assert policy.actions.top_k.tolist() == pytest.approx([0, 0.2475, 0.495, 0.7425, 0.99])
    seen = torch.from_numpy(policy_features(to_host(decision, observation)[0]))
    with torch.no_grad():
        expected, scores = scores_of(model, seen), policy.actor(seen)
    assert expected.std(0).max() > 1e-3, "images differ"
    probabilities = policy.probabilities(decision)
    if algorithm is DQN:
        assert torch.allclose(scores, expected, atol=1e-5)
        assert torch.equal(probabilities.argmax(1), expected.argmax(1))
        assert probabilities.max(1).values.tolist() == [1] * 8
    else:
        assert torch.allclose(probabilities, expected.exp(), atol=1e-6)


def test_a_runs_zip_is_the_runs_policy_on_the_command_line_and_in_ones_own_loop(tmp_path, capsys):
    data = ["--data", write_npz(tmp_path, 8, num_train=16, num_classes=4), "--model", NETWORK]
    tiny = [*data, "--batch-size", "8", "--epochs", "1", "--num-top-k", "3", "--device", "cpu"]
    train.main([*tiny, "--out", str(tmp_path / "run")])
    export(Export(tmp_path / "run", tmp_path, ("pt",)))
    name = str(tmp_path / "policy-ppo.zip")
    for source in ("run", "policy-ppo.zip"):
        train.main([*tiny, "--method", "policy", "--policy", str(tmp_path / source), "--out", str(tmp_path / f"by-{source}")])
    first, second = (rlmix.load_model(tmp_path / f"by-{source}", "cpu").state_dict() for source in ("run", "policy-ppo.zip"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_config(tmp_path / "by-policy-ppo.zip")["policy"] == name
    model = rlmix.load_model(tmp_path / "run", "cpu")
    mixed = rlmix.RLMix(name)(model, torch.rand(6, 3, 8, 8), torch.arange(6) % 4)
    assert mixed.targets.sum(1).tolist() == pytest.approx([1] * 6)


@pytest.mark.parametrize("make", [lambda path: LearnedPolicy(path, seed=0), rlmix.RLMix], ids=["policy", "mixer"])
def test_a_zip_imports_no_module_that_it_names(make, tmp_path, monkeypatch):
    (tmp_path / "strange_actions.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nfrom rlmix.mixing.actions import top_k_lam as table\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, name = PPO("MlpPolicy", Features(74, 10), device="cpu"), "strange_actions:table"
    setattr(model, SPACE, name)
    model.save(tmp_path / "policy.zip")
    with pytest.raises(
        ValueError, match=rf"policy.zip must choose by a registered action, got {name}: give the folder of its run"
    ):
        make(tmp_path / "policy.zip")
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr(ACTIONS, "_entries", {**ACTIONS._entries})
    ACTIONS.add(name, ACTIONS["top_k_lam"])
    make(tmp_path / "policy.zip")
    assert LearnedPolicy(tmp_path / "policy.zip", seed=0).actions.lam.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9] * 2)


def test_what_is_no_such_policy_is_one_line(tmp_path, capsys):
    def refused(name):
        tiny = ["--data", "digits", "--method", "policy", "--policy", str(tmp_path / name), "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit, match="2"):
            rlmix_main(["train", *tiny])
        (line,) = capsys.readouterr().err.splitlines()
        return line

    PPO("MlpPolicy", Features(70, 5), device="cpu").save(tmp_path / "other.zip")
    line = refused("other.zip")
    assert "other.zip must read 74 features (paper) or 226 features (pair) of an image, and reads 70" in line
    (tmp_path / "text.zip").write_text("no zip")
    assert "must be a zip that Stable-Baselines3 saved" in refused("text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "must be a zip that Stable-Baselines3 saved" in refused("empty.zip")
    assert "missing.zip" in refused("missing.zip")
    model = PPO("MlpPolicy", Features(74, 5), device="cpu", policy_kwargs={"activation_fn": nn.SiLU})
    model.save(tmp_path / "silu.zip")
    assert "a policy's activation must be one of Tanh, ReLU, ELU, LeakyReLU, got SiLU" in refused("silu.zip")
