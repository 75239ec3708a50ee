"""What one of several processes does for test_ranks.py: ``ranks_driver.py FOLDER DATA TRAIN_IMAGES``, under torchrun."""

import sys
from pathlib import Path

import torch
from torch import nn

import rlmix.models
from rlmix.config import TrainingConfig
from rlmix.mixing import RMix
from rlmix.scripts import session as running
from rlmix.scripts import train as command
from rlmix.training import Training


def norm_free(num_classes, in_channels):
    """A network without batch statistics, whose gradient is a mean over images."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, 2), nn.Tanh(), nn.Conv2d(8, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(num_classes)
    )


def make_norm_free(num_classes, in_channels):
    network = norm_free(num_classes, in_channels)
    network(torch.zeros(1, in_channels, 32, 32))
    return network


def config_of(data, train_images):
    return TrainingConfig(
        data=data,
        train_images=train_images,
        batch_size=32,
        epochs=1,
        model="norm_free",
        learning_rate=0.1,
        crop_padding=2,
        device="cpu",
    )


def main(folder, data, train_images):
    rlmix.models.MODELS["norm_free"] = make_norm_free
    found = {}
    for name in ("vanilla", "rmix"):
        training = Training(config_of(data, train_images))
        for _ in range(2):
            training.fit_step(RMix() if name == "rmix" else None)
        found[name] = [parameter.grad.clone() for parameter in training.model.parameters()]
        found[f"{name} weights"] = [parameter.detach().clone() for parameter in training.model.parameters()]
    rank = training.ranks.rank

    choices = []
    fit = running.Task.fit

    def watch(task, session):
        act = task.process.act

        def told(top_k):
            choices.append(top_k.clone())
            return act(top_k)

        task.process.act = told
        fit(task, session)
        if task.agent is not None:
            found["collected"] = task.agent.rollout.actions.copy().tolist()
            found["rewards"] = task.process.epoch_metrics()["reward_mean"]
        else:
            task.process.epoch_metrics()

    running.Task.fit = watch
    options = ["--data", data, "--train-images", str(train_images), "--batch-size", "32", "--epochs", "2", "--model", "norm_free"]
    command.train(command.read_options([*options, "--method", "rlmix", "--out", str(folder / "run")]), quiet=True)
    found["top_k"] = torch.stack(choices)
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
