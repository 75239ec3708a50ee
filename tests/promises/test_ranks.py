"""Several processes train what one would: gradients, shares, metrics; a lost one ends the others; the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks_driver
import torch
from sameness import assert_same_run
from toys import write_npz

import rlmix.models
from rlmix.common.ranks import Ranks, peers
from rlmix.common.seeding import stream
from rlmix.experiments.launching import launch
from rlmix.mixing.core import Mixed
from rlmix.mixing.rmix import RMix
from rlmix.mixing.vanilla import Vanilla
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Training

SUPPORT = Path(__file__).parents[1] / "support"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
CIFAR = os.environ.get("RLMIX_TEST_CIFAR100")
"""An npz of CIFAR-100, for the slow tests."""


def torchrun(driver, *args):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SUPPORT / driver)]
    return subprocess.run([*command, *args], capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)


def run_driver(folder, data, train_images):
    done = torchrun("ranks_driver.py", str(folder), data, str(train_images))
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, run_driver(folder, "digits", 128)


def one_process(register, data, train_images, method):
    """The gradient after two steps of one process at the same global batch, with the draws of the two ranks."""
    register(rlmix.models.MODELS, "norm_free", ranks_driver.make_norm_free)
    training = Training(ranks_driver.config_of(data, train_images))
    for _ in range(2):
        images, labels = training.next_batch()
        seed = int(torch.randint(2**62, (), generator=training.mixing_generator))
        parts = []
        for rank, rows in enumerate((slice(16), slice(16, 32))):
            generator = stream(seed, f"rank {rank}")
            parts.append(
                method(training.model, images[rows], labels[rows], num_classes=training.data.num_classes, generator=generator)
            )
        training.step(Mixed(torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts])))
    return [parameter.grad for parameter in training.model.parameters()]


def assert_same_gradients(register, found, data, train_images):
    for name, method in (("vanilla", Vanilla()), ("rmix", RMix())):
        expected = one_process(register, data, train_images, method)
        assert max(gradient.abs().max() for gradient in expected) > 1e-3
        for rank in range(2):
            for ours, theirs in zip(found[rank][name], expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        for first, second in zip(found[0][f"{name} weights"], found[1][f"{name} weights"], strict=True):
            assert torch.equal(first, second)


def test_two_processes_have_the_gradient_of_one(digits, register):
    assert_same_gradients(register, digits[1], "digits", 128)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR, reason="RLMIX_TEST_CIFAR100 names no file")
def test_two_processes_have_the_gradient_of_one_on_cifar100(tmp_path, register):
    assert_same_gradients(register, run_driver(tmp_path, f"npz:{CIFAR}", 2000), f"npz:{CIFAR}", 2000)


def test_accumulated_steps_and_their_average_are_those_of_one_process(digits, register):
    register(rlmix.models.MODELS, "norm_free", ranks_driver.make_norm_free)
    expected = ranks_driver.accumulated("digits", 128)
    for found in digits[1]:
        for name, weights in zip(("accumulated", "averaged"), expected, strict=True):
            for ours, theirs in zip(found[name], weights, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_methods_own_gradients_are_the_mean_of_the_ranks(digits):
    """DDP does not know AutoMix's block; each rank's loss is a mean over its own images."""
    first, second = digits[1]
    assert max(gradient.abs().max() for gradient in first["block own"]) > 1e-3
    for part in zip(*(rank[name] for name in ("block own", "block taken") for rank in (first, second)), strict=True):
        (one, other), taken = part[:2], part[2:]
        assert not torch.equal(one, other)
        for gradient in taken:
            torch.testing.assert_close(gradient, ((one.double() + other.double()) / 2).float(), rtol=1e-5, atol=1e-7)


def test_kept_maps_are_those_that_either_rank_has_put(digits):
    maps, logits = torch.ones(6, 8, 8, dtype=torch.float16), torch.zeros(6, 3)
    for rank in range(2):
        places, put, said = ranks_driver.told(rank)
        maps[places], logits[places] = put.half(), said
    for found in digits[1]:
        assert torch.equal(found["maps"], maps)
        assert torch.equal(found["logits"], logits)


@pytest.mark.parametrize("name", ["vanilla", "rmix"])
def test_training_accuracy_is_over_the_images_of_all_ranks(digits, name):
    right = torch.cat([rank[f"{name} right"] for rank in digits[1]])
    assert len(right) == 2 * 32
    assert right.any()
    for rank in digits[1]:
        assert rank[f"{name} metrics"]["train_top1"] == pytest.approx(100 * float(right.double().mean()))
        assert rank[f"{name} metrics"]["train_top5"] <= 100


def test_one_policy_decides_for_the_slots_of_all_ranks(digits):
    """What either rank mixed by are its rows of what rank 0's agent chose, and all rewards came back to it."""
    folder, (first, second) = digits
    actions = torch.tensor(first["collected"]).long()  # of the last epoch; the update has laid them out slot by slot
    chosen = torch.cat([first["top_k"], second["top_k"]], 1)[-4:]
    values = torch.linspace(0, 0.99, 10)
    assert torch.equal(values[actions.flatten()].reshape(32, 4).T, chosen)
    records = read_metrics(folder / "run")
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[-1]["reward_mean"] == first["rewards"]
    assert records[-1]["top_k_mean"] == pytest.approx(float(chosen.mean()))
    assert sum(records[-1]["top_k_counts"]) == 128
    state = load_checkpoint(list_checkpoints(folder / "run" / "checkpoints")[-1])["training"]
    assert state["tally"]["losses"].shape == (2, 4)
    assert records[-1]["train_loss"] == pytest.approx(float(state["tally"]["losses"].mean()))


# -- alone


def test_alone_nothing_is_told():
    ranks, rows = Ranks(), torch.arange(6)
    assert (ranks.size, ranks.rank, ranks.first) == (1, 0, True)
    assert torch.equal(ranks.share(rows), rows)
    assert torch.equal(ranks.gather(rows), rows[None])
    assert not ranks.any(False)
    assert ranks.any(True)
    with pytest.raises(RuntimeError, match="ours"), peers(ranks):
        raise RuntimeError("ours")


def test_shares_are_all_rows_once():
    parts = []
    for rank in range(3):
        ranks = Ranks()
        ranks.size, ranks.rank = 3, rank
        parts.append(ranks.share(torch.arange(12)))
    assert torch.equal(torch.cat(parts), torch.arange(12))


def test_nodes_need_an_environment_that_says_which_is_which(monkeypatch):
    monkeypatch.delenv("NODE_RANK", raising=False)
    with pytest.raises(ValueError, match=r"nodes must be 1 unless .*NODE_RANK is set, got 2"):
        launch([], 2, 2)


# -- a rank that is lost


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=320)
    return ["--data", data, "--batch-size", "16", "--model", "preactresnet18_w16", "--learning-rate", "0.05", "--device", "cpu"]


def start(*args):
    command = [sys.executable, "-m", "rlmix.scripts.main", "train", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(*args):
    """The exit code."""
    with start(*args) as process:
        process.communicate(timeout=200)
    return process.returncode


def workers(process):
    """Process ids of the ranks, in order."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in found if b"--devices" in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.mark.parametrize("limit", [None, "1e-9"])
def test_every_end_of_a_run_leaves_the_group(options, limit, tmp_path):
    """Threads of gloo that outlive the interpreter abort the process: another exit code, now and then."""
    args = [*options, "--epochs", "1", "--train-images", "32", "--out", str(tmp_path / "run")]
    done = torchrun("exit_driver.py", str(tmp_path), *args, *(["--time-limit", limit] if limit else []))
    assert "exitcode  : 124" in done.stderr if limit else done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        assert (tmp_path / f"rank{rank}.txt").read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vanilla", "rlmix"])
@pytest.mark.parametrize("event", ["rank 1 is killed", "all are terminated"])
def test_a_run_that_loses_a_rank_ends_and_goes_on_to_the_bit(options, method, event, tmp_path):
    options = [*options, "--method", method, "--devices", "2", "--epochs", "6"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert finish(*options, "--out", str(whole)) == 0

    process = start(*options, "--out", str(out))
    assert process.stdout is not None
    while "epoch 2/6" not in process.stdout.readline():
        assert process.poll() is None
    began = time.monotonic()
    if event == "rank 1 is killed":
        os.kill(workers(process)[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    with process:
        _, error = process.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert "Traceback" not in error, error
    if event == "rank 1 is killed":
        assert process.returncode not in (0, 143)
        assert "rank 0 of 2 cannot go on, as another one is gone" in error
    else:
        assert process.returncode == 143
    assert f"go on with: rlmix train --resume {out}" in error
    assert finish("--resume", str(out)) == 0
    assert_same_run(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rlmix", "automix"])
def test_a_run_goes_on_with_another_number_of_devices(options, method, tmp_path):
    """Not to the bit: who is whose partner, and what a batch norm sees, depends on the shares."""
    out = tmp_path / "run"
    options = [*options, "--method", method, "--epochs", "2", "--out", str(out)]
    assert finish(*options, "--devices", "2", "--time-limit", "1e-9") == 124
    assert finish("--resume", str(out), "--devices", "1", "--time-limit", "None") == 0
    assert [record["epoch"] for record in read_metrics(out)] == [1, 2]
