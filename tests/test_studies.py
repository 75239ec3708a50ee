"""The scripts of docs/studies: which runs are missing, in what order they are trained, and how figures are laid out."""

import importlib.util
import json
from pathlib import Path

import pytest
from toys import NETWORK, write_npz

from rlmix.config import Config
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


def test_what_is_missing_is_found_seed_by_seed(place):
    (place / "kept" / "rmix-s0.json").write_text("{}")
    run_arms = script("run_arms")
    runs = place / "runs"
    found = run_arms.missing(TABLE, place / "kept", Path("a.npz"), runs, ["rmix", "rlmix", "shuffled"], [0, 1])
    assert list(found) == ["rlmix-s0", "shuffled-s0", "rmix-s1", "rlmix-s1", "shuffled-s1"]
    wanted = {"method": "shuffled", "policy": str(runs / "rlmix-s1"), "seed": 1, "data": "npz:a.npz", "epochs": 2, "flip": True}
    assert found["shuffled-s1"] == Config.flat(**wanted, out=runs / "shuffled-s1")
    first, second = run_arms.waves(found)
    assert [list(first), list(second)] == [["rlmix-s0", "rmix-s1", "rlmix-s1"], ["shuffled-s0", "shuffled-s1"]]


@pytest.mark.parametrize("study", sorted(path.parent for path in STUDIES.glob("results/*/arms.json")), ids=lambda path: path.name)
def test_every_arm_of_a_study_is_a_training(study, place):
    table = json.loads((study / "arms.json").read_text())
    found = script("run_arms").missing(table, place, Path("a.npz"), place / "runs", table["arms"], [0])
    assert len(found) == len(table["arms"]) > 1
    settings = {json.dumps(settled(run).as_dict(), default=str) for run in found.values()}
    assert len(settings) == len(found)


def test_a_study_is_trained_kept_and_not_trained_again(place, monkeypatch, capsys):
    """A run that takes another's policy comes after it, though it was named before; run folders with other options are refused."""
    network = f"--model {NETWORK} --epochs 1 --batch-size 16 --device cpu --num-top-k 3 --metrics ece"
    table = {"options": network, "arms": {"late": TABLE["arms"]["shuffled"], "rlmix": "--method rlmix"}}
    (place / "arms.json").write_text(json.dumps(table))
    run_arms = script("run_arms")
    words = ["run_arms", str(place), write_npz(place, 16).removeprefix("npz:"), "bed", "--arms", "late", "rlmix", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*words, "--jobs", "1", "--runs", str(place / "runs")])
    run_arms.main()
    figures = {path.stem: json.loads(path.read_text()) for path in (place / "bed").iterdir()}
    assert {name: found["method"] for name, found in figures.items()} == {"late-s0": "shuffled", "rlmix-s0": "rlmix"}
    trained = []
    monkeypatch.setattr(run_arms, "run_all", lambda runs, *rest, **more: trained.extend(runs))
    run_arms.main()
    (place / "bed" / "late-s0.json").unlink()
    run_arms.main()  # its folder has the figures
    assert trained == []
    assert json.loads((place / "bed" / "late-s0.json").read_text()) == figures["late-s0"]
    (place / "bed" / "rlmix-s0.json").unlink()
    (place / "arms.json").write_text(json.dumps(table | {"options": network.replace("--epochs 1", "--epochs 2")}))
    with pytest.raises(SystemExit, match="holds a run with other options: epochs 1 is not 2"):
        run_arms.main()


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
