"""A run's folder of before the packages were laid out anew: it goes on, and every command reads it.

support/run_before_house/run was stopped after step 4 of 9, in mid-epoch; whole.pt and whole.jsonl are what the same command leaves if it
is not stopped: ``rlmix train --data digits --train-images 48 --test-images 20 --val-fraction 0.25 --batch-size 12 --model small_network
--epochs 3 --seed 3 --device cpu --checkpoint-every 2 --agent.policy-layers 8 --agent.value-layers 8``, as of 0.1.0.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_network
import torch

import rlmix.models
from rlmix.common.saved_config import read_config
from rlmix.experiments.resuming import completed
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import load_checkpoint, newest_state
from rlmix.training.run_folder import read_metrics

CONSTANTS = ("constant 0", "constant 0.11", "constant 0.44", "constant 0.99")
KEPT = Path(__file__).parents[1] / "support" / "run_before_house"


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(rlmix.models.MODELS, "_entries", {entry.name: entry for entry in rlmix.models.MODELS.entries()})
    small_network.register()


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(KEPT / "run", tmp_path / "run")


def same_arithmetic(tmp_path):
    """Whether this machine's sums come out to the bit as on the one that made the folder."""
    options = ["--data", "digits", "--train-images", "48", "--test-images", "20", "--val-fraction", "0.25", "--batch-size", "12"]
    options += ["--model", "small_network", "--epochs", "3", "--seed", "3", "--device", "cpu", "--out", str(tmp_path / "anew")]
    rlmix_main(["train", *options, "--agent.policy-layers", "8", "--agent.value-layers", "8"])
    anew, whole = read_metrics(tmp_path / "anew"), whole_metrics()
    losses = [[record["train_loss"] for record in records] for records in (anew, whole)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    return untimed(anew) == untimed(whole)


def untimed(records):
    return [{name: value for name, value in record.items() if name != "epoch_seconds"} for record in records]


def whole_metrics():
    return [json.loads(line) for line in (KEPT / "whole.jsonl").read_text().splitlines()]


def test_it_goes_on_to_where_it_would_have_come_to(run, tmp_path):
    rlmix_main(["train", "--resume", str(run)])
    found, expected = untimed(read_metrics(run)), untimed(whole_metrics())
    assert [record.keys() for record in found] == [record.keys() for record in expected]
    assert found[0] == expected[0]
    if not same_arithmetic(tmp_path):
        for record, other in zip(found, expected, strict=True):
            assert record["train_loss"] == pytest.approx(other["train_loss"], rel=0.05)
        return
    assert found == expected
    state, other = newest_state(run), load_checkpoint(KEPT / "whole.pt")
    # what came later: nothing is chosen beside top-k values, and the entropy's weight does not move
    assert state["training"].pop("others") == {}
    assert state["decider"].pop("ent_coef") == rlmix.PPOConfig().entropy_coefficient
    for part in ("training", "decider"):
        assert_same(state[part], other[part])


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, list | tuple):
        for left, right in zip(first, second, strict=True):
            assert_same(left, right)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second) or first.numel() == second.numel() == 0
    else:
        assert first == second


def test_its_configuration_is_what_todays_version_would_write(run):
    before = read_config(run)
    rlmix_main(["train", "--resume", str(run)])
    assert read_config(run) == rlmix.Config().as_dict() | completed(before)  # what came later is at its default
    assert read_config(run)["num_patches"] == [2, 4]


def test_every_command_reads_it(run, tmp_path):
    rlmix_main(["evaluate", str(run), "--attacks", "fgsm"])
    assert json.loads((run / "evaluate.json").read_text())["num_images"] == 20
    rlmix_main(["export", str(run)])
    assert (run / "policy-ppo.zip").stat().st_size > 1000
    rlmix_main(["visualize", str(run), "--batches", "2", "--num-images", "2"])
    assert (run / "figure2.png").exists()
    options = ["--data", "digits", "--train-images", "48", "--batch-size", "12", "--model", "small_network", "--epochs", "1"]
    rlmix_main(["train", *options, "--method", "policy", "--policy", str(run), "--out", str(tmp_path / "policy")])
    frozen = [
        "--freeze-from",
        str(run),
        "--batch-size",
        "12",
        "--batches",
        "2",
        "--policies",
        str(run),
        "--out",
        str(tmp_path / "p"),
    ]
    rlmix_main(["policies", *frozen])
    assert set(json.loads((tmp_path / "p" / "policies.json").read_text())) == {"uniform", "coin", *CONSTANTS, str(run)}
