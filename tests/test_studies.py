"""The scripts of docs/studies: which runs are missing, in what order they are trained, and how figures are laid out."""

import importlib.util
import json
import time
from pathlib import Path

import pytest

from rlmix.experiments.reading import read_options
from rlmix.experiments.settings import settled

STUDIES = Path(__file__).parents[1] / "docs" / "studies"


def script(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = {
    "options": "--epochs 2 --flip",
    "arms": {"rlmix": "--method rlmix", "shuffled": "--method shuffled --policy {runs}/rlmix-s{seed}", "rmix": "--method rmix"},
}


@pytest.fixture
def place(tmp_path):
    (tmp_path / "kept").mkdir()
    return tmp_path


def planned(place, arms, seeds):
    run_arms = script("run_arms")
    return run_arms, run_arms.plan(TABLE, place / "kept", Path("a.npz"), place / "runs", arms, seeds)


def test_what_is_missing_is_planned_seed_by_seed(place):
    (place / "kept" / "rmix-s0.json").write_text("{}")
    _, jobs = planned(place, ["rmix", "rlmix", "shuffled"], [0, 1])
    assert [job.name for job in jobs] == ["rlmix-s0", "shuffled-s0", "rmix-s1", "rlmix-s1", "shuffled-s1"]
    runs = place / "runs"
    assert jobs[1].words == [
        *("--epochs", "2", "--flip", "--method", "shuffled", "--policy", str(runs / "rlmix-s0")),
        *("--data", "npz:a.npz", "--seed", "0", "--out", str(runs / "shuffled-s0")),
    ]
    assert [job.needs for job in jobs[:3]] == [[], ["rlmix-s0"], []]


@pytest.mark.parametrize("study", sorted(path.parent for path in STUDIES.glob("results/*/arms.json")), ids=lambda path: path.name)
def test_every_arm_of_a_study_is_a_training(study, place):
    table = json.loads((study / "arms.json").read_text())
    jobs = script("run_arms").plan(table, place, Path("a.npz"), place / "runs", list(table["arms"]), [0])
    assert len(jobs) == len(table["arms"]) > 1
    configs = [settled(read_options(job.words)) for job in jobs]
    assert len({json.dumps(config.changed(out=None).as_dict(), default=str) for config in configs}) == len(jobs)


def test_a_run_waits_for_the_one_that_it_needs_and_fails_with_it(place):
    run_arms, jobs = planned(place, ["rlmix", "shuffled", "rmix"], [0, 1])
    order = []

    def one(job):
        if job.name.startswith("rlmix"):
            time.sleep(0.05)
        order.append(job.name)
        job.folder.mkdir(parents=True)
        (job.folder / "result.json").write_text(json.dumps({"top1": 1.0}))
        return int(job.name == "rlmix-s1")

    assert run_arms.run_all(jobs, 2, one) == ["rlmix-s1", "shuffled-s1"]
    assert order.index("rlmix-s0") < order.index("shuffled-s0")
    assert "shuffled-s1" not in order
    assert sorted(path.stem for path in (place / "kept").iterdir()) == ["rlmix-s0", "rmix-s0", "rmix-s1", "shuffled-s0"]


def test_an_interrupted_run_is_gone_on_with(place, monkeypatch):
    run_arms, (job,) = planned(place, ["rmix"], [0])
    job.folder.mkdir(parents=True)
    (job.folder / "config.yaml").write_text("")
    asked = []

    def run(command, **rest):
        asked.append(command[3:])
        (job.folder / "result.json").write_text(json.dumps({"top1": 1.0}))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(run_arms.subprocess, "run", run)
    assert run_arms.train(job) == 0
    assert asked == [["train", "--resume", str(job.folder)]]
    assert run_arms.train(job) == 0  # it is finished
    assert len(asked) == 1


def test_differences_are_paired_by_bed_and_seed(tmp_path):
    """Of two beds the difference of all pairs; of one also the mean of each arm."""
    arms = script("arms")
    for bed, base in (("a", 50.0), ("b", 70.0)):
        (tmp_path / bed).mkdir()
        for seed in (0, 1):
            for arm, gain in (("rmix", 0.0), ("rlmix", 1.0 + seed)):
                path = tmp_path / bed / f"{arm}-s{seed}.json"
                path.write_text(json.dumps({"top1": base + gain, "ece": 3.0}))
    (tmp_path / "a" / "rlmix-s2.json").write_text(json.dumps({"top1": 90.0, "ece": 3.0}))  # of no pair
    lines = arms.layout(arms.read([tmp_path / "a", tmp_path / "b"]), "rmix")
    # pairs 1, 2, 1, 2: mean 1.5, deviation sqrt(1/3), Student's factor 3.1824 of three degrees of freedom
    assert lines[2:] == ["| rlmix | 4 | +1.50 [+0.58, +2.42] | +0.00 [+0.00, +0.00] |"]
    drawn = arms.draw(arms.read([tmp_path / "a", tmp_path / "b"]), "rmix")
    (top1, dot), zero = [line.get_xdata() for line in drawn.axes[0].lines[:2]], drawn.axes[0].lines[2].get_xdata()
    assert [round(float(value), 2) for value in (*top1, *dot)] == [0.58, 2.42, 1.5]
    assert list(zero) == [0, 0]
    one = arms.layout(arms.read([tmp_path / "b"]), "rmix")[2:]
    # pairs 1, 2: mean 1.5, deviation sqrt(1/2), factor 12.706 of one degree of freedom
    assert one == [
        "| rlmix | 2 | 71.50 | +1.50 [-4.85, +7.85] | 3.00 | +0.00 [+0.00, +0.00] |",
        "| rmix | 2 | 70.00 |  | 3.00 |  |",
    ]
