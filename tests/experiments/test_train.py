"""rlmix train: what a run leaves, reproducibility, going on after a stop, and errors of one line."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from sameness import assert_same_run, without_times
from toys import DIGITS, NETWORK, arguments, write_npz

import rlmix.mixing.registry
from rlmix.experiments.options import UsageError
from rlmix.experiments.reading import read_options
from rlmix.experiments.session import Session
from rlmix.experiments.settings import settled
from rlmix.experiments.train import train
from rlmix.scripts import train as command
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.run_folder import DIAGRAM, EVALUATION, RELIABILITY, Run, read_metrics

TINY = arguments(DIGITS)
METHODS = {
    "rlmix": ["--method", "rlmix"],
    "rlmix-batch": ["--method", "rlmix", "--granularity", "batch"],
    "rmix": ["--method", "rmix"],
    "rmix-p8": ["--method", "rmix-p8"],
    "coin": ["--method", "coin"],
    "constant": ["--method", "constant", "--top-k", "0.11"],
    "vanilla": ["--method", "vanilla"],
}
METHODS |= {name: ["--method", name] for name in rlmix.mixing.registry.METHODS}
EVERY = {"epoch", "step", "train_loss", "test_top1", "test_top5", "learning_rate", "epoch_seconds"}
UNDER_A_POLICY = {"reward_mean", "reward_std", "top_k_mean", "policy_entropy"}
RESULT = ["method", "seed", "top1", "top1_median10", "top1_best", "ece", "fgsm_error", "seconds", "seconds_per_epoch"]
RESULT += ["peak_memory_mb", "reward_mean"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Options of two epochs of four steps, of 16x16 pixels."""
    data = write_npz(tmp_path_factory.mktemp("toy"), 16)
    recipe = ["--model", NETWORK, "--learning-rate", "0.05", "--flip", "False"]
    return ["--data", data, *TINY[2:], *recipe]


def refused(capsys, args, code=2):
    """The one line that rlmix says about ``args``."""
    with pytest.raises(SystemExit) as stop:
        rlmix_main([str(arg) for arg in args])
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("rlmix: ")
    return lines[0]


# -- what a run leaves


@pytest.mark.parametrize("name", METHODS)
def test_run_folder_and_its_numbers(runs, name):
    folder = runs(name)
    kept = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert kept == {"config.yaml", "metrics.jsonl", "result.json", "checkpoints"}
    assert list(folder.glob("events.out.tfevents*"))
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["epoch-0001.pt", "epoch-0002.pt"]

    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 4), (2, 8)]
    for record in records:
        assert record.keys() >= EVERY
        assert (record.keys() >= UNDER_A_POLICY) == (name not in rlmix.mixing.registry.METHODS)
        assert 0 <= record["test_top1"] <= record["test_top5"] <= 100
        assert record["epoch_seconds"] > 0
        assert all(np.isfinite(value).all() for value in record.values())
    assert records[-1]["learning_rate"] == pytest.approx(3e-5)

    result = json.loads((folder / "result.json").read_text())
    assert list(result) == RESULT
    assert (result["method"], result["seed"]) == (METHODS[name][1], 0)
    top1 = [record["test_top1"] for record in records]
    assert (result["top1"], result["top1_median10"]) == (top1[-1], pytest.approx(np.mean(top1)))
    assert result["top1_best"] is None  # there is no validation split to choose on
    assert result["seconds"] == pytest.approx(sum(record["epoch_seconds"] for record in records))
    assert result["seconds_per_epoch"] == pytest.approx(result["seconds"] / 2)
    assert 0 <= result["ece"] <= 100
    assert 0 <= result["fgsm_error"] <= 100
    assert result["peak_memory_mb"] > 50
    assert result["reward_mean"] == records[-1].get("reward_mean")
    assert (result["reward_mean"] is None) == (name in rlmix.mixing.registry.METHODS)


@pytest.mark.parametrize(("name", "patches"), [("rlmix", [2, 4]), ("coin", [2, 4]), ("rmix", [2, 4]), ("rmix-p8", [8])])
def test_config_is_resolved_and_plain(runs, name, patches):
    config = yaml.safe_load((runs(name) / "config.yaml").read_text())
    assert config["num_patches"] == patches
    assert config["method"] == name
    assert (config["model"], config["learning_rate"], config["flip"]) == (NETWORK, 0.05, False)
    assert (config["epochs"], config["batch_size"], config["train_images"]) == (2, 16, 64)
    assert not set(config) & {"out", "resume", "overwrite", "config"}


def test_entropy_and_mean_top_k_of_policies_that_do_not_learn(runs):
    (constant, _), (rmix, _) = without_times(runs("constant")), without_times(runs("rmix"))
    assert constant["policy_entropy"] == 0
    assert constant["top_k_mean"] == pytest.approx(0.11)
    assert rmix["policy_entropy"] == pytest.approx(np.log(10))
    assert rmix["top_k_mean"] == pytest.approx(0.495, abs=0.15)


def test_digits_need_no_files(tmp_path):
    command.main([*TINY, "--out", str(tmp_path / "run")])
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [4, 8]


def test_methods_share_the_initial_weights_and_differ_after(runs):
    weights = [
        load_checkpoint(list_checkpoints(runs(name) / "checkpoints")[0])["training"] for name in ("rmix", "rmix-p8", "vanilla")
    ]
    orders = [state["order"] for state in weights]
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(weights[0]["model"]["stem.weight"], weights[1]["model"]["stem.weight"])


@pytest.mark.parametrize("name", ["rlmix", "rlmix-batch", "rmix", "vanilla"])
def test_same_seed_gives_the_same_run(runs, tiny, name, tmp_path):
    torch.manual_seed(99)  # what happened before does not matter
    np.random.seed(99)  # noqa: NPY002
    command.main([*tiny, *METHODS[name], "--out", str(tmp_path / "again")])
    assert_same_run(runs(name), tmp_path / "again")


# -- going on


def stop_in_epoch_two(monkeypatch, at_step):
    step = Session.step
    taken = []

    def interrupted(session):
        taken.append(1)
        if len(taken) == at_step:
            raise KeyboardInterrupt
        step(session)

    monkeypatch.setattr(Session, "step", interrupted)


@pytest.mark.parametrize("name", ["rlmix", "rmix", "vanilla"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(runs, tiny, name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_in_epoch_two(patch, 5)
        line = refused(capsys, ["train", *tiny, *METHODS[name], "--out", out], code=130)
        kept = f"1 of 2 epochs are kept in {out}/checkpoints/epoch-0001.pt"
        assert line == f"rlmix: interrupted: {kept}; go on with: rlmix train --resume {out}"
    assert [record["epoch"] for record in read_metrics(out)] == [1]
    assert not (out / "result.json").exists()
    np.random.seed(5)  # noqa: NPY002  (another process has another global state)
    torch.manual_seed(5)
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs(name), out)
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (runs(name), out))
    for figure in ("top1", "top1_best", "ece", "fgsm_error", "reward_mean"):
        assert first[figure] == second[figure]


def test_a_run_stopped_in_its_first_epoch_starts_again(runs, tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_in_epoch_two(patch, 2)
        assert "0 of 2 epochs are kept" in refused(capsys, ["train", *tiny, *METHODS["rlmix"], "--out", out], code=130)
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs("rlmix"), out)


def test_resuming_a_finished_run_changes_nothing(runs, tmp_path):
    out = shutil.copytree(runs("rlmix"), tmp_path / "copy")
    before = json.loads((out / "result.json").read_text())
    rlmix_main(["train", "--resume", str(out)])
    after = json.loads((out / "result.json").read_text())
    assert_same_run(runs("rlmix"), out)
    assert {key: value for key, value in before.items() if key != "peak_memory_mb"} == {
        key: value for key, value in after.items() if key != "peak_memory_mb"
    }


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(runs, tmp_path):
    out = shutil.copytree(runs("rmix"), tmp_path / "copy")
    newest = out / "checkpoints" / "epoch-0002.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"epoch-0002.pt is not a readable checkpoint.*the one before it is used"):
        rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs("rmix"), out)


def test_resuming_without_any_readable_checkpoint_is_refused(runs, tmp_path, capsys):
    out = shutil.copytree(runs("rmix"), tmp_path / "copy")
    for path in list_checkpoints(out / "checkpoints"):
        path.write_bytes(b"no checkpoint")
    assert f"{out} has no readable checkpoint" in refused(capsys, ["train", "--resume", out])


def test_config_file_is_read_back_and_typed_options_win(runs, tmp_path):
    file = str(runs("constant") / "config.yaml")
    options = read_options(["--config", file, "--out", str(tmp_path / "x")])
    assert settled(options).as_dict() == yaml.safe_load((runs("constant") / "config.yaml").read_text())
    typed = read_options(["--config", file, "--top-k", "0.5", "--seed", "4"])
    assert (typed.run.top_k, typed.run.seed, typed.optim.epochs) == (0.5, 4, 2)
    agent = str(runs("rlmix") / "config.yaml")
    typed = read_options(["--config", agent, "--agent.passes", "3"])
    assert (typed.agent.ppo.passes, typed.agent.ppo.minibatch_size) == (3, 500)


@pytest.mark.parametrize("name", ["rlmix-batch", "rmix", "vanilla"])
def test_config_yaml_round_trips(runs, name):
    file = runs(name) / "config.yaml"
    assert read_options(["--config", str(file)]).resolved().as_dict() == yaml.safe_load(file.read_text())


def test_a_run_from_a_config_file_is_the_same_run(runs, tmp_path):
    command.main(["--config", str(runs("constant") / "config.yaml"), "--out", str(tmp_path / "again")])
    assert_same_run(runs("constant"), tmp_path / "again")


@pytest.mark.parametrize("option", [("--out", "x"), ("--overwrite",), ("--config", "x.yaml")], ids=lambda option: option[0])
def test_resume_goes_on_where_the_run_is(runs, option):
    with pytest.raises(UsageError, match=f"--resume goes on with a run where it is, and takes no {option[0]}"):
        read_options(["--resume", str(runs("rmix")), *option])


def test_overwrite_replaces_a_run(runs, tiny, tmp_path):
    out = shutil.copytree(runs("vanilla"), tmp_path / "copy")
    measured = [out / name for name in (RELIABILITY, EVALUATION, DIAGRAM)]
    for path in measured:
        path.touch()
    command.main([*tiny, "--epochs", "1", *METHODS["rmix"], "--out", str(out), "--overwrite"])
    assert not any(path.exists() for path in measured)
    assert len(read_metrics(out)) == 1
    assert json.loads((out / "result.json").read_text())["method"] == "rmix"
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["epoch-0001.pt"]


def test_train_gives_the_result_it_wrote(tiny, tmp_path):
    options = read_options([*tiny, "--epochs", "1", "--method", "vanilla", "--out", str(tmp_path / "run")])
    assert train(options, quiet=True) == json.loads((tmp_path / "run" / "result.json").read_text())


def test_default_folder_names_data_model_method_and_seed():
    options = read_options(["--data", "npz:/some/where/birds.npz", "--method", "rmix", "--seed", "3"]).resolved()
    assert str(options.folder) == "runs/birds-preactresnet18-rmix-s3"


# -- what is refused

BAD = {
    "unknown command": (["trian"], "command must be one of train, .*got 'trian' .*did you mean 'train'"),
    "unknown method": (["--method", "rmx"], "method must be one of rlmix, rmix, .*got 'rmx' .*did you mean 'rmix'"),
    "unknown model": (
        ["--model", "preactresnet81"],
        "model must be one of .*got 'preactresnet81' .*did you mean 'preactresnet18'",
    ),
    "unknown data": (["--data", "digit"], "data must be one of digits, .*got 'digit' .*did you mean 'digits'"),
    "unknown option": (["--epoch", "2"], r"--epoch\b.*did you mean --epochs"),
    "unknown choice": (["--granularity", "pixel"], "granularity.*image.*batch.*pixel|pixel.*image.*batch"),
    "unknown reward": (["--reward", "cosin"], "reward must be one of .*got 'cosin' .*did you mean 'cosine'"),
    "not a number": (["--epochs", "two"], "epochs.*two|two.*epochs"),
    "no epochs": (["--epochs", "0"], "epochs must be at least 1, got 0"),
    "negative seed": (["--seed", "-1"], "seed must be at least 0, got -1"),
    "learning rate nan": (["--learning-rate", "nan"], "--learning-rate must be finite and above 0, got nan"),
    "batch above the data": (["--batch-size", "65"], "--batch-size must be at most the 64 training images, got 65"),
    "more images than there are": (["--train-images", "5000"], "--train-images must be at most the 1442 of digits, got 5000"),
    "top-k of one": (["--method", "constant", "--top-k", "1.0"], r"--top-k must be in \[0, 1\), got 1.0"),
    "top-k without constant": (
        ["--method", "rmix", "--top-k", "0.5"],
        "--top-k must be given with method constant, .*got 0.5 with rmix",
    ),
    "constant without top-k": (["--method", "constant"], "top_k must be given with method constant, .*got None"),
    "agent out of range": (["--agent.gamma", "2"], r"agent.gamma must be in \[0, 1\], got 2"),
    "more patches than pixels": (
        ["--num-patches", "4", "33"],
        r"--num-patches must be in \[1, 32\] where images have 32x32 pixels, got 33",
    ),
    "other patches of rmix-p8": (
        ["--method", "rmix-p8", "--num-patches", "2", "4"],
        r"--num-patches must be left out with method rmix-p8, R-Mix at 8 patches, got \(2, 4\)",
    ),
    "missing npz": (["--data", "npz:/no/such/file.npz"], "npz:/no/such/file.npz"),
    "npz without a path": (["--data", "npz:"], "data must be .*npz:PATH.*got 'npz:'"),
    "data set not there": (["--data", "cifar10", "--data-root", "/no/such"], "cifar10 .*--data-root /no/such .*--download"),
    "device not there": (["--device", "cuda:77"], "device must be .*got 'cuda:77'"),
    "unknown device": (["--device", "gpu"], "device must be auto, cpu, cuda, .*got 'gpu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_no_folder(case, tmp_path, capsys):
    args, message = BAD[case]
    method = {"more patches than pixels": "rmix", "unknown reward": "rmix", "agent out of range": "rlmix"}.get(case, "vanilla")
    first = args if case == "unknown command" else ["train", *TINY, "--method", method, *args]
    line = refused(capsys, [*first, "--out", tmp_path / "run"])
    assert re.search(message, line), line
    assert line.startswith("rlmix: error: ")
    assert not re.search("----|─|│", line), line  # no box of tyro's
    assert not (tmp_path / "run").exists()


def test_out_that_holds_a_run_is_refused_and_left_alone(runs, capsys):
    before = {path: path.stat().st_mtime_ns for path in runs("vanilla").rglob("*")}
    line = refused(capsys, ["train", *TINY, "--out", runs("vanilla")])
    assert str(runs("vanilla")) in line
    assert "--overwrite" in line
    assert before == {path: path.stat().st_mtime_ns for path in runs("vanilla").rglob("*")}


def test_resume_of_a_folder_that_holds_no_run_is_refused(tmp_path, capsys):
    assert f"{tmp_path} must be a run's folder" in refused(capsys, ["train", "--resume", tmp_path])
    assert f"{tmp_path / 'none'} must be a run's folder" in refused(capsys, ["train", "--resume", tmp_path / "none"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must hold a mapping of options, got list"),
        ("epochs: [\n", "must be YAML"),
        ("epoch: 3\n", "option must be one of .*got 'epoch' .*did you mean 'epochs'"),
        ("epochs: many\n", "epochs.*many|many.*epochs"),
        ("epochs: 0\n", "epochs must be at least 1, got 0"),
        ("agent: 3\n", "option agent must be a mapping, got 3"),
        ("agent: {gama: 0.5}\n", "option must be one of .*got 'gama' .*did you mean 'gamma'"),
    ],
)
def test_bad_config_file_is_one_line(text, message, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    line = refused(capsys, ["train", "--config", tmp_path / "bad.yaml", "--out", tmp_path / "run"])
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


def test_missing_config_file_is_one_line(tmp_path, capsys):
    assert "none.yaml" in refused(capsys, ["train", "--config", tmp_path / "none.yaml"])


def test_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, ["train", *TINY, "--out", tmp_path / "file" / "run"])
    assert str(tmp_path / "file") in refused(capsys, ["train", *TINY, "--out", tmp_path / "file"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_read_only_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked" in refused(capsys, ["train", *TINY, "--out", tmp_path / "locked" / "run"])


def test_a_process_says_one_line_too(tmp_path):
    args = [sys.executable, "-m", "rlmix.scripts.main", "train", *TINY, "--epochs", "0", "--out", str(tmp_path / "run")]
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "rlmix: error: --epochs must be at least 1, got 0\n"
    assert done.stdout == ""


def test_loss_that_is_not_finite_is_one_line_and_keeps_what_was(tmp_path, capsys):
    line = refused(capsys, ["train", *TINY, "--method", "vanilla", "--learning-rate", "1e30", "--out", tmp_path / "run"])
    assert "the loss is nan in epoch 1, step" in line or "the loss is inf in epoch 1, step" in line
    assert "at learning rate" in line


# -- a full disk


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "save", "zip"])
def test_full_disk_is_one_line_and_keeps_the_earlier_checkpoint(runs, tiny, where, tmp_path, monkeypatch, capsys):
    out, end_epoch = tmp_path / "run", Session.end_epoch

    def zip_error(*args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")

    with monkeypatch.context() as patch:

        def full(session, update):
            if session._record["epoch"] == 2:
                target, name = (os, "fsync") if where == "fsync" else (torch, "save")
                patch.setattr(target, name, zip_error if where == "zip" else no_space)
            end_epoch(session, update)

        patch.setattr(Session, "end_epoch", full)
        line = refused(capsys, ["train", *tiny, *METHODS["rmix"], "--out", out])
    said = {"fsync": "MB are left on a full disk", "save": "No space left on device", "zip": "could not be written"}
    assert said[where] in line
    assert f"rlmix train --resume {out}" in line
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["epoch-0001.pt"]
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs("rmix"), out)


def test_epochs_said_to_be_kept_are_those_with_a_checkpoint(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "save", no_space)
    line = refused(capsys, ["train", *tiny, *METHODS["vanilla"], "--out", tmp_path / "run"])
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")
    assert "0 of 2 epochs are kept" in line


def test_full_disk_leaves_no_half_line_of_metrics(tmp_path):
    """Files of this process are held to a size: a write beyond it is cut short and fails, as on a full disk."""
    run = Run.create(tmp_path / "run", {"epochs": 2})
    run.log_epoch({"epoch": 1, "step": 5, "train_loss": 1.0})
    metrics = tmp_path / "run" / "metrics.jsonl"
    before = metrics.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            run.log_epoch({"epoch": 2, "step": 10, "train_loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert metrics.read_bytes() == before
    assert len(run.epochs) == 1
    run.close()
