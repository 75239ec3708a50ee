"""Stopping in mid-epoch and going on: to the bit, for every method; what may change meanwhile and what may not."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from sameness import assert_same_run
from stops import stop_at
from toys import NETWORK, write_folder, write_npz

import rlmix.mixing.registry
from rlmix.agents.sb3 import dqn
from rlmix.config import Config
from rlmix.experiments.command import run_command
from rlmix.experiments.reliability import save_reliability
from rlmix.experiments.resuming import FREE, what_looks_ahead
from rlmix.experiments.stopping import SIGNALS, StopRequest
from rlmix.scripts import train as command
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.run_folder import RELIABILITY, RESULT, read_metrics

RELIABILITY_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
METHODS = {
    "rlmix": ["--method", "rlmix", "--agent.gamma", "0.5"],
    "rlmix-short": ["--method", "rlmix", "--agent.gamma", "0.5", "--agent.rollout-steps", "3"],
    "rlmix-device": ["--method", "rlmix", "--agent-device", "classifier", "--agent.gamma", "0.5", "--agent.rollout-steps", "3"],
    "rlmix-batch": ["--method", "rlmix", "--granularity", "batch"],
    "rlmix-a2c": ["--method", "rlmix", "--algorithm", "a2c", "--agent.rollout-steps", "2"],
    "rlmix-dqn": ["--method", "rlmix", "--algorithm", "dqn", "--agent.gamma", "0.5", "--agent.rollout-steps", "3"],
    "rlmix-bandit": ["--method", "rlmix", "--algorithm", "bandit"],
    "rlmix-until": ["--method", "rlmix", "--mix-until", "0.5", "--action", "top_k_cut"],
    "rmix": ["--method", "rmix"],
    "rmix-previous": ["--method", "rmix", "--saliency-mode", "previous"],
    "puzzlemix-recycled": ["--method", "puzzlemix", "--saliency-mode", "recycled"],
    "comixup-recycled": ["--method", "comixup", "--mixing.clean-lam", "0", "--saliency-mode", "recycled"],
    "coin": ["--method", "coin"],
    "constant": ["--method", "constant", "--top-k", "0.11"],
}
METHODS |= {name: ["--method", name] for name in rlmix.mixing.registry.METHODS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Options of two epochs of five steps, of 8x8 pixels."""
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=80)
    recipe = ["--model", NETWORK, "--learning-rate", "0.05"]
    return ["--data", data, "--batch-size", "16", "--epochs", "2", "--device", "cpu", *recipe]


def stopped(capsys, args, code):
    with pytest.raises(SystemExit) as stop:
        rlmix_main([str(arg) for arg in args])
    assert stop.value.code == code
    *before, line = capsys.readouterr().err.splitlines()
    assert not [other for other in before if not other.startswith("rlmix: interrupted")]
    return line


def go_on(out, *options):
    torch.manual_seed(5)  # another process has another global state
    rlmix_main(["train", "--resume", str(out), *options])


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_in_mid_epoch_goes_on_to_the_bit(runs, tiny, name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        line = stopped(capsys, ["train", *tiny, *METHODS[name], "--out", out], 143)
    checkpoint = out / "checkpoints" / "epoch-0001-step-2.pt"
    assert (
        line
        == f"rlmix: interrupted: SIGTERM; 1 of 2 epochs and 2 steps are kept in {checkpoint}; go on with: rlmix train --resume {out}"
    )
    assert [record["epoch"] for record in read_metrics(out)] == [1]
    go_on(out)
    assert_same_run(runs(name), out)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 8, 9, 10])
@pytest.mark.parametrize("name", ["rlmix", "rlmix-short", "rlmix-device", "rlmix-dqn"])
def test_an_agent_is_stopped_before_at_and_after_the_end_of_a_rollout(runs, tiny, name, step, tmp_path, monkeypatch):
    """A rollout is five steps, or three and then two."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGINT)
        if step == 10:  # nothing is left to go on with
            rlmix_main(["train", *tiny, *METHODS[name], "--out", str(out)])
        else:
            with pytest.raises(SystemExit, match="130"):
                rlmix_main(["train", *tiny, *METHODS[name], "--out", str(out)])
            newest = load_checkpoint(list_checkpoints(out / "checkpoints")[-1])
            assert 5 * newest["epoch"] + newest["steps"] == step
    go_on(out)
    assert_same_run(runs(name), out)


def test_a_memory_that_has_begun_to_forget_goes_on_to_the_bit(tiny, tmp_path, monkeypatch, capsys):
    """Of ten steps it keeps four; the target network follows every second."""
    monkeypatch.setattr(dqn, "MEMORY", 4 * 16)
    monkeypatch.setattr(dqn, "TARGET_INTERVAL", 2 * 16)
    options = [*tiny, *METHODS["rlmix-dqn"]]
    command.main([*options, "--out", str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        stopped(capsys, ["train", *options, "--out", tmp_path / "run"], 143)
    state = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])["decider"]
    assert state["rollout"]["rewards"].shape == (4, 16)
    assert (int(state["rollout"]["position"]), state["num_calls"]) == (7 % 4, 7)
    go_on(tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_checkpoints_within_an_epoch_change_nothing(runs, tiny, tmp_path):
    out = tmp_path / "run"
    command.main([*tiny, *METHODS["rlmix"], "--checkpoint-every", "2", "--out", str(out)])
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["epoch-0001-step-3.pt", "epoch-0002.pt"]
    without = [load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])["training"] for folder in (runs("rlmix"), out)]
    assert str(without[0]) == str(without[1])


@pytest.mark.parametrize("step", [3, 5, 7])
def test_with_a_checkpoint_every_two_epochs_a_stopped_run_keeps_all_and_goes_on_to_the_bit(
    runs, tiny, step, tmp_path, monkeypatch, capsys
):
    """Whether it is stopped within the first epoch, at its end, or in the second."""
    out = tmp_path / "run"
    options = ["train", *tiny, *METHODS["rlmix"], "--checkpoint-epochs", "2", "--out", out]
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        stopped(capsys, options, 143)
    (only,) = list_checkpoints(out / "checkpoints")
    state = load_checkpoint(only)
    assert 5 * state["epoch"] + state["steps"] == step
    go_on(out)
    first, second = (load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]) for folder in (runs("rlmix"), out))
    assert str(first["training"]) == str(second["training"])


def test_the_time_limit_stops_with_a_code_of_its_own(runs, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    line = stopped(capsys, ["train", *tiny, *METHODS["rmix"], "--time-limit", "1e-9", "--out", out], 124)
    assert line.startswith("rlmix: interrupted: the time limit is reached; 0 of 2 epochs and 1 step are kept in ")
    go_on(out, "--time-limit", "None")
    first, second = (load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]) for folder in (runs("rmix"), out))
    assert str(first["training"]) == str(second["training"])


def test_handlers_of_signals_are_put_back(tiny, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    command.main([*tiny, "--epochs", "1", *METHODS["vanilla"], "--out", str(tmp_path / "run")])
    assert before == [signal.getsignal(number) for number in SIGNALS]


SCHEDULED = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"]


@pytest.mark.parametrize("name", [*SCHEDULED, "SIGQUIT"])
def test_whatever_asks_a_run_to_end_leaves_a_checkpoint_and_a_word(tiny, name, tmp_path, monkeypatch, capsys):
    number = signal.Signals[name]
    stop_at(monkeypatch, 7, number)
    line = stopped(capsys, ["train", *tiny, *METHODS["vanilla"], "--out", tmp_path / "run"], 128 + number)
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-0001-step-2.pt"
    assert line.startswith(f"rlmix: interrupted: {name}; 1 of 2 epochs and 2 steps are kept in {checkpoint}; go on with: ")


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedulers_may_ask_twice(tiny, name, tmp_path, monkeypatch, capsys):
    """SIGXCPU comes every second; SIGUSR1 from Slurm and once more from torchrun."""
    number, kill = signal.Signals[name], os.kill
    monkeypatch.setattr(os, "kill", lambda *args: [kill(*args) for _ in range(3)])
    stop_at(monkeypatch, 7, number)
    line = stopped(capsys, ["train", *tiny, *METHODS["vanilla"], "--out", tmp_path / "run"], 128 + number)
    assert "1 of 2 epochs and 2 steps are kept" in line


def test_under_torchrun_every_signal_may_come_twice(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with StopRequest() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.reason is not None
        assert stop.reason.code == 143


def test_a_signal_that_is_ignored_stays_so(tiny, tmp_path, monkeypatch):
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_at(monkeypatch, 3, signal.SIGHUP)
        rlmix_main(["train", *tiny, *METHODS["vanilla"], "--out", str(tmp_path / "run")])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [record["epoch"] for record in read_metrics(tmp_path / "run")] == [1, 2]


def test_outside_a_training_a_signal_ends_a_command_in_one_line(capsys):
    """What schedulers repeat does not disturb what is being closed."""
    closed = []

    def work():
        try:
            signal.raise_signal(signal.SIGXCPU)
        finally:
            signal.raise_signal(signal.SIGXCPU)
            closed.append(True)

    with pytest.raises(SystemExit) as stop:
        run_command(work)
    assert stop.value.code == 128 + signal.SIGXCPU
    assert capsys.readouterr().err == "rlmix: interrupted: SIGXCPU\n"
    assert closed == [True]


def command_line(*args):
    return [sys.executable, "-m", "rlmix.scripts.main", "train", *args]


def test_a_process_that_is_terminated_says_one_line_and_exits_with_143(tiny, tmp_path):
    args = command_line(*tiny, "--epochs", "500", *METHODS["vanilla"])
    process = subprocess.Popen([*args, "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # training has begun
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(error.splitlines()) == 1, error
    assert list_checkpoints(tmp_path / "run" / "checkpoints")


def test_a_closed_terminal_leaves_a_checkpoint(tiny, tmp_path):
    """SIGHUP comes, and from then on every write to the terminal fails."""
    args = command_line(*tiny, "--epochs", "500", *METHODS["vanilla"], "--out", str(tmp_path / "run"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(args[0], args)
    seen = b""
    while b"epoch 1/500" not in seen:
        seen += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert load_checkpoint(newest)["config"]["epochs"] == 500


def test_a_reader_that_goes_away_costs_the_lines_and_not_the_run(tiny, tmp_path):
    args = command_line(*tiny, "--epochs", "20", *METHODS["vanilla"], "--out", str(tmp_path / "run"))
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert (tmp_path / "run" / "result.json").exists()


# -- what may change


@pytest.fixture(scope="module")
def half(tmp_path_factory, tiny):
    """Runs stopped after the first epoch, with a schedule of their own."""
    root = tmp_path_factory.mktemp("half")

    def make(*options):
        out = root / str(len(list(root.iterdir())))
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, 5, signal.SIGTERM)
            with pytest.raises(SystemExit, match="143"):
                rlmix_main(["train", *tiny, *options, "--out", str(out)])
        return out

    return make


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "8"], "batch_size is 16 in .*, and 8 is another training"),
        (
            ["--seed", "4", "--rule", "cut_top"],
            r"\(rule, seed differ\): rule is 'mix_top' in .*, and 'cut_top' is another training",
        ),
        (["--epochs", "3"], "epochs is 2 in .*, and 3 would have had other learning rates from the first step"),
        (["--agent.gamma", "0.1"], "--agent.gamma must be left out with --method rmix"),
    ],
)
def test_other_settings_are_refused_by_name(half, options, message, capsys):
    out = half("--method", "rmix")
    config = (out / "config.yaml").read_bytes()
    line = stopped(capsys, ["train", "--resume", out, *options], 2)
    assert re.search(message, line), line
    assert (out / "config.yaml").read_bytes() == config


def test_an_edited_config_file_is_noticed(half, capsys):
    out = half("--method", "rmix")
    config = yaml.safe_load((out / "config.yaml").read_text()) | {"learning_rate": 0.01}
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    assert "learning_rate is 0.05" in stopped(capsys, ["train", "--resume", out], 2)


def test_other_data_under_the_same_name_are_noticed(tmp_path, capsys):
    def options(seed):
        data = write_npz(tmp_path, 8, num_train=64 + seed)
        return ["train", "--data", data, "--train-images", "64", "--batch-size", "16", "--epochs", "1", "--method", "vanilla"]

    rlmix_main([*options(0), "--model", NETWORK, "--out", str(tmp_path / "run")])
    options(1)
    assert "the data must be those that the run" in stopped(capsys, ["train", "--resume", tmp_path / "run"], 2)


def test_what_is_free_to_change_is_said():
    (row,) = [line for line in RELIABILITY_PAGE.read_text().splitlines() if "Free to change are" in line]
    assert set(re.findall(r"`--([\w-]+)`", row.partition("Free to change are")[2])) == {name.replace("_", "-") for name in FREE}


def test_other_workers_are_no_other_training(tmp_path):
    small = ["--image-size", "8", "--batch-size", "8", "--epochs", "1", "--device", "cpu", "--metrics", "ece"]
    data, out = write_folder(tmp_path / "data", size=(8, 8)), tmp_path / "run"
    rlmix_main(["train", "--data", data, "--model", NETWORK, "--method", "vanilla", *small, "--workers", "1", "--out", str(out)])
    go_on(out, "--workers", "0")


MULTISTEP = ["--method", "vanilla", "--schedule", "multistep", "--milestones", "0.8"]


def test_more_epochs_are_taken_while_the_schedule_is_the_same_so_far(tiny, half, tmp_path):
    """With the first milestone still ahead, the longer run is the one that would have been."""
    out = half(*MULTISTEP)
    go_on(out, "--epochs", "3", "--picture-every", "7")
    command.main([*tiny, *MULTISTEP, "--epochs", "3", "--picture-every", "7", "--out", str(tmp_path / "whole")])
    assert_same_run(tmp_path / "whole", out)
    assert yaml.safe_load((out / "config.yaml").read_text())["epochs"] == 3


def test_a_finished_run_is_extended_where_the_schedule_has_no_milestone_behind_it(tiny, tmp_path):
    constant = [*MULTISTEP[:-1], "0.99"]
    command.main([*tiny, *constant, "--epochs", "1", "--out", str(tmp_path / "run")])
    go_on(tmp_path / "run", "--epochs", "2")
    command.main([*tiny, *constant, "--epochs", "2", "--out", str(tmp_path / "whole")])
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_goes_on_has_no_result_until_it_ends(tiny, tmp_path, monkeypatch, capsys):
    out, results = tmp_path / "run", [tmp_path / "run" / name for name in (RESULT, RELIABILITY)]
    command.main([*tiny, *MULTISTEP[:-1], "0.99", "--epochs", "1", "--out", str(out)])
    save_reliability(out)
    before = [path.read_text() for path in results]
    rlmix_main(["train", "--resume", str(out), "--epochs", "3", "--dry-run"])
    go_on(out)  # which leaves nothing to train
    assert [path.exists() for path in results] == [True, True]
    assert results[1].read_text() == before[1]
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        stopped(capsys, ["train", "--resume", out, "--epochs", "3"], 143)
    assert [path.exists() for path in results] == [False, False]
    go_on(out)
    assert [path.exists() for path in results] == [True, False]


def test_more_epochs_are_refused_after_a_milestone(half, capsys):
    out = half(*MULTISTEP[:-1], "0.4")
    line = stopped(capsys, ["train", "--resume", out, "--epochs", "4"], 2)
    assert "epochs is 2 in" in line
    assert "4 would have had other learning rates by now (schedule multistep)" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method", "input_mixup", "--mix-until", "0.5"], "mixed in other epochs by now (mix_until 0.5)"),
        (METHODS["rlmix"], "had other choices from the first step (observation pair looks at how much of the training is over)"),
        ([*METHODS["rlmix-dqn"], "--observation", "paper"], "had other choices from the first step (algorithm dqn looks at"),
    ],
)
def test_more_epochs_are_refused_where_the_longer_run_had_mixed_otherwise(tiny, options, reason, tmp_path, capsys):
    command.main([*tiny, *MULTISTEP[2:-1], "0.99", *options, "--out", str(tmp_path / "run")])
    capsys.readouterr()
    line = stopped(capsys, ["train", "--resume", tmp_path / "run", "--epochs", "4"], 2)
    assert f"and 4 would have {reason}" in line


@pytest.mark.parametrize(
    "options",
    [["--method", "rlmix", "--observation", "paper", "--mix-until", "0.5"], ["--method", "coin", "--mix-until", "0.5"]],
    ids=["agent", "coin"],
)
def test_more_epochs_are_taken_where_those_behind_are_mixed_alike(tiny, half, options, tmp_path):
    schedule = [*MULTISTEP[2:-1], "0.99"]
    out = half(*schedule, *options)
    go_on(out, "--epochs", "4")
    command.main([*tiny, *schedule, *options, "--epochs", "4", "--out", str(tmp_path / "whole")])
    assert_same_run(tmp_path / "whole", out)


def test_a_policy_that_does_not_look_ahead_leaves_the_epochs_open(runs, tiny, tmp_path):
    seen, config = {}, Config.flat(method="policy")
    for observation in ("pair", "paper"):
        out = tmp_path / observation
        command.main([*tiny, *METHODS["rlmix"], "--epochs", "1", "--observation", observation, "--out", str(out)])
        seen[observation] = what_looks_ahead(config.changed(policy=str(out)))
    assert seen == {"pair": f"policy {tmp_path / 'pair'}", "paper": None}
    assert what_looks_ahead(config.changed(policy="module:function")) == "policy module:function"
