"""What a run says before it trains, and --dry-run, which stops there."""

import re

import pytest
from toys import write_folder, write_npz

import rlmix
import rlmix.models
from rlmix.reporting.progress import ESTIMATED_AFTER, TrainingProgress, spell_seconds
from rlmix.scripts.main import main as rlmix_main


def said(capsys, *words):
    rlmix_main(["train", *words])
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_npz(tmp_path, 8, num_train=60)
    before = sorted(tmp_path.rglob("*"))
    options = ["--data", data, "--batch-size", "16", "--epochs", "3", "--model", "preactresnet18_w16", "--val-fraction", "0.2"]
    lines = said(capsys, *options, "--device", "cpu", "--seed", "4", "--dry-run")
    count = sum(value.numel() for value in rlmix.models.build_model("preactresnet18_w16", 10).parameters())
    rest = "test images of 8x8 pixels, 3 channels, 10 classes"
    splits = re.fullmatch(rf"data     {data}: (\d+) training, (\d+) validation and \d+ {rest}", lines[0])
    assert splits
    assert int(splits[1]) + int(splits[2]) == 60
    assert lines[1] == f"model    preactresnet18_w16: {count} parameters"
    assert lines[2] == f"training 3 epochs of {int(splits[1]) // 16} steps of 16 images; sgd, learning rate to 0.05, onecycle"
    assert lines[3].startswith("method   rlmix: ppo learns, a decision an image; reward cosine, credit pair, observation pair;")
    assert lines[3].endswith("; masks of 2 or 4 patches a side; exact maps; seed 4")
    assert lines[4] == "device   cpu, float32"
    assert lines[5].startswith("folder   runs/")
    assert len(lines) == 6
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--method constant --top-k 0.11", "method   constant: top-k 0.11; masks of 2 or 4 patches a side; exact maps; seed 0"),
        ("--method cutout --mixing.side 4", "method   cutout: side 4; seed 0"),
        ("--method rmix-p8", "method   rmix-p8: masks of 8 patches a side; recycled maps; seed 0"),
        ("--precision bfloat16", "device   cpu, bfloat16"),
        ("--accumulation 2 --optimizer adamw --learning-rate 0.001 --schedule constant",
         "training 2 epochs of 4 steps of 16 images, 2 batches a step of the optimizer; adamw, learning rate to 0.001, constant"),
    ],
)  # fmt: skip
def test_every_setting_is_in_its_line(words, line, tmp_path, capsys):
    options = ["--data", write_npz(tmp_path, 8), "--batch-size", "16", "--epochs", "2", "--device", "cpu"]
    assert line in said(capsys, *options, "--model", "preactresnet18_w16", "--dry-run", *words.split())


def test_a_folder_of_images(tmp_path, capsys):
    options = ["--data", write_folder(tmp_path), "--image-size", "16", "--model", "preactresnet18_w16", "--batch-size", "8"]
    first, *_ = said(capsys, *options, "--workers", "0", "--device", "cpu", "--dry-run")
    assert first == f"data     imagefolder:{tmp_path}: 24 training and 12 test images of 16x16 pixels, 3 channels, 3 classes"


def test_a_run_says_so_and_how_long_yet(tmp_path, capsys):
    tiny = [
        "--data",
        write_npz(tmp_path, 8, num_train=128),
        "--model",
        "preactresnet18_w16",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    ]
    tiny += ["--epochs", "2", "--method", "vanilla", "--out", str(tmp_path / "run")]
    planned = said(capsys, *tiny, "--dry-run")
    lines = said(capsys, *tiny)
    assert lines[:6] == planned
    (estimate,) = [line for line in lines if line.startswith("estimate")]
    assert re.fullmatch(rf"estimate \d+ s for the {32 - 1 - ESTIMATED_AFTER} steps left, \S+ s each", estimate)
    resumed = said(capsys, "--resume", str(tmp_path / "run"), "--dry-run")
    assert resumed[:5] == planned[:5]
    assert resumed[5] == f"{planned[5]}, goes on after step 32"


def test_a_dry_run_of_the_call_has_no_figures(tmp_path, tiny_config):
    result = rlmix.train(tiny_config.changed(out=tmp_path / "run", dry_run=True), quiet=True)
    assert dict(result) == {}
    assert not (tmp_path / "run").exists()


def test_the_pace_is_said_once(capsys, monkeypatch):
    clock = iter((100.0, 105.0))
    monkeypatch.setattr("rlmix.reporting.progress.time.monotonic", lambda: next(clock))
    progress = TrainingProgress(1000, 0, 1)
    for step in range(1, 30):
        progress.pace(step)
    assert capsys.readouterr().out == "estimate 8.2 min for the 989 steps left, 0.5 s each\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (99, "99 s"), (100, "1.7 min"), (5399, "90 min"), (7200, "2.0 h"), (180000, "2.1 days")],
)
def test_times_as_people_say_them(seconds, words):
    assert spell_seconds(seconds) == words
