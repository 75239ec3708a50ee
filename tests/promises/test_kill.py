"""Kill -9 at random moments, inside checkpoint writes among them: what comes out is what an undisturbed run gives, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sameness import assert_same_run
from toys import NETWORK, write_npz

DRIVER = Path(__file__).parents[1] / "support" / "kill_driver.py"


def drive(seed, kills, folder, options):
    """The moments at which the runs in ``folder`` were killed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    args = [sys.executable, str(DRIVER), str(seed), str(kills), str(folder), *options]
    done = subprocess.run(args, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.startswith("killed")]


def assert_survives(seed, kills, folder, options):
    assert drive(0, 0, folder / "whole", options) == []
    moments = drive(seed, kills, folder / "killed", options)
    assert len(moments) == kills
    for run in (folder / "killed").iterdir():
        assert_same_run(folder / "whole" / "0", run)
        assert (run / "result.json").exists()
        assert not list((run / "checkpoints").glob("*.tmp"))
    return moments


@pytest.mark.parametrize("method", ["rlmix", pytest.param("automix", marks=pytest.mark.slow)])
def test_a_run_killed_three_times_ends_as_if_it_had_not_been(method, tmp_path):
    data = write_npz(tmp_path, 8, num_train=48)
    options = ["--data", data, "--batch-size", "16", "--epochs", "2", "--model", NETWORK]
    assert_survives(3, 3, tmp_path, [*options, "--method", method, "--checkpoint-every", "2"])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "method"), list(enumerate(["rmix", "rlmix", "automix", "puzzlemix"])))
def test_thirty_kills_of_six_epochs_of_digits_change_nothing(seed, method, tmp_path):
    options = [
        "--data",
        "digits",
        "--train-images",
        "128",
        "--test-images",
        "40",
        "--batch-size",
        "32",
        "--epochs",
        "6",
        "--method",
        method,
    ]
    moments = assert_survives(seed, 30, tmp_path, [*options, "--checkpoint-every", "3"])
    assert sum("checkpoint" in moment or "file" in moment for moment in moments) >= 5
