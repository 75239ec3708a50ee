"""Measuring less often, and stopping when the validation top-1 does not rise any more."""

import json
import signal

import pytest
import torch
from stops import stop_at
from toys import NETWORK, write_npz

from rlmix.evaluation.metrics import ece
from rlmix.experiments.patience import exhausted
from rlmix.experiments.saved_run import load_run
from rlmix.experiments.session import Session
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import BEST, load_checkpoint, newest_state
from rlmix.training.run_folder import read_metrics


@pytest.fixture
def run(tmp_path):
    data = write_npz(tmp_path, 8)
    tiny = ["--data", data, "--model", NETWORK, "--batch-size", "16", "--device", "cpu", "--val-fraction", "0.25"]

    def train(name, *words):
        rlmix_main(["train", *tiny, *words, "--out", str(tmp_path / name)])
        return tmp_path / name

    return train


def lines(folder):
    return [record | {"epoch_seconds": 0} for record in read_metrics(folder)]


def weights(folder):
    return newest_state(folder)["training"]["model"]


def same(first, second):
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("top1", "patience", "over"),
    [
        ([1, 2, 3], 1, False),
        ([1, 2, 2], 1, True),
        ([3, 2, 1], 2, True),
        ([3, 2, 1], 3, False),
        ([3, 2, 4], 2, False),
        ([3, None, 2, None, 1], 2, True),
        ([3, 2, 1, None], 2, False),
        ([3, 2, 1], None, False),
        ([], 1, False),
    ],
)
def test_when_patience_is_exhausted(top1, patience, over):
    assert exhausted([{} if value is None else {"val_top1": value} for value in top1], patience) is over


@pytest.mark.parametrize("method", ["vanilla", "rlmix"])
def test_less_is_measured_and_the_same_is_trained(method, run):
    often = run("often", "--method", method, "--epochs", "5")
    seldom = run("seldom", "--method", method, "--epochs", "5", "--eval-every", "2")
    same(weights(often), weights(seldom))
    for first, second in zip(lines(often), lines(seldom), strict=True):
        measured = {name for name in first if name.startswith(("test_", "val_"))}
        expected = first if first["epoch"] in (2, 4, 5) else {name: first[name] for name in first if name not in measured}
        assert second == expected
        assert measured
    results = [json.loads((folder / "result.json").read_text()) for folder in (often, seldom)]
    assert results[0]["top1"] == results[1]["top1"] == lines(often)[-1]["test_top1"]
    best = max((record for record in lines(seldom) if "val_top1" in record), key=lambda record: record["val_top1"])
    assert results[1]["top1_best"] == best["test_top1"]


@pytest.mark.parametrize("step", [13, 15])
def test_a_run_that_goes_on_with_patience_ends_with_a_measured_epoch(step, run, tmp_path, monkeypatch):
    """It was stopped within the fifth epoch, or at its end, of which every second is measured."""
    close = Session.close_epoch

    def measured(session, training):
        close(session, training)
        if "val_top1" in session._record:
            session._record["val_top1"] = 30.0

    monkeypatch.setattr(Session, "close_epoch", measured)
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            run("run", "--method", "vanilla", "--epochs", "8", "--eval-every", "2", "--ema", "0.9")
    rlmix_main(["train", "--resume", str(tmp_path / "run"), "--patience", "1"])
    last, result = lines(tmp_path / "run")[-1], json.loads((tmp_path / "run" / "result.json").read_text())
    assert (last["epoch"], result["epochs"]) == (6, 6)
    found = [result[name] for name in ("top1", "val_top1", "top1_ema")]
    assert found == [last[name] for name in ("test_top1", "val_top1", "top1_ema")]
    training = load_run(tmp_path / "run").training
    assert result["ece"] == ece(training.predict(), training.data.labels("test"))


@pytest.mark.parametrize("method", ["vanilla", "rlmix"])
def test_a_run_stops_when_it_gets_no_better_and_goes_on_alike(method, run, tmp_path, monkeypatch, capsys):
    close = Session.close_epoch

    def measured(session, training):
        close(session, training)
        session._record["val_top1"] = [10.0, 30.0, 30.0, 20.0, 40.0, 50.0][training.epoch - 1]

    monkeypatch.setattr(Session, "close_epoch", measured)
    whole = run("whole", "--method", method, "--epochs", "6")
    capsys.readouterr()
    stopped = run("stopped", "--method", method, "--epochs", "6", "--patience", "2")
    assert "validation top-1 has not risen for 2 measurements: stopped after epoch 4\n" in capsys.readouterr().out
    assert lines(stopped) == lines(whole)[:4]
    result = json.loads((stopped / "result.json").read_text())
    assert (result["epochs"], result["top1"]) == (4, lines(whole)[3]["test_top1"])
    assert result["top1_best"] == lines(whole)[1]["test_top1"]
    assert load_checkpoint(stopped / "checkpoints" / BEST)["epoch"] == 2  # the first of equals too
    before = weights(stopped)
    rlmix_main(["train", "--resume", str(stopped)])  # it has stopped already
    assert lines(stopped) == lines(whole)[:4]
    same(weights(stopped), before)
    (stopped / "checkpoints" / "epoch-0004.pt").unlink()
    rlmix_main(["train", "--resume", str(stopped)])
    assert lines(stopped) == lines(whole)[:4]
    same(weights(stopped), before)
    rlmix_main(["train", "--resume", str(stopped), "--patience", "3"])
    assert lines(stopped) == lines(whole)
    same(weights(stopped), weights(whole))
