"""rlmix benchmark --suite: stages in order, each written once; what was stopped goes on, and what fails is recorded."""

import json

import pytest
import torch
from toys import NETWORK

from rlmix.benchmarking.options import Benchmark, SuiteConfig
from rlmix.experiments import suite
from rlmix.experiments.commands.suite import ARMS, compared, schedule
from rlmix.experiments.settings import settled
from rlmix.scripts import benchmark
from rlmix.scripts.main import main as rlmix_main

TINY = ["--suite", "gpu", "--device", "cpu", "--scale", "0.01", "--models", NETWORK, NETWORK]
CPU = torch.device("cpu")
STEPS = [
    *("steps-cifar-float32", "steps-cifar-bfloat16", "steps-imagenet-float32", "steps-imagenet-bfloat16"),
    *("compiled-cifar-float32", "compiled-cifar-bfloat16", "compiled-imagenet-float32", "compiled-imagenet-bfloat16"),
    *("waits-cifar", "waits-imagenet"),
    *("memory-cifar-float32", "memory-cifar-bfloat16", "memory-imagenet-float32", "memory-imagenet-bfloat16"),
]
TRAINED = ["compared-1", "compared-2", "compared-3", *(f"schedule-{name}" for name in ARMS)]


def options(folder, **values):
    return Benchmark(device="cpu", suite=SuiteConfig("gpu", out=folder, **{"models": (NETWORK, NETWORK), "scale": 0.01} | values))


def records(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem != "suite"}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A suite that was stopped in its second stage, and went on to its end."""
    folder, attempts = tmp_path_factory.mktemp("suite") / "out", []

    def until_the_second(stage):
        attempts.append(stage.name)
        if len(attempts) == 2:
            raise KeyboardInterrupt
        return attempt(stage)

    attempt, suite.attempt = suite.attempt, until_the_second
    try:
        with pytest.raises(KeyboardInterrupt):
            benchmark.main([*TINY, "--data", "digits", "--out", str(folder)])
        first = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.json")}
        table = (folder / "table.md").read_text()
        benchmark.main([*TINY, "--data", "digits", "--out", str(folder)])
    finally:
        suite.attempt = attempt
    return folder, first, table, attempts


def test_a_stopped_suite_leaves_its_first_stage_and_goes_on_with_the_second(stopped):
    folder, first, table, attempts = stopped
    assert set(first) == {"suite.json", f"{STEPS[0]}.json"}
    path = folder / f"{STEPS[0]}.json"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == first[path.name]
    assert attempts == [*STEPS[:2], *STEPS[1:], *TRAINED]
    ms = json.loads(first[path.name][0])["result"]["methods"]["rmix"]["step_ms"]
    assert f"| rmix | {ms:.2f} |" in table
    assert f"| rmix | {ms:.2f} |" in (folder / "table.md").read_text()


def test_every_stage_has_its_file(stopped):
    found = records(stopped[0])
    assert set(found) == {*STEPS, *TRAINED}
    for name, record in found.items():
        assert record["stage"] == name
        assert ("failed" in record) == name.startswith("compiled-")
    for name in STEPS[:4]:
        rows = found[name]["result"]["methods"]
        assert list(rows) == ["vanilla", "rmix", "rmix-recycled", "rlmix", "rlmix-device"]
        assert rows["vanilla"]["ratio"] == 1
    assert found["steps-cifar-bfloat16"]["result"]["machine"]["precision"] == "bfloat16"
    assert set(found["waits-cifar"]["result"]["methods"].values()) == {None}
    assert found["compiled-cifar-float32"]["failed"] == "compiled steps are timed on a GPU alone"
    for count in (1, 2, 3):
        report = found[f"compared-{count}"]["result"]
        assert report["seeds"] == [0, 1, 2][:count]
        assert list(report["methods"]) == ["vanilla", "rmix", "rmix-recycled", "rlmix"]
        assert (report["methods"]["rlmix"]["top1"]["low"] is None) == (count == 1)
    assert found["schedule-rlmix"]["result"]["config"]["epochs"] == 3


def test_a_finished_suite_measures_nothing_and_writes_the_same_table(stopped, monkeypatch):
    folder = stopped[0]
    text = (folder / "table.md").read_text()
    (folder / "table.md").unlink()
    monkeypatch.setattr(suite, "attempt", lambda stage: pytest.fail(stage.name))
    suite.run_suite(options(folder, data="digits"))
    assert (folder / "table.md").read_text() == text
    suite.run_suite(options(folder))  # the trainings are none of this call's, and stay
    assert "## A whole schedule" in (folder / "table.md").read_text()
    with pytest.raises(ValueError, match=r"holds a suite with other options: scale 0.01 is not 0.5"):
        suite.run_suite(options(folder, scale=0.5))


def test_what_fails_is_recorded_in_a_line_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    def failing():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 MiB")

    planned = [
        suite.Stage("steps-cifar-float32", failing),
        suite.Stage("memory-cifar-float32", lambda: {"methods": {"rmix": 7.0}}),
    ]
    monkeypatch.setattr(suite, "stages", lambda options, device: planned)
    suite.run_suite(options(tmp_path / "out"))
    found = records(tmp_path / "out")
    why = "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB"
    assert found["steps-cifar-float32"]["failed"] == why
    assert found["memory-cifar-float32"]["result"] == {"methods": {"rmix": 7.0}}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| rmix | 7 |" in text
    assert f"- steps-cifar-float32: {why}" in text
    assert f"1/2 steps-cifar-float32 failed: {why}" in capsys.readouterr().out


def test_where_a_method_fails_the_others_are_timed(monkeypatch):
    asked = []

    def measure(config, methods, **rest):
        asked.append(methods)
        if "rlmix" in methods:
            raise RuntimeError("no such kernel")
        rows = {name: {"ratio": len(asked)} for name in ("vanilla", *methods)}
        return {"machine": {"device": "cpu"}, "methods": rows}

    monkeypatch.setattr(suite, "measure", measure)
    steps = Benchmark(("vanilla", "rmix", "rlmix", "rmix-recycled"), model=NETWORK, batch_size=8, image_size=16, device="cpu")
    found = suite.time_all(steps)
    assert asked == [steps.methods, ("rmix",), ("rlmix",), ("rmix-recycled",)]
    assert {name: row["ratio"] for name, row in found["methods"].items()} == {"vanilla": 2, "rmix": 2, "rmix-recycled": 4}
    assert found["failed"] == {"rlmix": "RuntimeError: no such kernel"}


def test_the_whole_scale_is_the_papers(tmp_path):
    """Sizes, epochs, and an npz by CIFAR-100's recipe."""
    whole = options(tmp_path, scale=1.0, data="digits")
    sizes = {name: suite.shrunk(whole, size, "resnet50") for name, size in suite.SIZES.items()}
    assert [(size.batch_size, size.image_size, size.rounds) for size in sizes.values()] == [(100, 32, 30), (64, 224, 30)]
    half = suite.shrunk(options(tmp_path, scale=0.5), suite.SIZES["imagenet"], "resnet50")
    assert (half.batch_size, half.image_size, half.rounds) == (32, 128, 15)
    study = compared(whole, (0, 1), {})
    assert [arm.options.optim.epochs for arm in study.arms] == [30] * 4
    assert [settled(arm.options).mixing.saliency_mode for arm in study.arms] == ["exact", "exact", "recycled", "exact"]
    assert schedule(whole, "rlmix", {}).arms[0].options.optim.epochs == 300
    assert suite.recipe_of(whole) == {}


def test_an_npz_is_trained_as_cifar_and_in_small_by_its_own_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "scale_images", lambda config, scale: {"train_images": 7})
    recipe = suite.recipe_of(options(tmp_path, scale=1.0, data="npz:FILE"))
    assert (recipe["learning_rate"], recipe["clip_norm"], recipe["batch_size"]) == (0.3, 0.0, 100)
    assert suite.recipe_of(options(tmp_path, data="npz:FILE")) == {"train_images": 7}


def test_what_is_typed_and_not_read_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = ["--out", str(tmp_path / "out")]
    for args, words in (
        (["--suite", "gpu", *out], "suite gpu must have a GPU, and there is none; --device cpu rehearses it"),
        ([*out], "--out must be left out without --suite: it would do nothing"),
        (["--scale", "0.5"], "--scale must be left out without --suite"),
        ([*TINY, *out, "--rounds", "3"], "--rounds must be left out with --suite, which settles it itself"),
        ([*TINY, *out, "--peers"], "--peers must be left out with --suite"),
        ([*TINY, *out, "--data-root", "x"], "--data-root must be left out without --data: it would do nothing"),
        ([*TINY, *out, "--data", "digits", "--download"], "--download must be left out with --data digits: it would do nothing"),
        ([*TINY, *out, "--data", "digit"], "--data must be one of digits, "),
        ([*TINY, *out, "--data", "npz:none.npz"], "none.npz must name a file, and there is none"),
        (["--suite", "gpu", "--models", "resnet50"], "--models must name two networks, for images of 32 pixels and of 224"),
        (["--suite", "gpu", "--models", "resnet5", "resnet50"], "--models must be one of"),
        (["--suite", "gpu", "--scale", "2"], "--scale must be in (0, 1], got 2.0"),
        (["--suite", "cpu"], "--suite must be one of gpu"),
    ):
        with pytest.raises(SystemExit) as stop:
            rlmix_main(["benchmark", *args])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line, line
    assert not (tmp_path / "out").exists()
