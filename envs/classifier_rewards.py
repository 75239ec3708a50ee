"""Rewards that ask the classifier: gradients against those of a clean held-out batch, and what a step does to its loss."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlmix.common.seeding import stream
from rlmix.data.augmentation import normalize
from rlmix.envs.rewards import REWARDS, Judge, Reaction
from rlmix.mixing.core import Mixed
from rlmix.models.as_found import frozen_statistics
from rlmix.training.trainer import Batch, Training


@REWARDS.register("last_layer")
def last_layer(training: Training) -> AbstractContextManager[Judge]:
    """Cosine of each mixed image's own gradient of the last layer with a clean held-out batch's: Deep AutoAugment's, image by image.

    Source: Zheng et al. 2022, "Deep AutoAugment" (all parameters, a batch at a time). The last layer's gradient for one image is the
    outer product of its residual and its features, so nothing is differentiated. The held-out batch is one of training images, whose
    gradient is near nothing once they are fitted: see ``validation_last_layer``.
    """
    return _last_layer(training, held_out_batch(training))


@REWARDS.register("validation_last_layer", validation=True)
def validation_last_layer(training: Training) -> AbstractContextManager[Judge]:
    """The same against a clean batch of the validation split, on which nothing is trained: what helps there pays."""
    return _last_layer(training, validation_batch(training))


@contextmanager
def _last_layer(training: Training, held_out: Batch) -> Iterator[Judge]:
    images, labels = held_out
    with last_linear(training.model) as seen:
        with torch.no_grad(), training.fabric.autocast(), frozen_statistics(training.model):
            training.model(images)
        features, logits = seen[-1]
        wanted = residuals(logits, F.one_hot(labels, logits.shape[1]).float()).T @ with_bias(features)
        yield lambda mixed, reaction: last_layer_alignment(with_bias(seen[-1][0]), residuals(seen[-1][1], mixed.targets), wanted)


@REWARDS.register("parameters", updating=True)
@contextmanager
def parameters(training: Training) -> Iterator[Judge]:
    """Cosine of the step's gradient of all parameters with a clean held-out batch's, given to every image: Deep AutoAugment as it is."""
    weights = [weight for weight in training.model.parameters() if weight.requires_grad]
    wanted = flatten(torch.autograd.grad(held_out_loss(training, held_out_batch(training)), weights))

    def judge(mixed: Mixed, reaction: Reaction) -> Tensor:
        taken = flatten([torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights])
        return F.cosine_similarity(wanted, taken, dim=0).expand(len(mixed.targets))

    yield judge


@REWARDS.register("held_out_loss", updating=True)
def loss_decrease(training: Training) -> AbstractContextManager[Judge]:
    """By how much the step lowers the loss on a clean held-out batch, given to every image: what mixing is for, one step ahead.

    Source: Graves et al. 2017, "Automated Curriculum Learning for Neural Networks" (its prediction gain, on other data than the step's).
    """
    return _loss_decrease(training, held_out_batch(training))


@REWARDS.register("validation_loss", updating=True, validation=True)
def validation_loss(training: Training) -> AbstractContextManager[Judge]:
    """By how much the step lowers the loss on a clean batch of the validation split, given to every image."""
    return _loss_decrease(training, validation_batch(training))


@contextmanager
def _loss_decrease(training: Training, batch: Batch) -> Iterator[Judge]:
    with torch.no_grad():
        before = held_out_loss(training, batch)

    def judge(mixed: Mixed, reaction: Reaction) -> Tensor:
        with torch.no_grad():
            return (before - held_out_loss(training, batch)).expand(len(mixed.targets))

    yield judge


def last_layer_alignment(
    features: Float[Tensor, "batch features"],
    residual: Float[Tensor, "batch classes"],
    wanted: Float[Tensor, "classes features"],
) -> Float[Tensor, " batch"]:
    """Cosine of each outer product ``residual features^T`` with ``wanted``: ``r^T W f / (|r| |f| |W|)``, in [-1, 1]."""
    inner = (residual @ wanted * features).sum(1)
    return inner / (residual.norm(dim=1) * features.norm(dim=1) * wanted.norm()).clamp(min=1e-12)


def residuals(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """The softmax cross-entropy's gradient with respect to the logits, ``softmax - target``."""
    return logits.float().softmax(1) - targets


def with_bias(features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features+1"]:
    """A one behind the features: the bias is the weight of a constant."""
    return F.pad(features.float(), (0, 1), value=1.0)


def flatten(gradients: Sequence[Tensor]) -> Float[Tensor, " parameters"]:
    """All of them in one row, float32."""
    return torch.cat([gradient.flatten().float() for gradient in gradients])


def held_out_batch(training: Training) -> Batch:
    """As many clean training images as a batch has, drawn by a generator of the step's own; never from the test split.

    They are not augmented where the data set is in memory; those of a folder are cropped, as training takes them.
    """
    generator = stream(training.config.run.seed, f"held out {training.global_step}")
    index = torch.randint(len(training.data.train_labels), (1, training.recipe.batch_size), generator=generator)
    plain = replace(training.recipe, flip=False, crop_padding=0)
    (batch,) = training.data.train_batches(index, plain, generator, training.epoch, training.ranks)
    return Batch(normalize(batch.images, training.data.mean, training.data.std), batch.labels)


def validation_batch(training: Training) -> Batch:
    """As many images of the validation split as a batch has, drawn by a generator of the step's own, as they are measured."""
    generator = stream(training.config.run.seed, f"validation {training.global_step}")
    size = training.recipe.batch_size
    index = torch.randint(len(training.data.labels("val")), (size,), generator=generator)
    pixels = training.data.take("val", index)
    return Batch(normalize(pixels.images, training.data.mean, training.data.std), pixels.labels)


def held_out_loss(training: Training, batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy of a clean batch, in the mode the classifier is in; its batch norms do not record it."""
    with training.fabric.autocast(), frozen_statistics(training.model):
        logits = training.model(batch.images)
    return F.cross_entropy(logits.float(), batch.labels)


@contextmanager
def last_linear(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inside, every pass appends the features that enter the model's last linear layer and the logits that leave it, detached.

    Raises:
        ValueError: If the model has no linear layer.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"reward last_layer must be used with a model that ends in a linear layer, got {type(model).__name__}")
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layers[-1].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].detach(), output.detach())))
    try:
        yield seen
    finally:
        handle.remove()
