"""The average of a classifier's weights beside the recursion written out; what is told of it, kept, and taken up again."""

import json
import signal

import pytest
import torch
from sameness import assert_same_run
from stops import stop_at
from toys import NETWORK, write_npz

import rlmix
from rlmix.experiments.saved_run import load_run
from rlmix.mixing.core import Mixed
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.board import TAGS
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Training

DECAY = 0.7


def config_of(**options):
    tiny = {"data": "digits", "train_images": 64, "batch_size": 16, "epochs": 1, "device": "cpu", "learning_rate": 0.05}
    return rlmix.Config.flat(**(tiny | {"ema": DECAY} | options))


def weights_of(model):
    """Parameters and batch norms' statistics; their counters of batches are no number that anything depends on."""
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}


def test_it_is_the_recursion_over_weights_and_statistics():
    training = Training(config_of())
    expected = None
    for _ in range(4):
        training.fit_step()
        now = weights_of(training.model)
        kept = now if expected is None else {name: DECAY * expected[name] + (1 - DECAY) * now[name] for name in now}
        expected = kept
    for name, value in weights_of(training.average.module).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)


def test_the_training_is_as_without():
    with_average, without = Training(config_of()), Training(config_of(ema=None))
    for training in (with_average, without):
        training.fit_epoch()
    for name, value in without.model.state_dict().items():
        assert torch.equal(value, with_average.model.state_dict()[name]), name
    assert "ema" not in without.state_dict()
    assert set(without.evaluate()) == set(with_average.evaluate()) - {"top1_ema"}


def test_its_accuracy_is_that_of_its_weights():
    training = Training(config_of(val_fraction=0.25))
    training.fit_epoch()
    metrics = training.evaluate()
    training.model.load_state_dict(training.average.module.state_dict())
    own = training.evaluate()
    assert metrics["top1_ema"] == own["test_top1"]
    assert metrics["val_top1_ema"] == own["val_top1"]


def test_a_step_that_is_left_out_is_no_part_of_it():
    training = Training(config_of(on_nonfinite="skip"))
    training.fit_step()
    training.fit_step()
    before = weights_of(training.average.module)
    images, labels = training.next_batch()
    training.step(Mixed(images * float("nan"), torch.nn.functional.one_hot(labels, 10).float()))
    for name, value in weights_of(training.average.module).items():
        assert torch.equal(value, before[name]), name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=80)
    recipe = ["--model", NETWORK, "--learning-rate", "0.05", "--ema", "0.5", "--metrics", "ece"]
    return ["--data", data, "--batch-size", "16", "--epochs", "2", "--device", "cpu", *recipe]


METHODS = {"vanilla": ["--method", "vanilla"], "rlmix": ["--method", "rlmix"]}


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_bit(runs, tiny, name, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            rlmix_main(["train", *tiny, *METHODS[name], "--out", str(out)])
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(runs(name), out)


def test_it_is_told_of_and_taken(runs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = runs("vanilla")
    told = [record["top1_ema"] for record in read_metrics(run)]
    assert json.loads((run / "result.json").read_text())["top1_ema"] == told[-1]
    events = EventAccumulator(str(run)).Reload()
    assert [event.value for event in events.Scalars(TAGS["top1_ema"].name)] == pytest.approx(told)
    averaged, plain = rlmix.load_model(run, device="cpu", ema=True), rlmix.load_model(run, device="cpu")
    assert any(not torch.equal(one, other) for one, other in zip(averaged.parameters(), plain.parameters(), strict=True))
    assert load_run(run, averaged=True, device="cpu").training.evaluate()["test_top1"] == told[-1]
    assert load_run(run, device="cpu").training.evaluate()["top1_ema"] == told[-1]
    figures = rlmix.evaluate(rlmix.Evaluate(source=run, ema=True, attacks=(), device="cpu", out=tmp_path))
    assert figures["top1"] == told[-1]
    assert figures["ema"]
    rlmix_main(["export", str(run), "--out", str(tmp_path)])
    written = torch.load(tmp_path / "classifier-ema.pt", weights_only=True)
    assert all(torch.equal(written[name], value) for name, value in averaged.state_dict().items())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --ema 1", "--ema must be between 0 and 1, got 1"),
        ("train --ema 0.9 --freeze-from RUN", "--ema must be left out with --freeze-from, whose classifier is not updated"),
        ("evaluate RUN --ema", "--ema must be left out with RUN, which was trained without it and keeps no average"),
        ("evaluate FILE --ema --model resnet18 --data digits", "--ema must be left out with a state_dict, which is measured"),
    ],
)
def test_what_cannot_be_is_refused(line, message, tmp_path, capsys):
    run = tmp_path / "run"
    if "RUN" in line:
        rlmix.train(config_of(ema=None, method="vanilla", train_images=16, out=run), quiet=True)
    (tmp_path / "file").touch()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(line.replace("RUN", str(run)).replace("FILE", str(tmp_path / "file")).split())
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"rlmix: error: {message.replace('RUN', str(run))}")
