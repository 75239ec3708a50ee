"""Steps with the mean gradient of several batches beside torch's own, larger batches, and runs that are stopped between."""

import signal
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from sameness import assert_same_run
from stops import stop_at
from toys import NETWORK, write_npz

import rlmix
from rlmix.envs.process import MixingProcess
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.accumulation import Accumulation
from rlmix.training.trainer import Training


def config_of(**options):
    """Five batches an epoch, of a network without batch norms, for which a batch is the sum of its parts."""
    tiny = {"data": "digits", "train_images": 80, "batch_size": 16, "epochs": 2, "device": "cpu", "learning_rate": 0.05}
    return rlmix.Config.flat(**(tiny | {"accumulation": 2, "model": "toy_package:network", "crop_padding": 0} | options))


def test_the_groups_of_an_epoch():
    groups = Accumulation(count=3, batches=8)
    batches = range(1, 9)
    assert [groups.begins(batch) for batch in batches] == [True, False, False, True, False, False, True, False]
    assert [groups.ends(batch) for batch in batches] == [False, False, True, False, False, True, False, True]
    assert [groups.size(batch) for batch in batches] == [3, 3, 3, 3, 3, 3, 2, 2]
    assert [groups.done(batch) for batch in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert groups.per_epoch == 3
    assert Accumulation(count=4, batches=8).per_epoch == 2
    assert Accumulation(count=9, batches=8).per_epoch == 1


@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_a_step_is_torchs_with_the_mean_gradient(clip_norm):
    training = Training(config_of(schedule="constant", warmup=0.0, clip_norm=clip_norm, weight_decay=0.01))
    other = deepcopy(training.model)
    optimizer = torch.optim.SGD(other.parameters(), 0.05, 0.9, weight_decay=0.01, nesterov=True)
    for size in (2, 2, 1):  # five batches
        before = deepcopy(training.model.state_dict())
        gradients = [torch.zeros_like(parameter) for parameter in other.parameters()]
        for index in range(size):
            batch = training.next_batch()
            found = torch.autograd.grad(F.cross_entropy(other(batch.images), batch.labels), list(other.parameters()))
            gradients = [total + one / size for total, one in zip(gradients, found, strict=True)]
            if index < size - 1:
                assert all(torch.equal(before[name], value) for name, value in training.model.state_dict().items())
            training.step(vanilla(batch))
        length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        scale = min(1.0, clip_norm / (float(length) + 1e-6)) if clip_norm else 1.0
        for parameter, gradient in zip(other.parameters(), gradients, strict=True):
            parameter.grad = gradient * scale
        optimizer.step()
        for mine, theirs in zip(training.model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def vanilla(batch):
    return rlmix.Mixed(batch.images, F.one_hot(batch.labels, 10).float())


def test_it_is_the_training_with_larger_batches():
    """The schedule too: it counts steps of the optimizer."""
    small = Training(config_of(train_images=128, batch_size=16, accumulation=2))
    large = Training(config_of(train_images=128, batch_size=32, accumulation=1))
    for training in (small, large):
        training.fit_epoch()
        training.fit_epoch()
    assert small.num_updates == large.num_steps == 8
    assert small.learning_rate == large.learning_rate
    for mine, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_average_and_automix_move_with_the_optimizers_steps():
    training = Training(config_of(method="automix", model="preactresnet18_w16", ema=0.5), method="automix")
    training.fit_epoch()
    assert int(training.average.n_averaged) == training.method.steps == 3
    assert training.method.num_steps == training.num_updates == 6


def test_the_environments_steps_are_of_the_mean_gradient():
    process = MixingProcess(
        config_of(method="rmix", schedule="constant", warmup=0.0, momentum=0.5, weight_decay=0.0, clip_norm=0.0)
    )
    training = process.reset()
    before = deepcopy(training.model)
    rewards, gradients = [], []
    for _ in range(2):
        assert all(torch.equal(*pair) for pair in zip(before.parameters(), training.model.parameters(), strict=True))
        rewards.append(process.act(torch.full((16,), 0.33)))
        mixed = process.outcome.mixed
        loss = F.cross_entropy(before(mixed.images), mixed.targets)
        gradients.append(torch.autograd.grad(loss, list(before.parameters())))
    for start, now, one, two in zip(before.parameters(), training.model.parameters(), *gradients, strict=True):
        # Nesterov's first step is (1 + momentum) of the gradient
        torch.testing.assert_close(now, start - 0.05 * 1.5 * (one + two) / 2, rtol=1e-4, atol=1e-6)
    plain = MixingProcess(config_of(method="rmix", accumulation=1))
    plain.reset()
    torch.testing.assert_close(plain.act(torch.full((16,), 0.33)), rewards[0])  # the input gradient is the batch's own


def test_an_epoch_that_is_given_up_leaves_no_gradient():
    training = Training(config_of(accumulation=3))
    for _ in range(4):  # a group, and the first batch of the next
        training.fit_step()
    training.skip_epoch()
    whole = Training(config_of(accumulation=3))
    whole.fit_epoch()
    assert training.learning_rate == whole.learning_rate
    batch = training.next_batch()
    training.step(vanilla(batch))
    expected = torch.autograd.grad(F.cross_entropy(training.model(batch.images), batch.labels), list(training.model.parameters()))
    for parameter, gradient in zip(training.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


METHODS = {name: ["--method", name] for name in ("vanilla", "automix", "rlmix")}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=80)
    recipe = ["--model", NETWORK, "--learning-rate", "0.05", "--accumulation", "3"]
    return ["--data", data, "--batch-size", "16", "--epochs", "2", "--device", "cpu", *recipe]


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_within_a_group_goes_on_to_the_bit(runs, tiny, name, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)  # two of three batches
        with pytest.raises(SystemExit, match="143"):
            rlmix_main(["train", *tiny, *METHODS[name], "--out", str(out)])
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs(name), out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--accumulation 0", "--accumulation must be at least 1, got 0"),
        ("--accumulation 2 --on-nonfinite skip", "accumulation must be 1 with on_nonfinite skip, for no batch can be taken out"),
        ("--accumulation 2 --reward held_out_loss", "accumulation must be 1 with reward held_out_loss, which looks at what each"),
        ("--accumulation 2 --reward parameters --method rmix", "accumulation must be 1 with reward parameters, which looks at"),
    ],
)
def test_what_cannot_be_is_refused(line, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", "digits", *line.split(), "--out", str(tmp_path / "run")])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.removeprefix("rlmix: error: ").removeprefix("--").startswith(message.removeprefix("--"))
    assert not (tmp_path / "run").exists()
