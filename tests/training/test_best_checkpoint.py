"""best.pt: the epoch with the highest accuracy on the validation split, and nothing chosen on the test split."""

import os
import shutil
import signal

import pytest
import torch
from sameness import assert_same_state
from toys import arguments

from rlmix.config import Config
from rlmix.data.registry import load_data
from rlmix.models import build_model
from rlmix.scripts import train as command
from rlmix.training.checkpoints import BEST, load_checkpoint
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Training

DATA = {"data": "digits", "train_images": 100, "test_images": 100, "val_fraction": 0.3, "batch_size": 16, "device": "cpu"}
OPTIONS = arguments(DATA)
OPTIONS += ["--epochs", "5", "--method", "vanilla", "--learning-rate", "0.03", "--seed", "1"]


class KilledError(BaseException):
    """In place of SIGKILL, after which nothing of the process would be left to test with."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "whole"
    command.main([*OPTIONS, "--out", str(folder)])
    return folder


def best_epochs(folder):
    """Epochs that were the best so far, the first of equals."""
    top1 = [record["val_top1"] for record in read_metrics(folder)]
    return [epoch for epoch in range(1, len(top1) + 1) if top1[epoch - 1] > max(top1[: epoch - 1], default=-1)]


def best(folder):
    state = torch.load(folder / "checkpoints" / BEST, weights_only=True)
    assert_same_state(load_checkpoint(folder / "checkpoints" / BEST), state)
    return {name: value for name, value in state.items() if name not in ("seconds", "records")}


def test_the_best_is_the_epoch_of_the_highest_validation_top1_and_holds_its_weights(whole):
    records, state = read_metrics(whole), best(whole)
    assert len({record["val_top1"] for record in records}) > 1
    assert state["epoch"] == best_epochs(whole)[-1]
    data = load_data(Config.flat(**DATA))
    model = build_model("preactresnet18_w16", 10, in_channels=data.num_channels)
    model.load_state_dict(state["training"]["model"])
    model.eval()
    right = total = 0
    for images, labels in data.batches("val", 7):
        with torch.no_grad():
            pixels = images.permute(0, 3, 1, 2) / 255 - data.mean[:, None, None]
            guesses = model(pixels / data.std[:, None, None]).argmax(1)
        right, total = right + int((guesses == labels).sum()), total + len(labels)
    assert total == 30
    assert records[state["epoch"] - 1]["val_top1"] == pytest.approx(100 * right / total)


def test_after_a_stop_in_mid_epoch_the_best_is_the_same(whole, tmp_path, monkeypatch):
    """Stopped in the second epoch and in the last one."""
    train_step = Training.step
    for number in (6, 18):
        with monkeypatch.context() as patch:

            def interrupted(training, *args, number=number, **kwargs):
                if training.global_step == number:
                    os.kill(os.getpid(), signal.SIGTERM)
                return train_step(training, *args, **kwargs)

            patch.setattr(Training, "step", interrupted)
            begun = (tmp_path / "run").exists()
            with pytest.raises(KeyboardInterrupt):
                command.main(["--resume", str(tmp_path / "run")] if begun else [*OPTIONS, "--out", str(tmp_path / "run")])
    command.main(["--resume", str(tmp_path / "run")])
    assert_same_state(best(whole), best(tmp_path / "run"))


def test_after_a_kill_between_its_two_files_the_best_is_the_same(whole, tmp_path, monkeypatch):
    """A best epoch has two: its own checkpoint and this one."""
    epoch, replace = best_epochs(whole)[-1], os.replace
    seen = []

    def deadly(source, target):
        replace(source, target)
        seen.append(os.path.basename(target))
        if seen.count(BEST) == len(best_epochs(whole)) or seen[-1] == f"epoch-{epoch:04d}.pt":
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", deadly)
        with pytest.raises(KilledError):
            command.main([*OPTIONS, "--out", str(tmp_path / "run")])
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    command.main(["--resume", str(tmp_path / "run")])
    assert_same_state(best(whole), best(tmp_path / "run"))
    assert best(tmp_path / "killed")["epoch"] == epoch, "at once, not only when the run has gone on"


def test_the_best_is_kept_whatever_the_epochs_between_checkpoints(whole, tmp_path):
    command.main([*OPTIONS, "--checkpoint-epochs", "5", "--out", str(tmp_path / "run")])
    kept, expected = best(tmp_path / "run"), best(whole)
    assert kept.pop("config") == expected.pop("config") | {"checkpoint_epochs": 5}
    assert_same_state(kept, expected)
