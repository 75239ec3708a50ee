"""The first run on data of one's own: the recipe that such data get survives short trainings of few images."""

import math

import pytest
import torch
from toys import photographs, toy_config

from rlmix.config import Config
from rlmix.data.memory import image_data
from rlmix.envs.process import MixingProcess
from rlmix.experiments.settings import is_policy, method_names
from rlmix.scripts import train as command
from rlmix.training.trainer import Training

NETWORKS = ("preactresnet18_w16", "preactresnet18", "resnext29_4x24", "wideresnet16_8", "wideresnet28_10")
METHODS = [name for name in method_names() if name not in ("constant", "policy")]
FAST = ("rlmix", "cutmix")
CHANCE = math.log(4)
"""Loss of a guess."""


def train(model, *, size=16, count=200, batch_size=20, **options):
    data = image_data(*photographs(count, size, 0), *photographs(80, size, 1))
    options = {"model": model, "batch_size": batch_size, "epochs": 3, "device": "cpu"} | options
    return Training(Config.flat(data="npz:photographs", **options), data)


def losses(training):
    return [training.fit_epoch()["train_loss"] for _ in range(training.recipe.epochs)]


@pytest.mark.parametrize(("size", "count", "epochs"), [(16, 200, 3), (8, 200, 2), (16, 100, 1)])
def test_the_default_recipe_survives_where_the_papers_rate_does_not(size, count, epochs):
    training = train("preactresnet18_w16", size=size, count=count, epochs=epochs)
    assert max(losses(training)) < 1.3 * CHANCE
    assert training.evaluate()["test_loss"] < 1.3 * CHANCE
    diverging = train("preactresnet18_w16", learning_rate=0.3, clip_norm=0.0)
    with pytest.raises(FloatingPointError):
        losses(diverging)


def test_a_network_that_no_rate_alone_saves():
    """ResNeXt: at 0.05 without a bound its loss is a hundredfold within twenty steps."""
    training = train("resnext29_4x24", size=8, batch_size=10, count=100, epochs=1)
    assert max(losses(training)) < 1.5 * CHANCE
    assert training.evaluate()["test_loss"] < 1.5 * CHANCE


def test_gradients_are_shortened_to_the_norm_and_no_further(tmp_path):
    """One step of plain SGD from the same weights: Nesterov's first is 1 + momentum times the gradient."""
    config = toy_config(tmp_path, 8, clip_norm=0.0, weight_decay=0.0, schedule="multistep", learning_rate=0.1)

    def moved(clip_norm):
        training = Training(config.changed(clip_norm=clip_norm))
        before = torch.cat([value.detach().flatten().clone() for value in training.model.parameters()])
        training.fit_step()
        return torch.cat([value.detach().flatten() for value in training.model.parameters()]) - before

    plain = moved(0.0)
    norm = float(plain.norm()) / (0.1 * 1.9)  # of the gradient
    torch.testing.assert_close(moved(norm / 4), plain / 4, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved(norm * 4), plain)


def test_a_run_from_before_there_was_a_bound_goes_on_without(tmp_path):
    config = toy_config(tmp_path, 8)
    options = [
        "--data",
        config.data.name,
        "--model",
        "preactresnet18_w16",
        "--batch-size",
        "16",
        "--epochs",
        "2",
        "--device",
        "cpu",
    ]
    options += ["--method", "vanilla", "--clip-norm", "0"]
    command.main([*options, "--out", str(tmp_path / "run")])
    command.main([*options, "--out", str(tmp_path / "old")])
    path = tmp_path / "old" / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("clip_norm")))
    newest = tmp_path / "old" / "checkpoints" / "epoch-0002.pt"
    newest.unlink()
    command.main(["--resume", str(tmp_path / "old")])
    first, second = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "old"))
    assert [line.partition("epoch_seconds")[0] for line in first] == [line.partition("epoch_seconds")[0] for line in second]


@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in METHODS])
def test_every_method_survives_its_first_run(method):
    config = Config.flat(
        data="npz:photographs",
        model="preactresnet18_w16",
        method=method,
        batch_size=20,
        epochs=3,
        num_patches=(2, 4),
        device="cpu",
    ).resolved()
    data = image_data(*photographs(200, 32, 0), *photographs(80, 32, 1))
    if is_policy(method):
        process = MixingProcess(config, data)
        training = process.reset()
        while not training.finished:
            process.run_epoch(lambda decision: torch.rand(len(decision.patches)))
    else:
        training = Training(config, data, method)
        losses(training)
    assert training.evaluate()["test_loss"] < 1.3 * CHANCE


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3, 10])
@pytest.mark.parametrize("batch_size", [10, 100])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_survives_its_first_run(model, batch_size, epochs):
    training = train(model, size=8, batch_size=batch_size, epochs=epochs)
    assert all(loss < 2 * CHANCE for loss in losses(training))
    assert training.evaluate()["test_loss"] < 2 * CHANCE
