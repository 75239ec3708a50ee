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


def test_an_update_follows_reinforces_gradient():
    """Against the softmax's gradient by hand, and running means in plain Python."""
    one = agent()
    gains, mean, square, weight = [0.4, 0.1, -0.2], 0.0, 0.0, 0.0
    for number, gain in enumerate(gains):
        weight, mean, square = 0.8 * weight + 0.2, 0.8 * mean + 0.2 * gain, 0.8 * square + 0.2 * gain**2
        center = mean / weight
        spread = np.sqrt(max(square / weight - center**2, 0))
        advantage = (gain - center) / spread if number else 0.0
        probabilities = one.log_probabilities(0.25).detach().exp().numpy()
        one.update(0.25, 1, gain)
        chosen = np.eye(4)[1]
        expected = -advantage * np.outer(chosen - probabilities, [-0.5, 1.0])
        assert one.policy.weight.grad.numpy() == pytest.approx(expected, abs=1e-5)
        assert one.policy.bias.grad.numpy() == pytest.approx(expected[:, 1], abs=1e-5)


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
