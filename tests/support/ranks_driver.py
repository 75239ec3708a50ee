"""What one of several processes does for test_ranks.py: ``ranks_driver.py FOLDER DATA TRAIN_IMAGES``, under torchrun."""

import sys
from pathlib import Path

import torch
from torch import nn

import rlmix.models
from rlmix.config import Config
from rlmix.experiments.reading import read_options
from rlmix.experiments.task import Task
from rlmix.experiments.train import train
from rlmix.maps.store import MapStore
from rlmix.mixing.rmix import RMix
from rlmix.training.trainer import Training


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
    return Config.flat(
        data=data,
        train_images=train_images,
        batch_size=32,
        epochs=1,
        model="norm_free",
        learning_rate=0.1,
        crop_padding=2,
        device="cpu",
    )


def watch_answers(training):
    """Whether each image that the training steps on is given its label, step by step, by what the network says in the step."""
    right, step = [], training.step

    def watched(mixed, *rest):
        labels = mixed.targets.argmax(1)
        hook = training.model.register_forward_hook(lambda model, inputs, logits: right.append(logits.argmax(1) == labels))
        step(mixed, *rest)
        hook.remove()

    training.step = watched
    return right


def block_gradients(data, train_images):
    """Of AutoMix's block, after a step: this rank's own, as they were when its backward pass left them, and what the step took."""
    training = Training(config_of(data, train_images).changed(model="preactresnet18_w16", batch_size=8), method="automix")
    weights, own = [weight for weight in training.method.parameters() if weight.requires_grad], {}
    for index, weight in enumerate(weights):
        weight.register_post_accumulate_grad_hook(lambda weight, index=index: own.update({index: weight.grad.clone()}))
    training.fit_step()
    return [own[index] for index in sorted(own)], [weights[index].grad.clone() for index in sorted(own)]


def accumulated(data, train_images):
    """Weights after two steps of the optimizer with two batches each, and their average."""
    training = Training(config_of(data, train_images).changed(accumulation=2, ema=0.5))
    for _ in range(4):
        training.fit_step()
    return [[weight.detach().clone() for weight in model.parameters()] for model in (training.model, training.average)]


def exchanged(ranks):
    """Maps and logits of six images, of which each rank has put two, after they have told each other."""
    store = MapStore(6, (8, 8), 3, 0, torch.device("cpu"), ranks=ranks)
    store.put(*told(ranks.rank))
    store.exchange()
    return store.maps, store.logits


def told(rank):
    """Places, maps and logits that a rank puts."""
    draw = torch.Generator().manual_seed(rank)
    places = torch.tensor([[5, 0], [3, 1]][rank])
    return places, torch.rand(2, 8, 8, generator=draw), torch.rand(2, 3, generator=draw)


def main(folder, data, train_images):
    rlmix.models.MODELS.add("norm_free", make_norm_free, doc="Without norms.")
    found = {}
    for name in ("vanilla", "rmix"):
        training = Training(config_of(data, train_images))
        right = watch_answers(training)
        for _ in range(2):
            training.fit_step(RMix() if name == "rmix" else None)
        found[name] = [parameter.grad.clone() for parameter in training.model.parameters()]
        found[f"{name} weights"] = [parameter.detach().clone() for parameter in training.model.parameters()]
        found[f"{name} right"], found[f"{name} metrics"] = torch.cat(right), training.epoch_metrics()
    rank = training.ranks.rank
    found["maps"], found["logits"] = exchanged(training.ranks)
    found["accumulated"], found["averaged"] = accumulated(data, train_images)
    found["block own"], found["block taken"] = block_gradients(data, train_images)

    choices = []
    fit = Task.fit

    def watch(task, session):
        act = task.process.act

        def told(action):
            choices.append(action.top_k.clone())
            return act(action)

        task.process.act = told
        fit(task, session)
        if task.agent is not None:
            found["collected"] = task.agent.rollout.actions.copy().tolist()
            found["rewards"] = task.process.epoch_metrics()["reward_mean"]
        else:
            task.process.epoch_metrics()

    Task.fit = watch
    options = ["--data", data, "--train-images", str(train_images), "--batch-size", "32", "--epochs", "2", "--model", "norm_free"]
    train(read_options([*options, "--method", "rlmix", "--out", str(folder / "run")]), quiet=True)
    found["top_k"] = torch.stack(choices)
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
