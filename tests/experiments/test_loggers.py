"""What is logged within an epoch, where to, and that a run which was stopped logs nothing twice and leaves nothing out."""

import csv
import signal
import sys

import numpy as np
import pytest
from stops import stop_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import NETWORK, write_npz

import rlmix
from rlmix.experiments.loggers import CSVLogger
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.board import TAGS
from rlmix.training.run_folder import read_metrics


class Told(rlmix.Callback):
    """Everything that it is told, and each step's own loss and reward."""

    def __init__(self):
        self.logged, self.rollouts, self.losses, self.order = [], [], [], []

    def on_step(self, training):
        self.losses.append(float(training._tally.losses[training.trained - 1]))
        self.order.append("step")

    def on_log(self, figures):
        self.logged.append(dict(figures))

    def on_rollout(self, figures, training):
        self.rollouts.append((training.global_step, dict(figures)))
        self.order.append("rollout")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two epochs of five steps."""
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=80)
    return {"data": data, "model": NETWORK, "batch_size": 16, "epochs": 2, "learning_rate": 0.05, "device": "cpu"}


def tags_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("method", ["vanilla", "rlmix"])
def test_points_within_an_epoch_are_means_over_its_steps(tiny, method, tmp_path):
    told = Told()
    config = rlmix.Config.flat(**tiny, method=method, log_every=2, out=tmp_path / "run")
    rlmix.train(config, callbacks=[told], quiet=True)
    losses = told.losses
    assert [figures["step"] for figures in told.logged] == [2, 4, 6, 8, 10]
    # an epoch's first steps are no means over the epoch before: the sixth step is alone
    means = [np.mean(losses[:2]), np.mean(losses[2:4]), losses[5], np.mean(losses[6:8]), np.mean(losses[8:10])]
    assert [figures["loss"] for figures in told.logged] == pytest.approx(means, rel=1e-5)
    assert ("reward" in told.logged[0]) == (method == "rlmix")
    tags = tags_of(tmp_path / "run")
    points = [(1, losses[0]), *((2 * k + 2, mean) for k, mean in enumerate(means))]  # the first step's too, for who waits
    assert tags[TAGS["loss"].name] == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in points]
    assert tags[TAGS["step_learning_rate"].name][1] == (2, pytest.approx(told.logged[0]["learning_rate"]))
    records = read_metrics(tmp_path / "run")
    assert tags[TAGS["train_loss"].name] == [
        (record["step"], pytest.approx(record["train_loss"], rel=1e-5)) for record in records
    ]
    assert tags[TAGS["epoch"].name] == [(5, 1), (10, 2)]


def test_rewards_over_all_steps_of_an_epoch_are_the_epochs(tiny, tmp_path):
    told = Told()
    rlmix.train(rlmix.Config.flat(**tiny, method="rmix", log_every=5, out=tmp_path / "run"), callbacks=[told], quiet=True)
    for figures, record in zip(told.logged, read_metrics(tmp_path / "run"), strict=True):
        assert figures["reward"] == pytest.approx(record["reward_mean"], rel=1e-5)
        assert figures["top_k"] == pytest.approx(record["top_k_mean"], rel=1e-5)
        assert figures["loss"] == pytest.approx(record["train_loss"], rel=1e-5)


def test_every_update_of_an_agent_is_told_before_its_step(tiny, tmp_path):
    """Rollouts of at most two of five steps: three an epoch."""
    told = Told()
    config = rlmix.Config.flat(**tiny, method="rlmix", out=tmp_path / "run").changed(**{"agent.rollout_steps": 2})
    rlmix.train(config, callbacks=[told], quiet=True)
    steps = [step for step, _ in told.rollouts]
    assert steps == [2, 4, 5, 7, 9, 10]
    assert told.order == ["step", "rollout", "step", "step", "rollout", "step", "rollout", "step"] * 2
    last = read_metrics(tmp_path / "run")[-1]
    assert told.rollouts[-1][1] == {name: last[name] for name in told.rollouts[-1][1]}
    assert {"approx_kl", "policy_entropy"} <= told.rollouts[0][1].keys()
    updates = [(step, pytest.approx(figures["approx_kl"], rel=1e-5)) for step, figures in told.rollouts]
    assert tags_of(tmp_path / "run")[TAGS["approx_kl"].name] == updates


@pytest.mark.parametrize("step", [3, 7])
def test_a_run_that_was_stopped_has_the_lines_of_one_that_was_not(tiny, step, tmp_path, monkeypatch):
    options = {"method": "rmix", "log_every": 1, "loggers": ("csv", "toy_package:Diary"), "checkpoint_every": 2}
    whole, broken = (rlmix.Config.flat(**tiny, **options, out=tmp_path / name) for name in ("whole", "run"))
    rlmix.train(whole, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            rlmix.train(broken, quiet=True)
    rlmix.train(broken.changed(resume=tmp_path / "run"), quiet=True)
    for name in ("steps", "epochs"):
        lines = []
        for folder in ("whole", "run"):
            with open(tmp_path / folder / f"{name}.csv", newline="") as handle:
                lines.append([{k: v for k, v in row.items() if k != "epoch_seconds"} for row in csv.DictReader(handle)])
        assert lines[0] == lines[1]
        assert len(lines[0]) == {"steps": 10, "epochs": 2}[name]
    assert (tmp_path / "run" / "diary.txt").read_text() == (tmp_path / "whole" / "diary.txt").read_text()
    first, second = tags_of(tmp_path / "whole"), tags_of(tmp_path / "run")
    for name in ("loss", "reward", "test_top1"):
        assert first[TAGS[name].name] == second[TAGS[name].name]


def test_what_was_overwritten_leaves_no_tables(tiny, tmp_path):
    options = tiny | {"method": "vanilla", "epochs": 1, "out": tmp_path / "run"}
    rlmix.train(rlmix.Config.flat(**options, loggers=("csv",), log_every=1), quiet=True)
    assert (tmp_path / "run" / "steps.csv").exists()
    rlmix.train(rlmix.Config.flat(**options, overwrite=True), quiet=True)
    assert not list((tmp_path / "run").glob("*.csv"))


def test_a_new_column_and_half_a_line_do_no_harm(tmp_path):
    log = CSVLogger(tmp_path)
    log.on_log({"step": 1, "loss": 0.5})
    log.on_log({"step": 2, "loss": 0.25, "reward": 1})
    assert (tmp_path / "steps.csv").read_text() == "step,loss,reward\n1,0.5,\n2,0.25,1\n"
    with open(tmp_path / "steps.csv", "a") as handle:
        handle.write("3,0.1")
    again = CSVLogger(tmp_path)
    training = type("At", (), {"global_step": 1})()
    again.on_start({}, training)
    assert (tmp_path / "steps.csv").read_text() == "step,loss,reward\n1,0.5,\n"


def test_what_is_no_logger_is_one_line(tiny, tmp_path, capsys, monkeypatch):
    def refused(name):
        with pytest.raises(SystemExit, match="2"):
            rlmix_main(["train", "--data", "digits", "--loggers", name, "--out", str(tmp_path / "run")])
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "run").exists()
        return line

    assert "--loggers must be one of csv, wandb, mlflow, got 'cvs' (did you mean 'csv'?)" in refused("cvs")
    line = refused("toy_package:Noise")
    assert "loggers toy_package:Noise must be made of the run's folder alone, and raised TypeError: " in line
    line = refused("toy_package:NoLogger")
    assert "loggers toy_package:NoLogger must be made of the run's folder alone, and raised KeyError: 'token'" in line
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert 'loggers wandb must have wandb installed: pip install "rlmix[wandb]"' in refused("wandb")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert 'loggers mlflow must have mlflow installed: pip install "rlmix[mlflow]"' in refused("mlflow")


def test_weights_and_biases_offline(tiny, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    init, given = wandb.init, {}
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or init(**options))
    logged = []
    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", lambda run, figures, step=None: logged.append((step, figures)))
    config = rlmix.Config.flat(**tiny, method="rlmix", log_every=5, loggers=("wandb",), out=tmp_path / "run")
    result = rlmix.train(config, quiet=True)
    records = read_metrics(tmp_path / "run")
    epochs = [(step, figures) for step, figures in logged if "epochs/test_top1" in figures]
    assert [(step, figures["epochs/test_top1"]) for step, figures in epochs] == [(r["step"], r["test_top1"]) for r in records]
    assert [step for step, figures in logged if "steps/reward" in figures] == [5, 10]
    assert any("agent/approx_kl" in figures for _, figures in logged)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert result["top1"] == records[-1]["test_top1"]
    assert (given["project"], given["name"]) == ("mine", "run")


def test_mlflow_in_a_folder(tiny, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    config = rlmix.Config.flat(**tiny, method="vanilla", log_every=5, loggers=("mlflow",), out=tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            rlmix.train(config, quiet=True)
    rlmix.train(config.changed(resume=tmp_path / "run"), quiet=True)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("rlmix").experiment_id])
    records = read_metrics(tmp_path / "run")
    history = client.get_metric_history(run.info.run_id, "epochs/test_top1")
    assert [(point.step, point.value) for point in history] == [(record["step"], record["test_top1"]) for record in records]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "steps/loss")] == [5, 10]
    assert run.data.params["model"] == NETWORK
    assert run.info.status == "FINISHED"
