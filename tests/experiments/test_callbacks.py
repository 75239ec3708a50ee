"""What a callback sees of a run, and what becomes of a run whose callback raises."""

import pytest
import torch
from toys import DIGITS

import rlmix
from rlmix.common.saved_config import read_config
from rlmix.data.registry import load_data
from rlmix.experiments.callbacks import CallbackError
from rlmix.training.checkpoints import newest_state
from rlmix.training.run_folder import read_metrics


def config_in(folder, **options):
    return rlmix.Config.flat(**(DIGITS | {"picture_every": 0, "method": "vanilla", "out": folder} | options))


class Noted(rlmix.Callback):
    def __init__(self):
        self.seen = []

    def on_start(self, config, training):
        self.seen.append(("start", config["epochs"], training.global_step))

    def on_step(self, training):
        self.seen.append(("step", training.global_step))

    def on_epoch(self, record, training):
        self.seen.append(("epoch", record["epoch"], record["step"]))

    def on_checkpoint(self, path):
        self.seen.append(("checkpoint", path.name))

    def on_end(self, result):
        self.seen.append(("end", result["top1"]))


@pytest.mark.parametrize("method", ["vanilla", "rmix", "rlmix"])
def test_everything_is_told_in_order(method, tmp_path):
    noted = Noted()
    result = rlmix.train(config_in(tmp_path / "run", method=method), callbacks=[noted], quiet=True)
    steps = [[("step", step) for step in range(4 * epoch + 1, 4 * epoch + 5)] for epoch in range(2)]
    assert [entry for entry in noted.seen if entry[0] != "checkpoint"] == [
        ("start", 2, 0),
        *steps[0],
        ("epoch", 1, 4),
        *steps[1],
        ("epoch", 2, 8),
        ("end", result["top1"]),
    ]
    assert [entry[1] for entry in noted.seen if entry[0] == "checkpoint"] == ["epoch-0001.pt", "epoch-0002.pt"]
    assert [record["epoch"] for record in result.epochs] == [1, 2]


class Breaks:
    def __init__(self, where, step=0):
        self.where, self.step = where, step

    def on_step(self, training):
        if self.where == "on_step" and training.global_step == self.step:
            raise RuntimeError("the logger is gone")

    def on_epoch(self, record, training):
        if self.where == "on_epoch":
            raise KeyError("figure")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    rlmix.train(config_in(folder, method="rmix"), quiet=True)
    return folder


@pytest.mark.parametrize("breaks", [Breaks("on_step", 2), Breaks("on_step", 4), Breaks("on_step", 6), Breaks("on_epoch")])
def test_one_that_raises_stops_the_run_which_goes_on_to_the_bit(breaks, whole, tmp_path):
    config = config_in(tmp_path / "run", method="rmix")
    with pytest.raises(CallbackError, match=rf"^callback Breaks.{breaks.where} must not raise, and raised \w+: ") as raised:
        rlmix.train(config, callbacks=[breaks], quiet=True)
    assert "go on with: rlmix train --resume" in " ".join(raised.value.__notes__)
    rlmix.train(config.changed(resume=tmp_path / "run"), quiet=True)
    first, second = (newest_state(folder)["training"]["model"] for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(read_metrics(tmp_path / "run")) == 2


def test_one_that_raises_after_an_epoch_without_a_checkpoint_leaves_one(whole, tmp_path):
    config = config_in(tmp_path / "run", method="rmix", checkpoint_epochs=2)
    with pytest.raises(CallbackError):
        rlmix.train(config, callbacks=[Breaks("on_epoch")], quiet=True)
    assert newest_state(tmp_path / "run")["epoch"] == 1
    rlmix.train(config.changed(resume=tmp_path / "run"), quiet=True)
    first, second = (newest_state(folder)["training"]["model"] for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("every", "kept"), [(1, [2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (9, [5])])
def test_there_is_a_checkpoint_every_so_many_epochs_and_at_the_end(every, kept, tmp_path):
    noted = Noted()
    rlmix.train(config_in(tmp_path / "run", epochs=5, checkpoint_epochs=every), callbacks=[noted], quiet=True)
    names = [f"epoch-{epoch:04d}.pt" for epoch in ([1, *kept] if every == 1 else kept)]
    assert [entry[1] for entry in noted.seen if entry[0] == "checkpoint"] == names


def test_what_is_no_callback_is_refused(tmp_path):
    with pytest.raises(ValueError, match="callbacks must have methods such as on_epoch, got int"):
        rlmix.train(config_in(tmp_path / "run"), callbacks=[3], quiet=True)
    assert not (tmp_path / "run").exists()


def test_data_that_are_loaded_already_are_taken(tmp_path):
    config = config_in(tmp_path / "one")
    named = rlmix.train(config, quiet=True)
    given = rlmix.train(config.changed(out=tmp_path / "two"), load_data(config), quiet=True)
    assert named["top1"] == given["top1"]
    assert read_config(tmp_path / "two")["data"] == "digits"
