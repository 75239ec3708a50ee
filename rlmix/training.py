"""A classifier in training: weights, optimizer, schedule, data order and every random state it uses, one step at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from rlmix import approximations, metrics
from rlmix.approximations import Moment
from rlmix.augmentation import denormalize, normalize
from rlmix.checkpoints import newest_state
from rlmix.compilation import can_compile, compile_saliency, compile_training
from rlmix.config import TrainingConfig
from rlmix.datasets import load_data
from rlmix.maps import Saliency, frozen_statistics, saliency
from rlmix.methods import METHODS, Setting
from rlmix.mixing import Mixed
from rlmix.models import build_model
from rlmix.names import check_name
from rlmix.objective import Method, Objective, score
from rlmix.seeding import derive, stream
from rlmix.sources import Augmented, Source


class Batch(NamedTuple):
    """Augmented, normalised images and their labels, on the device."""

    images: Float[Tensor, "batch channel height width"]
    labels: Int[Tensor, " batch"]


class Look(NamedTuple):
    """What :meth:`Training.look` gives."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "batch classes"]
    gradient: Float[Tensor, "batch channel height width"]
    """Of the loss with respect to the mixed images."""


@dataclass
class Tally:
    """Sums over an epoch's steps, kept on the device and read once."""

    losses: Float[Tensor, " step"]
    top1: Int[Tensor, ""]
    top5: Int[Tensor, ""]


class Training:
    """One classifier's training, from its first step to its last.

    An epoch is ``steps_per_epoch`` times :meth:`next_batch` and :meth:`step`; :meth:`fit_epoch` runs one under a method. Initial
    weights, data order, augmentation and mixing each have their own generator, so that none moves another.

    Args:
        config: What to train and how; unset fields take the data set's recipe.
        data: The data set, where it is loaded already.
        method: Name of the mix-up method that :meth:`fit_epoch` trains under, see :data:`rlmix.methods.METHODS`.

    Raises:
        ValueError: If the batch is larger than the data set, or the device is not there.
    """

    def __init__(self, config: TrainingConfig, data: Source | None = None, method: str = "vanilla") -> None:
        self.config = config = config.resolved()
        self.recipe = recipe = config.recipe
        device, self.fabric = _open_device(config)
        data = load_data(config) if data is None else data
        num_images = len(data.train_labels)
        if recipe.batch_size > num_images:
            raise ValueError(f"batch_size must be at most the {num_images} training images, got {recipe.batch_size}")
        self.data = data.to(device)
        self.steps_per_epoch = num_images // recipe.batch_size
        self.num_steps = self.steps_per_epoch * recipe.epochs

        model = build_model(recipe.model, data.num_classes, data.num_channels, config.seed, data.image_size)
        if config.freeze_from is not None:
            freeze(model, config.freeze_from)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.method = build_method(method, config, model, self.data, self.num_steps)
        parameters = list(model.parameters())
        if isinstance(self.method, nn.Module):
            self.method.to(device)
            parameters += [parameter for parameter in self.method.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(
            parameters, recipe.learning_rate, config.momentum, weight_decay=recipe.weight_decay, nesterov=True, fused=True
        )
        self.scheduler = make_schedule(optimizer, config, self.num_steps)
        self._network, self._optimizer = self.fabric.setup(model, optimizer)
        self.model = model  # the inner module: input gradients do not pass through a wrapper
        compiles = config.compile and can_compile(device)
        self._forward = compile_training(self._network) if compiles else self._network
        self._saliency_forward = compile_saliency(model) if compiles else None
        setting = approximations.Setting(num_images, data.image_size, data.num_classes, recipe.crop_padding, device)
        self._source = approximations.build_source(config.saliency_mode, setting)

        self._order_generator = stream(config.seed, "order")
        self._augmentation_generator = stream(config.seed, "augmentation")
        self.mixing_generator = stream(config.seed if config.mixing_seed is None else config.mixing_seed, "mixing")
        self.epoch = 0
        """Epochs begun."""
        self.batch = self.steps_per_epoch
        """Batches drawn in this epoch."""
        self.trained = self.steps_per_epoch
        """Steps taken in this epoch; one fewer than the batches drawn while a batch waits for its step."""
        self._order = torch.empty(0, dtype=torch.int64)
        self._batches: Iterator[Augmented] | None = None
        self.moment = Moment(self.epoch, self.batch)
        """Of the batch drawn last."""
        self._frozen_logits: dict[str, Tensor] = {}
        self._tally = self._new_tally()

    @property
    def device(self) -> torch.device:
        return self.data.train_labels.device

    @property
    def frozen(self) -> bool:
        """Whether the classifier is that of ``config.freeze_from``, which no step changes."""
        return self.config.freeze_from is not None

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def global_step(self) -> int:
        """Steps taken since the beginning."""
        return (self.epoch - 1) * self.steps_per_epoch + self.trained

    @property
    def at_epoch_end(self) -> bool:
        """Whether the epoch's last step has been taken."""
        return self.trained == self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the training budget is used up."""
        return self.at_epoch_end and self.epoch == self.recipe.epochs

    def next_batch(self) -> Batch:
        """Draw the next batch; begins the next epoch where the last one is over."""
        recipe = self.recipe
        if self.batch == self.steps_per_epoch:
            self._order = torch.randperm(len(self.data.train_labels), generator=self._order_generator)
            self.epoch, self.batch, self.trained, self._tally = self.epoch + 1, 0, 0, self._new_tally()
            self._batches = None
        if self._batches is None:
            order = self._order[self.batch * recipe.batch_size : self.steps_per_epoch * recipe.batch_size]
            order = order.reshape(-1, recipe.batch_size)
            self._batches = self.data.train_batches(order, recipe, self._augmentation_generator, self.epoch)
        pixels = next(self._batches)
        self.batch += 1
        self.moment = Moment(self.epoch, self.batch, pixels.places, pixels.draw)
        images = normalize(pixels.images, self.data.mean, self.data.std)
        if not self.config.channels_last:
            images = images.contiguous()
        return Batch(images, pixels.labels)

    def saliency(self, batch: Batch) -> Saliency:
        """Saliency of the batch drawn last, at the training's own precision, or what ``config.saliency_mode`` puts in its place."""
        with self.fabric.autocast():
            return self._source(self.saliency_pass, batch.images, batch.labels, self.moment)

    def saliency_pass(self, images: Tensor, labels: Tensor) -> Saliency:
        """The exact pass, compiled where the configuration says so."""
        return saliency(self.model, images, labels, self._saliency_forward)

    def step(self, mixed: Mixed | Objective, input_gradient: bool = False) -> Tensor | None:
        """One optimizer step on the softmax cross-entropy with soft targets, or on a method's own objective.

        Args:
            mixed: What to train on.
            input_gradient: Keep the loss's gradient with respect to the mixed images: it comes with the same backward pass.

        Returns:
            That gradient (B, C, H, W), or None.

        Raises:
            FloatingPointError: If the loss is not finite: at once on the CPU, within 100 steps elsewhere (a look costs a synchronisation).
        """
        self.trained += 1
        if self.frozen and isinstance(mixed, Mixed):
            look = self.look(mixed)
            self._record(look.loss, look.logits, mixed.targets)
            return look.gradient
        if isinstance(mixed, Mixed):
            mixed = mixed._replace(images=mixed.images.detach().requires_grad_(input_gradient))
        with self.fabric.autocast():
            # an objective may hook into stages, which a compiled network does not notice
            loss, logits = score(mixed, self._forward if isinstance(mixed, Mixed) else self._network)
        self._record(loss.detach(), logits.detach(), mixed.targets)
        self._optimizer.zero_grad()
        self.fabric.backward(loss)
        self._optimizer.step()
        if not self.finished:
            self.scheduler.step()
        return mixed.images.grad if isinstance(mixed, Mixed) else None

    def look(self, mixed: Mixed) -> "Look":
        """What a step on ``mixed`` would compute, without taking it: the loss, and its gradient with respect to the mixed images alone."""
        images = mixed.images.detach().requires_grad_()
        with self.fabric.autocast(), frozen_statistics(self.model):
            loss, logits = score(mixed._replace(images=images), self.model)
        (gradient,) = torch.autograd.grad(loss, images)
        return Look(loss.detach(), logits.detach(), gradient)

    def fit_epoch(self, method: Method | None = None) -> dict[str, float]:
        """Train one epoch under ``method``, or the training's own; gives :meth:`epoch_metrics`."""
        for _ in range(self.steps_per_epoch):
            self.fit_step(method)
        return self.epoch_metrics()

    def fit_step(self, method: Method | None = None) -> None:
        """Draw a batch, mix it, train on it.

        Raises:
            ValueError: If ``method`` has parameters of its own: those must be in the optimizer, so give its name to the constructor.
        """
        method = self.method if method is None else method
        if isinstance(method, nn.Module) and method is not self.method:
            raise ValueError(f"method must have no parameters, or be the training's own, got {type(method).__name__}")
        images, labels = self.next_batch()
        with self.fabric.autocast():
            mixed = method(self.model, images, labels, num_classes=self.data.num_classes, generator=self.mixing_generator)
        self.step(mixed)
        if hasattr(method, "after_step"):
            method.after_step(self.model)

    def skip_epoch(self) -> None:
        """Leave the rest of this epoch out; the schedule moves on as if it had been trained."""
        self.batch = self.trained = self.steps_per_epoch
        while self.scheduler.last_epoch < min(self.global_step, self.num_steps - 1):
            self.scheduler.step()

    def epoch_metrics(self) -> dict[str, float]:
        """Means over this epoch's steps so far: ``train_loss``, and ``train_top1`` and ``train_top5`` in percent.

        The accuracies are those of the training step itself, on what it trained on, against each target's largest share.
        """
        steps = max(self.trained, 1)
        images = steps * self.recipe.batch_size
        return {
            "train_loss": float(self._tally.losses[:steps].mean()),
            "train_top1": 100 * float(self._tally.top1) / images,
            "train_top5": 100 * float(self._tally.top5) / images,
        }

    def evaluate(self) -> dict[str, float]:
        """``test_loss``, ``test_top1``, ``test_top5`` on the test split, and before them the like on a validation split."""
        result: dict[str, float] = {}
        for split in self.data.measured:
            result |= metrics.accuracy(self.predict(split), self.data.labels(split), split)
        return result

    def predict(self, split: str = "test") -> Float[Tensor, "split classes"]:
        """Logits of the images of a split; a frozen classifier's are computed once."""
        if split in self._frozen_logits:
            return self._frozen_logits[split]
        with self.fabric.autocast():
            logits = metrics.predict(self.model, self.data, split)
        if self.frozen:
            self._frozen_logits[split] = logits
        return logits

    def to_pixels(self, images: Float[Tensor, "batch channel height width"]) -> UInt8[Tensor, "batch height width channel"]:
        """Normalised images as bytes again."""
        return denormalize(images, self.data.mean, self.data.std)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, as tensors and plain values; to be taken when no batch waits for its step."""
        generators = (self._order_generator, self._augmentation_generator, self.mixing_generator)
        return {
            "model": self.model.state_dict(),
            "method": self.method.state_dict() if isinstance(self.method, nn.Module) else {},
            "saliency": self._source.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generators": [generator.get_state() for generator in generators],
            "epoch": self.epoch,
            "trained": self.trained,
            "order": self._order,
            "tally": vars(self._tally),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        if isinstance(self.method, nn.Module):
            self.method.load_state_dict(state["method"])
        self._source.load_state_dict(state["saliency"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        generators = (self._order_generator, self._augmentation_generator, self.mixing_generator)
        for generator, generator_state in zip(generators, state["generators"], strict=True):
            generator.set_state(generator_state.cpu())
        self.epoch, self._order = state["epoch"], state["order"].cpu()
        self.batch = self.trained = state["trained"]
        self._batches = None
        self._tally = Tally(**{name: tensor.to(self.device) for name, tensor in state["tally"].items()})

    def _record(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        self._tally.losses[self.trained - 1] = loss
        dominant = targets.argmax(1)
        self._tally.top1 += metrics.topk_correct(logits, dominant, 1)
        self._tally.top5 += metrics.topk_correct(logits, dominant, 5)
        if self.device.type == "cpu":
            first = self.trained - 1
        elif self.trained % 100 == 0 or self.at_epoch_end:
            first = (self.trained - 1) // 100 * 100
        else:
            return
        for offset, value in enumerate(self._tally.losses[first : self.trained].tolist(), start=first):
            if not math.isfinite(value):
                step = self.global_step - self.trained + offset + 1
                raise FloatingPointError(
                    f"the loss is {value} in epoch {self.epoch}, step {step}, at learning rate {self.learning_rate:g}"
                )

    def _new_tally(self) -> Tally:
        zero = torch.zeros((), dtype=torch.int64, device=self.device)
        return Tally(torch.zeros(self.steps_per_epoch, device=self.device), zero, zero.clone())


def freeze(model: nn.Module, folder: str) -> None:
    """Give ``model`` the weights and batch-norm statistics of the run in ``folder``, for good: none of them asks for a gradient.

    Raises:
        OSError: If there is no such run, or no checkpoint in it.
        ValueError: If its classifier is another network, or has another number of classes.
    """
    try:
        model.load_state_dict(newest_state(Path(folder))["training"]["model"])
    except RuntimeError as error:
        raise ValueError(f"freeze_from must name a run of the same model and number of classes: {error}") from error
    model.requires_grad_(False)


def build_method(name: str, config: TrainingConfig, model: nn.Module, data: Source, num_steps: int) -> Method:
    """The method called ``name`` for a training; ValueError for an unknown one."""
    check_name("method", name, METHODS)
    kind, seed = config.data.partition(":")[0], derive(config.seed, "method")
    return METHODS[name](Setting(model, data.image_size, data.mean, data.std, kind, num_steps, config.alpha, seed))


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig, num_steps: int) -> LRScheduler:
    """The learning rate of each step: OneCycleLR with constant momentum, or MultiStepLR."""
    recipe = config.recipe
    if recipe.schedule == "multistep":
        return MultiStepLR(optimizer, [round(part * num_steps) for part in recipe.milestones])
    initial = recipe.learning_rate / config.div_factor
    pct_start = config.pct_start
    if pct_start * num_steps == 1:  # OneCycleLR divides by the length of a warm-up that ends with its first step
        pct_start += 1e-6
    return OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=num_steps,
        pct_start=pct_start,
        div_factor=config.div_factor,
        final_div_factor=initial / config.final_learning_rate,
        cycle_momentum=False,
    )


def _open_device(config: TrainingConfig) -> tuple[torch.device, Fabric]:
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {config.device!r}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {config.device!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device must be one that is there ({torch.cuda.device_count()} CUDA devices), got {config.device!r}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device must be one that is there (no mps), got {config.device!r}")
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    return fabric.device, fabric
