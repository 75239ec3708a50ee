"""Checkpoints that are written beside the training: the same files, nothing lost, and no error swallowed."""

import threading
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from toys import DIGITS

import rlmix
from rlmix.experiments import session as session_module
from rlmix.experiments.callbacks import Callbacks
from rlmix.experiments.train import train
from rlmix.training import run_folder
from rlmix.training.background import Background
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint, on_host
from rlmix.training.run_folder import Run

SECONDS = 60
"""Long enough for anything here."""


def config_in(folder, **options):
    return rlmix.Config.flat(**(DIGITS | {"picture_every": 0, "method": "rmix", "out": folder} | options))


@pytest.fixture
def behind(monkeypatch):
    """As on a GPU; gives by which threads checkpoints were written."""
    threads = []
    save = run_folder.save_checkpoint

    def noted(*args):
        threads.append(threading.current_thread() is threading.main_thread())
        return save(*args)

    monkeypatch.setattr(session_module, "writes_behind", lambda device: True)
    monkeypatch.setattr(run_folder, "save_checkpoint", noted)
    return threads


def test_what_a_piece_of_work_raises_comes_with_the_next_call():
    background, done = Background(), []
    background.start(lambda: done.append(1) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.start(lambda: done.append(2))
    background.settle()
    assert done == [1]


def test_a_wait_that_is_interrupted_can_be_taken_up_again(monkeypatch):
    background, go, done = Background(), threading.Event(), []
    background.start(lambda: done.append(go.wait(SECONDS)))

    def interrupted(work):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rlmix.training.background.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            background.settle()
    assert not done
    go.set()
    background.settle()
    assert done == [True]


def test_a_copy_on_the_host_is_of_its_moment():
    weight = torch.arange(6.0).view(2, 3)
    network = OrderedDict(weight=weight, tied=weight.detach(), turned=weight.t())
    network._metadata = {"": {"version": 2}}
    state = {"model": network, "records": [{"epoch": 1}], "pair": (weight[0], "text"), "number": 3}
    copied = on_host(state)
    weight.add_(1)
    state["records"].append({"epoch": 2})
    assert torch.equal(copied["model"]["weight"], torch.arange(6.0).view(2, 3))
    assert torch.equal(copied["model"]["turned"], torch.arange(6.0).view(2, 3).t())
    assert copied["model"]["weight"] is copied["model"]["tied"]  # one storage in the file
    assert copied["model"]._metadata == network._metadata
    assert type(copied["model"]) is OrderedDict
    assert (copied["records"], copied["pair"][1], copied["number"]) == ([{"epoch": 1}], "text", 3)
    assert torch.equal(copied["pair"][0], torch.tensor([0.0, 1.0, 2.0]))


@pytest.mark.parametrize("method", ["vanilla", "rmix", "rlmix"])
def test_a_run_leaves_the_same_behind(method, behind, monkeypatch, tmp_path):
    options = {"method": method, "epochs": 3, "checkpoint_every": 3, "val_fraction": 0.2}
    train(config_in(tmp_path / "beside", **options), quiet=True)
    assert False in behind
    assert behind[-1]  # the last one is waited for
    monkeypatch.setattr(session_module, "writes_behind", lambda device: False)
    train(config_in(tmp_path / "waited", **options), quiet=True)
    names = [[path.name for path in list_checkpoints(tmp_path / run / "checkpoints")] for run in ("beside", "waited")]
    assert names[0] == names[1]
    for name in [*names[0], "best.pt"]:
        one, other = (load_checkpoint(tmp_path / run / "checkpoints" / name) for run in ("beside", "waited"))
        assert_alike({**one, "seconds": 0, "config": 0, "records": 0}, {**other, "seconds": 0, "config": 0, "records": 0})
        assert [record["train_loss"] for record in one["records"]] == [record["train_loss"] for record in other["records"]]


def assert_alike(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_alike(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    else:
        assert one == other


def test_the_training_does_not_wait(behind, monkeypatch, tmp_path):
    """The first checkpoint is not written before the second epoch's first step."""
    went_on, save = threading.Event(), run_folder.save_checkpoint

    def slow(folder, epoch, *rest):
        assert epoch != 1 or went_on.wait(SECONDS)
        return save(folder, epoch, *rest)

    class Steps:
        def on_step(self, training):
            if training.epoch == 2:
                went_on.set()

    monkeypatch.setattr(run_folder, "save_checkpoint", slow)
    train(config_in(tmp_path / "run"), callbacks=[Steps()], quiet=True)
    newest = load_checkpoint(tmp_path / "run" / "checkpoints" / "epoch-0001.pt")
    assert (newest["training"]["trained"], len(newest["records"])) == (4, 1)  # of its moment, not of when it was written


def test_who_listens_finds_the_file(behind, tmp_path):
    class Listens(rlmix.Callback):
        def on_checkpoint(self, path):
            load_checkpoint(path)

    train(config_in(tmp_path / "run"), callbacks=[Listens()], quiet=True)
    assert behind == [True, True]


def test_who_has_a_method_of_its_own_is_heard():
    class Has:
        def on_checkpoint(self, path): ...

    assert Callbacks([Has()]).hear("on_checkpoint")
    assert Callbacks([SimpleNamespace(on_checkpoint=print)]).hear("on_checkpoint")
    assert not Callbacks([rlmix.Callback()]).hear("on_checkpoint")
    assert not Callbacks([type("Other", (), {"on_step": print})()]).hear("on_checkpoint")


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_cannot_be_written_stops_the_run(stopped, behind, monkeypatch, tmp_path):
    """What is said to be kept is; where the run is stopped before it asks, that is what is said."""
    save = run_folder.save_checkpoint

    def full(folder, epoch, *rest):
        if epoch == 2:
            raise OSError("the disk is full")
        return save(folder, epoch, *rest)

    class Stops:
        def on_step(self, training):
            if stopped and training.global_step == 9:
                raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_checkpoint", full)
    config = config_in(tmp_path / "run", epochs=4)
    with pytest.raises(KeyboardInterrupt if stopped else OSError) as raised:
        train(config, callbacks=[Stops()], quiet=True)
    assert raised.value.__notes__[0] == f"1 of 4 epochs are kept in {tmp_path / 'run' / 'checkpoints' / 'epoch-0001.pt'}"
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == [tmp_path / "run" / "checkpoints" / "epoch-0001.pt"]


def test_nothing_is_in_hand_when_a_callback_ends_the_run(behind, monkeypatch, tmp_path):
    go, save = threading.Event(), run_folder.save_checkpoint

    def late(*args):
        go.wait(0.2)  # nobody sets it
        return save(*args)

    class Ends:
        def on_epoch(self, record, training):
            raise RuntimeError("enough")

    monkeypatch.setattr(run_folder, "save_checkpoint", late)
    with pytest.raises(ValueError, match="must not raise") as raised:
        train(config_in(tmp_path / "run"), callbacks=[Ends()], quiet=True)
    assert "1 of 2 epochs are kept in" in raised.value.__notes__[0]
    assert (tmp_path / "run" / "checkpoints" / "epoch-0001.pt").exists()


def test_on_the_cpu_a_write_is_waited_for(tmp_path):
    assert [run_folder.writes_behind(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [False, True, True]
    run = Run.create(tmp_path / "run", {})
    path = run.save_checkpoint({"epoch": 1, "steps": 2})
    assert path.name == "epoch-0001-step-2.pt"
    assert load_checkpoint(path) == {"epoch": 1, "steps": 2, "records": []}


def test_a_run_that_is_closed_is_written(monkeypatch, tmp_path):
    save = run_folder.save_checkpoint
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *args: (threading.Event().wait(0.2), save(*args))[1])
    run = Run.create(tmp_path / "run", {})
    path = run.save_checkpoint({"epoch": 1, "steps": 0}, behind=True)
    assert not path.exists()
    run.close()
    assert load_checkpoint(path)["epoch"] == 1
