"""What a training is about to do, in six lines; and how long yet, once its first steps are taken."""

from typing import Any

from rlmix.config import Config
from rlmix.experiments.settings import is_policy, learns
from rlmix.experiments.task import Task
from rlmix.training.devices import precision_on
from rlmix.training.trainer import Training


def summary(options: Config, task: Task) -> list[str]:
    """The lines.

    Args:
        options: The run's, settled.
        task: Made of them.
    """
    training = task.training
    lines = {
        "data": describe_data(options, training),
        "model": describe_model(options, training),
        "training": describe_optimisation(options, training),
        "method": describe_method(options),
        "device": describe_device(training),
        "folder": str(options.folder)
        + (f", goes on after step {training.global_step}" if options.run.resume is not None else ""),
    }
    return [f"{name:<9}{text}" for name, text in lines.items()]


def describe_data(options: Config, training: Training) -> str:
    """``digits: 1442 training and 355 test images of 32x32 pixels, 3 channels, 10 classes``."""
    data = training.data
    splits = [f"{len(data.train_labels)} training"]
    splits += [f"{len(data.labels(split))} {'validation' if split == 'val' else split}" for split in data.measured]
    height, width = data.image_size
    channels = f"{data.num_channels} channel{'s' if data.num_channels > 1 else ''}"
    counted = f"{', '.join(splits[:-1])} and {splits[-1]} images"
    return f"{options.data.name}: {counted} of {height}x{width} pixels, {channels}, {data.num_classes} classes"


def describe_model(options: Config, training: Training) -> str:
    """``preactresnet18_w16: 700762 parameters``, and where its weights are from."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in training.model.parameters()]
    text = f"{training.recipe.model}: {sum(size for size, _ in sizes)} parameters"
    if training.frozen:
        return f"{text}, of {options.model.freeze_from}, not updated"
    trained = sum(size for size, trains in sizes if trains)
    text += f", {trained} of them trained" if trained < sum(size for size, _ in sizes) else ""
    return text if options.model.weights is None else f"{text}, begins with {options.model.weights}"


def describe_optimisation(options: Config, training: Training) -> str:
    """``15 epochs of 45 steps of 32 images; sgd, learning rate to 0.05, onecycle``."""
    recipe = training.recipe
    mixed = f", {training.mixed_epochs} of them mixed," if training.mixed_epochs < recipe.epochs else ""
    text = f"{recipe.epochs} epochs{mixed} of {training.steps_per_epoch} steps of {recipe.batch_size} images"
    if training.frozen:
        return text
    grouped = f", {options.optim.accumulation} batches a step of the optimizer" if options.optim.accumulation > 1 else ""
    return f"{text}{grouped}; {options.optim.optimizer}, learning rate to {recipe.learning_rate:g}, {recipe.schedule}"


def describe_method(options: Config) -> str:
    """``rlmix: ppo learns, a decision an image, reward cosine, credit pair``; seed and hyperparameters that were given."""
    method = options.run.method
    parts: list[str] = []
    if learns(method):
        agent = options.agent
        where = " on the classifier's device" if agent.agent_device == "classifier" else ""
        parts += [f"{agent.algorithm} learns{where}, a decision {'an image' if agent.granularity == 'image' else 'a batch'}"]
        parts += [f"reward {options.env.reward}, credit {options.env.credit}, observation {options.env.observation}"]
    if is_policy(method):
        parts += [f"top-k {options.run.top_k:g}"] if options.run.top_k is not None else []
        parts += [f"of {options.run.policy}"] if options.run.policy is not None else []
        parts += [f"masks of {' or '.join(map(str, options.mask_patches))} patches a side"]
    if is_policy(method) or options.map_source != "exact":
        parts += [f"{options.map_source} maps"]
    given: dict[str, Any] = dict(options.mixing.hyperparameters)
    parts += [f"{name} {value}" for name, value in given.items()]
    return f"{method}: {'; '.join([*parts, f'seed {options.run.seed}'])}"


def describe_device(training: Training) -> str:
    """``cpu, float32``, and how many processes."""
    precision = precision_on(training.device, training.config)
    processes = f", {training.ranks.size} processes" if training.ranks.size > 1 else ""
    return f"{training.device}, {precision}{processes}"
