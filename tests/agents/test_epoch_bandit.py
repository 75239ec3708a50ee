"""A bandit over whole epochs, paid by the validation loss."""

import json
import shutil

import numpy as np
import pytest
import torch
from toys import NETWORK

import rlmix
from rlmix.agents.epoch_bandit import EpochBandit
from rlmix.experiments.train import train
from rlmix.scripts.main import main as rlmix_main
from rlmix.scripts.train import main
from rlmix.training.checkpoints import newest_state

TOY = {
    "data": "digits", "train_images": 80, "test_images": 20, "val_fraction": 0.25, "batch_size": 20, "epochs": 4, "model": NETWORK,
    "device": "cpu", "num_top_k": 3, "learning_rate": 0.02,
}  # fmt: skip


def agent(**options):
    return EpochBandit(rlmix.make_vec_env(config=rlmix.Config.flat(**TOY)), rlmix.PPOConfig(learning_rate=0.1, **options), 0)


def test_a_setting_is_all_choices_alike_or_one_for_everyone():
    one = agent()
    one.setting = 3
    assert one.draw(50).tolist() == [2] * 50
    one.setting = 0
    assert np.bincount(one.draw(3000), minlength=3) / 3000 == pytest.approx(np.full(3, 1 / 3), abs=0.04)


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_an_update_follows_reinforces_gradient(coefficient):
    """Against the gradients of the softmax and of its entropy by hand, and running means in plain Python."""
    one = agent(entropy_coefficient=coefficient)
    assert one.optimizer.param_groups[0]["lr"] == 0.1
    gains, mean, square, weight = [0.4, 0.1, -0.2], 0.0, 0.0, 0.0
    for number, gain in enumerate(gains):
        weight, mean, square = 0.8 * weight + 0.2, 0.8 * mean + 0.2 * gain, 0.8 * square + 0.2 * gain**2
        center = mean / weight
        spread = np.sqrt(max(square / weight - center**2, 0))
        advantage = (gain - center) / spread if number else 0.0
        probabilities = one.log_probabilities(0.25).detach().exp().numpy()
        figures = one.update(0.25, 1, gain)
        chosen, entropy = np.eye(4)[1], -(probabilities * np.log(probabilities)).sum()
        assert figures == {"policy_entropy": pytest.approx(entropy, rel=1e-5), "setting": 1.0, "validation_gain": gain}
        towards = advantage * (chosen - probabilities) - coefficient * probabilities * (np.log(probabilities) + entropy)
        expected = -np.outer(towards, [-0.5, 1.0])
        assert one.policy.weight.grad.numpy() == pytest.approx(expected, abs=1e-5)
        assert one.policy.bias.grad.numpy() == pytest.approx(expected[:, 1], abs=1e-5)


def test_an_epoch_is_paid_by_what_it_did_to_the_validation_loss(monkeypatch):
    """Three steps an epoch; the losses are made up."""
    losses, runs = [2.0, 1.5, 1.625, 1.25, 1.0], []
    for other in (1, 2):  # what somebody else draws is nothing to it
        one, heard, steps = agent(), [], []
        torch.manual_seed(other)
        left = iter(losses)
        update = one.update
        monkeypatch.setattr(one, "validation_loss", lambda left=left: next(left))
        monkeypatch.setattr(one, "update", lambda *args, heard=heard, update=update: (heard.append(args), update(*args))[1])
        assert one.state_dict()["progress"][:2] == [-1, pytest.approx(float("nan"), nan_ok=True)]
        one.learn(lambda one=one, steps=steps: steps.append(one.process.training.global_step), lambda figures: None)
        assert steps == [1, 2, 4, 5, 7, 8, 10, 11]
        assert [(progress, gain) for progress, _, gain in heard] == [(0, 0.5), (0.25, -0.125), (0.5, 0.375), (0.75, 0.25)]
        assert one.state_dict()["progress"][:2] == [-1, 1.0]
        runs.append([setting for _, setting, _ in heard])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("setting", [0, 2])
def test_what_an_epoch_in_progress_has_is_not_drawn_anew(setting, monkeypatch):
    """An epoch that goes on: its setting is chosen, and it is no later in the training than at its start."""
    one, heard = agent(), []
    monkeypatch.setattr(one, "validation_loss", lambda: 1.0)
    monkeypatch.setattr(one, "update", lambda *args: heard.append(args) or {})
    one.process.observe()
    one.process.act(one.process.actions[one.draw(20)])
    one.setting, one.loss = setting, 1.5
    one.learn(lambda: None, lambda figures: None)
    assert heard[0] == (0, setting, 0.5)
    assert [progress for progress, _, _ in heard] == [0, 0.25, 0.5, 0.75]


def test_a_gain_that_is_not_finite_counts_for_nothing():
    one, other = agent(), agent()
    for gain in (0.4, float("inf"), float("nan"), 0.1, -0.2):
        figures = one.update(0.25, 1, gain)
        assert figures["validation_gain"] == pytest.approx(gain, nan_ok=True)
        if np.isfinite(gain):
            other.update(0.25, 1, gain)
    assert torch.equal(one.policy.weight, other.policy.weight)
    assert one.policy.weight.any()
    assert one.state_dict()["progress"] == pytest.approx(other.state_dict()["progress"], nan_ok=True)


def test_what_is_not_finite_is_said_with_where_it_was():
    one = agent()
    one.process.training.trained = 1
    where = "in epoch 0, after step -2, at agent.learning_rate 0.1"
    one.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(FloatingPointError, match=f"^the agent's weights are not finite {where}\n"):
        one.update(0.5, 1, 1.0)
    with pytest.raises(FloatingPointError, match=f"^the agent's scores are not finite {where}\n"):
        one.update(0.5, 1, 1.0)


def test_it_is_for_one_device():
    envs = rlmix.make_vec_env(config=rlmix.Config.flat(**TOY))
    envs.process.reset().ranks.size = 2
    with pytest.raises(ValueError, match="algorithm must be one of Stable-Baselines3's on 2 devices, got epochs"):
        EpochBandit(envs, rlmix.PPOConfig(), 0)


def test_a_frozen_classifier_teaches_it_nothing():
    envs = rlmix.make_vec_env(config=rlmix.Config.flat(**TOY))
    envs.process.config = envs.process.config.changed(freeze_from="runs/a")
    message = "freeze_from must not be given with algorithm epochs, which is paid by what the classifier learns, got runs/a"
    with pytest.raises(ValueError, match=message):
        EpochBandit(envs, rlmix.PPOConfig(), 0)


def test_it_learns_which_setting_pays_early_and_which_late():
    """The second choice early, all alike late; the gain has noise as large as the difference."""
    one, noise = agent(), np.random.default_rng(0)
    for _ in range(600):
        progress = float(noise.random())
        setting = int(torch.multinomial(one.log_probabilities(progress).detach().exp(), 1, generator=one.generator))
        pays = setting == (2 if progress < 0.5 else 0)
        one.update(progress, setting, float(pays + noise.normal() / 2))
    assert int(one.log_probabilities(0.1).argmax()) == 2
    assert int(one.log_probabilities(0.9).argmax()) == 0


def test_a_run_is_the_same_twice_and_says_what_it_chose(tmp_path):
    runs = [
        train(rlmix.Config.flat(**TOY, algorithm="epochs", method="rlmix", seed=3, out=tmp_path / name), quiet=True)
        for name in ("one", "two")
    ]
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", "two")
    ]
    for first, second in zip(*records, strict=True):
        assert {name: value for name, value in first.items() if "seconds" not in name} == {
            name: value for name, value in second.items() if "seconds" not in name
        }
    assert runs[0]["top1"] == runs[1]["top1"]
    for before, record in zip(records[0], records[0][1:], strict=False):
        assert record["validation_gain"] == pytest.approx(before["val_loss"] - record["val_loss"], abs=1e-5)
        counts = np.array(record["top_k_counts"])
        setting = int(record["setting"])
        assert (counts > 0).sum() == (3 if setting == 0 else 1)


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_goes_on_within_an_epoch_and_between_two(tmp_path, step):
    """Three steps an epoch; stopped after the second one, or the third."""

    class Copies(rlmix.Callback):
        def on_checkpoint(self, path):
            state = torch.load(path, weights_only=True)
            if 3 * state["epoch"] + state["steps"] == 3 + step:
                shutil.copytree(tmp_path / "run", tmp_path / "copy", dirs_exist_ok=True)

    config = rlmix.Config.flat(**TOY, algorithm="epochs", method="rlmix", checkpoint_every=1, out=tmp_path / "run")
    whole = train(config, callbacks=[Copies()], quiet=True)
    copy = tmp_path / "copy"
    rest = train(rlmix.Config.from_yaml(copy / "config.yaml").changed(resume=copy, out=copy), quiet=True)
    assert rest["top1"] == whole["top1"]
    assert [line["setting"] for line in rest.epochs] == [line["setting"] for line in whole.epochs]
    assert [line["train_loss"] for line in rest.epochs] == [line["train_loss"] for line in whole.epochs]
    ended, expected = (newest_state(folder)["decider"] for folder in (copy, tmp_path / "run"))
    assert torch.equal(ended["parameters"]["policy"]["weight"], expected["parameters"]["policy"]["weight"])
    assert ended["progress"] == expected["progress"]


def test_it_needs_a_validation_split(capsys):
    with pytest.raises(ValueError, match="algorithm epochs must go with a validation split"):
        EpochBandit(rlmix.make_vec_env(config=rlmix.Config.flat(**(TOY | {"val_fraction": 0.0}))), rlmix.PPOConfig(), 0)
    with pytest.raises(ValueError, match="--reward must be left out with --algorithm epochs, which has a reward of its own"):
        main(["--algorithm", "epochs", "--val-fraction", "0.2", "--reward", "cosine", "--dry-run"])


def test_its_run_is_exported_and_drawn_though_it_looks_at_no_image(tmp_path, capsys):
    train(rlmix.Config.flat(**TOY, algorithm="epochs", method="rlmix", out=tmp_path / "run"), quiet=True)
    assert not rlmix_main(["export", str(tmp_path / "run"), "--formats", "pt", "pt2"])
    written = torch.load(tmp_path / "run" / "policy-epochs.pt", weights_only=True)
    assert written["algorithm"] == "epochs"
    assert written["state_dict"]["weight"].shape == (4, 2)
    assert (tmp_path / "run" / "classifier.pt2").exists()
    assert not (tmp_path / "run" / "policy.pt2").exists()
    assert not rlmix_main(["visualize", str(tmp_path / "run"), "--out", str(tmp_path / "drawn")])
    assert "algorithm epochs looks at no image" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"figure2.png", "figure4.png", "top_k.png"}
