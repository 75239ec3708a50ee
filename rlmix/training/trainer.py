"""A classifier in training: weights, optimizer, schedule, data order and every random state it uses, one step at a time."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rlmix import evaluation
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import stream
from rlmix.config import Config
from rlmix.data.augmentation import denormalize, normalize
from rlmix.data.dataset import Dataset
from rlmix.data.registry import load_data
from rlmix.maps import approximate as approximations
from rlmix.maps.approximate import Evidence
from rlmix.maps.composition import Composition
from rlmix.maps.gradient import Saliency, saliency
from rlmix.mixing.core import Mixed, smoothed
from rlmix.mixing.objective import Method, Objective, is_guided, score
from rlmix.mixing.registry import build_method
from rlmix.mixing.vanilla import Vanilla
from rlmix.models.as_found import frozen_statistics
from rlmix.training.accumulation import Accumulation
from rlmix.training.compilation import can_compile, compile_saliency, compile_training
from rlmix.training.devices import open_device
from rlmix.training.frozen import check_data
from rlmix.training.guard import Guard, restore_where_not, spoil_unless
from rlmix.training.network import make_network
from rlmix.training.optimization import Optimization
from rlmix.training.progress import Progress, count_mixed
from rlmix.training.sampler import Order
from rlmix.training.tally import Tally


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


class Training(Progress):
    """One classifier's training, from its first step to its last.

    An epoch is ``steps_per_epoch`` times :meth:`next_batch` and :meth:`step`; :meth:`fit_epoch` runs one under a method. Initial
    weights, data order, augmentation and mixing each have their own generator, so that none moves another.

    Args:
        config: What to train and how; unset fields take the data set's recipe.
        data: The data set, where it is loaded already.
        method: Name of the mix-up method that :meth:`fit_epoch` trains under, see :data:`rlmix.mixing.registry.METHODS`.

    Raises:
        ValueError: If the batch is larger than the data set, or the device is not there.
    """

    def __init__(self, config: Config, data: Dataset | None = None, method: str = "vanilla") -> None:
        self.config = config = config.resolved()
        self.recipe = recipe = config.recipe
        device, self.fabric = open_device(config)
        self.ranks = Ranks()
        data = load_data(config) if data is None else data
        if self.frozen:
            check_data(data, config)
        num_images = len(data.train_labels)
        if recipe.batch_size > num_images:
            raise ValueError(f"batch_size must be at most the {num_images} training images, got {recipe.batch_size}")
        if recipe.batch_size % self.ranks.size:
            raise ValueError(f"batch_size must be a multiple of the {self.ranks.size} devices, got {recipe.batch_size}")
        self.share = recipe.batch_size // self.ranks.size
        """Images of a batch that are this process's; partners are drawn within."""
        self.data = data.to(device)
        mixed_epochs = recipe.epochs if self.frozen else count_mixed(config.mixing.mix_until, recipe.epochs)
        super().__init__(Order(self.data, recipe, config.run.seed, self.ranks), recipe.epochs, mixed_epochs)
        self.updates = Accumulation(1 if self.frozen else config.optim.accumulation, self.steps_per_epoch)
        self.num_updates = self.updates.per_epoch * recipe.epochs
        """Steps of the optimizer; those of the training are batches."""

        self.model, self.channels_last, self.loaded = make_network(config, data, device)
        self.method = build_method(method, config, self.model, self.data, self.num_updates)
        self._unmixed = Vanilla()
        others: list[nn.Parameter] = []
        if isinstance(self.method, nn.Module):
            self.method.to(device)
            others = [parameter for parameter in self.method.parameters() if parameter.requires_grad]
        # beside the inner module, whose input gradients do not pass through a wrapper; DDP refuses what asks for no gradient
        self._network = self.model if self.frozen else self.fabric.setup_module(self.model)
        self.optimization = Optimization(
            self.model, others, config, data.num_classes, self.updates, self.num_updates, self.fabric
        )
        compiles = config.model.compile and can_compile(device)
        self._forward = compile_training(self._network) if compiles else self._network
        self._saliency_forward = compile_saliency(self.model) if compiles else None
        self.surroundings = approximations.Surroundings(
            num_images, data.image_size, data.num_classes, recipe.crop_padding, device, self.ranks, config.run.seed
        )
        self.saliency_source = approximations.build_source(config.map_source, self.surroundings)

        self.mixing_generator = stream(
            config.run.seed if config.mixing.mixing_seed is None else config.mixing.mixing_seed, "mixing"
        )
        self._generators = (*self.order.generators, self.mixing_generator)
        self.last_step: tuple[Tensor, Tensor] = (torch.zeros(()), torch.zeros(()))
        """Loss of the step taken last, and its top-1 in percent, of this process's share, on the device."""
        self.last_logits = torch.empty(0)
        """Of what that step trained on."""
        self._frozen_logits: dict[str, Tensor] = {}
        self._guard = Guard(skip=config.optim.on_nonfinite == "skip")
        self._tally = Tally.empty(self.steps_per_epoch, self.device)

    @property
    def device(self) -> torch.device:
        return self.data.train_labels.device

    @property
    def frozen(self) -> bool:
        """Whether the classifier is that of ``config.model.freeze_from``, which no step changes."""
        return self.config.model.freeze_from is not None

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.optimization.learning_rate

    @property
    def average(self) -> AveragedModel | None:
        """Of the classifier's weights, under ``ema``."""
        return self.optimization.average

    @property
    def was_finite(self) -> Bool[Tensor, ""]:
        """Whether the last step was, on the device."""
        return self._tally.finite[self.trained - 1]

    def begin_epoch(self) -> None:
        """Draw the order of the next epoch, where the last one is over; :meth:`next_batch` does so by itself."""
        if self.order.begin_epoch():
            self.trained = 0
            self._tally = Tally.empty(self.steps_per_epoch, self.device)
            self._guard.begin()

    def next_batch(self) -> Batch:
        """Draw the next batch; begins the next epoch where the last one is over."""
        self.begin_epoch()
        pixels = self.order.next_batch()
        images = normalize(pixels.images, self.data.mean, self.data.std)
        if not self.channels_last:
            images = images.contiguous()
        return Batch(images, pixels.labels)

    def batch_generator(self) -> torch.Generator:
        """What the batch at hand is mixed by: the mixing generator, or of several ranks each its own, seeded by one draw of it."""
        if self.ranks.size == 1:
            return self.mixing_generator
        seed = int(torch.randint(2**62, (), generator=self.mixing_generator))  # every rank draws it: their generators stay alike
        return stream(seed, f"rank {self.ranks.rank}")

    def saliency(self, batch: Batch, moment: approximations.Moment | None = None) -> Saliency:
        """Saliency, at the training's own precision, or what ``config.mixing.saliency_mode`` puts in its place.

        Args:
            batch: That drawn last, or drawn at ``moment``, maybe by another training on the same images.
            moment: The training's own by default.

        Returns:
            The map (B, H, W), at least 0 and of any scale, and logits (B, N).
        """
        with self.fabric.autocast():
            return self.saliency_source(self.saliency_pass, batch.images, batch.labels, moment or self.order.moment)

    def saliency_pass(self, images: Tensor, labels: Tensor) -> Saliency:
        """The exact pass, compiled where the configuration says so."""
        return saliency(self.model, images, self.targets(labels), self._saliency_forward)

    def targets(self, labels: Int[Tensor, " batch"]) -> Shaped[Tensor, "batch *classes"]:
        """What images of these labels are trained towards: the labels, or under ``label_smoothing`` soft targets (B, N)."""
        smoothing = self.config.optim.label_smoothing
        return smoothed(labels, smoothing, self.data.num_classes) if smoothing else labels

    def step(
        self, mixed: Mixed | Objective, input_gradient: bool = False, sound: Bool[Tensor, ""] | None = None
    ) -> Tensor | None:
        """One step on the softmax cross-entropy with soft targets, or on a method's own objective.

        It is the optimizer's, or under ``accumulation`` the last of a group of batches is, with their mean gradient.

        Args:
            mixed: What to train on.
            input_gradient: Keep the loss's gradient with respect to the mixed images: it comes with the same backward pass.
            sound: Whether all that the mixture was chosen by was finite; where not, the loss is nan.

        Returns:
            That gradient (B, C, H, W), or None.

        Raises:
            FloatingPointError: If the loss or a gradient is not finite: at once on the CPU, within 100 steps elsewhere (a look costs a
                synchronisation). Such a step is not applied. With ``on_nonfinite="skip"`` it is only counted.
        """
        self.trained += 1
        if self.frozen and isinstance(mixed, Mixed):
            look = self.look(mixed)
            loss = look.loss if sound is None else spoil_unless(sound, look.loss)
            self._record(loss, loss.isfinite(), look.logits, mixed.targets)
            return look.gradient
        if isinstance(mixed, Mixed):
            mixed = mixed._replace(images=mixed.images.detach().requires_grad_(input_gradient))
        skip = self.config.optim.on_nonfinite == "skip"
        buffers = list(self.model.buffers()) if skip else []
        before = [buffer.clone() for buffer in buffers]
        with self.fabric.autocast():
            # an objective may hook into stages, which a compiled network does not notice
            loss, logits = score(mixed, self._forward if isinstance(mixed, Mixed) else self._network)
        loss = loss if sound is None else spoil_unless(sound, loss)
        self.optimization.begin(self.trained)
        self.fabric.backward(loss)
        if self.ranks.size > 1 and isinstance(self.method, nn.Module):  # DDP knows the classifier's parameters only
            for parameter in self.method.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.fabric.all_reduce(parameter.grad, reduce_op="mean")  # type: ignore[assignment]
        # of several ranks all must come to the same answer, and share nothing but the gradient
        finite = self.optimization.all_finite(loss if self.ranks.size == 1 else torch.zeros_like(loss))
        self.optimization.step(self.trained, finite)
        restore_where_not(finite, buffers, before)
        if self.average is not None and (not skip or bool(finite)):  # a step that is left out is no part of it
            self.optimization.follow(self.trained)
        self._record(loss.detach(), finite, logits.detach(), mixed.targets)
        if not self.finished:
            self.optimization.move_on(self.trained)
        return mixed.images.grad if isinstance(mixed, Mixed) else None

    def look(self, mixed: Mixed) -> Look:
        """What a step on ``mixed`` would compute, without taking it: the loss, and its gradient with respect to the mixed images alone."""
        images = mixed.images.detach().requires_grad_()
        with self.fabric.autocast(), frozen_statistics(self.model):
            loss, logits = score(mixed._replace(images=images), self.model)
        (gradient,) = torch.autograd.grad(loss, images)
        return Look(loss.detach(), logits.detach(), gradient)

    def fit_epoch(self, method: Method | None = None) -> dict[str, float]:
        """Train an epoch, or what is left of it, under ``method``, or the training's own; gives :meth:`epoch_metrics`."""
        for _ in range(self.steps_left):
            self.fit_step(method)
        return self.epoch_metrics()

    def fit_step(self, method: Method | None = None) -> None:
        """Draw a batch, mix it, train on it; by the maps of ``config.mixing.saliency_mode``, where the method takes maps.

        Raises:
            ValueError: If ``method`` has parameters of its own: those must be in the optimizer, so give its name to the constructor.
        """
        method = self.method if method is None else method
        if isinstance(method, nn.Module) and method is not self.method:
            raise ValueError(f"method must have no parameters, or be the training's own, got {type(method).__name__}")
        batch = self.next_batch()
        method = method if self.epoch <= self.mixed_epochs else self._unmixed
        mixed, made = self._mix(method, batch)
        learns = made is not None and self.saliency_source.learns
        gradient = self.step(mixed, learns)
        if made is not None and gradient is not None:
            self.saliency_source.learn(self.evidence(gradient, made), self.order.moment)
        if hasattr(method, "after_step") and self.updates.ends(self.trained):
            method.after_step(self.model)

    def _mix(self, method: Method, batch: Batch) -> tuple[Mixed | Objective, Composition | None]:
        """What to train on, and of what it is made where the method took the training's maps."""
        images, labels = batch
        with self.fabric.autocast():
            targets = self.targets(labels)
            options: dict[str, Any] = {"num_classes": self.data.num_classes, "generator": self.batch_generator()}
            if is_guided(method):
                return method.mix_by(images, targets, self.saliency(batch).map, **options)
            try:
                return method(self.model, images, targets, **options), None
            except (IndexError, RuntimeError, TypeError) as error:
                if targets is labels or type(method).__module__.startswith("rlmix."):
                    raise
                raise ValueError(
                    f"label_smoothing must be 0 with method {self.config.run.method}, which takes no soft targets (batch, classes): {error}"
                ) from error

    def evidence(self, gradient: Float[Tensor, "batch channel height width"], made: Composition) -> Evidence:
        """What the step taken last has told of the images in its mixtures.

        Args:
            gradient: As of :meth:`step`.
            made: Of what they were made.
        """
        return Evidence(gradient, self.last_logits, made, self.was_finite)

    def skip_epoch(self) -> None:
        """Leave the rest of this epoch out; the schedule moves on as if it had been trained."""
        self.order.skip_epoch()
        self.trained = self.steps_per_epoch
        self.optimization.catch_up(self.epoch, self.trained)

    def epoch_metrics(self) -> dict[str, float]:
        """Means over this epoch's steps so far: ``train_loss``, and ``train_top1`` and ``train_top5`` in percent.

        The accuracies are those of the training step itself, on what it trained on, against each target's largest share. Steps that
        were left out do not count; with ``on_nonfinite="skip"``, ``nonfinite_steps`` says how many.
        """
        metrics = self._tally.means(self.trained, self.recipe.batch_size, self.ranks)
        if self.config.optim.on_nonfinite != "skip":
            del metrics["nonfinite_steps"]
        return metrics

    def step_metrics(self, steps: int) -> dict[str, float]:
        """Of the last ``steps`` of this epoch: their mean ``loss``, and the ``learning_rate`` of the next one."""
        loss = self._tally.mean_loss(max(0, self.trained - steps), self.trained, self.ranks)
        return {"loss": loss, "learning_rate": self.learning_rate}

    def evaluate(self) -> dict[str, float]:
        """``test_loss``, ``test_top1``, ``test_top5`` on the test split, and before them the like on a validation split.

        With an average of the weights also its ``top1_ema``, and ``val_top1_ema``.
        """
        result: dict[str, float] = {}
        for split in self.data.measured:
            labels = self.data.labels(split)
            result |= evaluation.accuracy(self.predict(split), labels, split)
            if self.average is not None:
                found = evaluation.accuracy(self._predict(self.average, split), labels, split)
                result["top1_ema" if split == "test" else f"{split}_top1_ema"] = found[f"{split}_top1"]
        return result

    def predict(self, split: str = "test") -> Float[Tensor, "split classes"]:
        """Logits of the images of a split; a frozen classifier's are computed once."""
        if split in self._frozen_logits:
            return self._frozen_logits[split]
        logits = self._predict(self.model, split)
        if self.frozen:
            self._frozen_logits[split] = logits
        return logits

    def _predict(self, model: nn.Module, split: str) -> Tensor:
        with self.fabric.autocast():
            return evaluation.predict(model, self.data, split)

    def to_pixels(self, images: Float[Tensor, "batch channel height width"]) -> UInt8[Tensor, "batch height width channel"]:
        """Normalised images as bytes again."""
        return denormalize(images, self.data.mean, self.data.std)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, as tensors and plain values; to be taken when no batch waits for its step, by all ranks alike.

        Raises:
            FloatingPointError: If a step was not finite that had not been looked at yet.
        """
        self.check_finite()
        return {
            "model": self.model.state_dict(),
            "method": self.method.state_dict() if isinstance(self.method, nn.Module) else {},
            "saliency": self.saliency_source.state_dict(),
            **self.optimization.state_dict(self.trained),
            "generators": self.generator_states(),
            "epoch": self.epoch,
            "trained": self.trained,
            "order": self.order.indices,
            "tally": self._tally.state_dict(self.ranks),
        }

    def generator_states(self) -> list[Tensor]:
        """Of data order, augmentation and mixing."""
        return [generator.get_state() for generator in self._generators]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        if isinstance(self.method, nn.Module):
            self.method.load_state_dict(state["method"])
        self.saliency_source.load_state_dict(state["saliency"])
        self.optimization.load_state_dict(state)
        for generator, generator_state in zip(self._generators, state["generators"], strict=True):
            generator.set_state(generator_state.cpu())
        self.order.go_to(state["epoch"], state["trained"], state["order"])
        self.trained = state["trained"]
        self._guard.begin(self.trained)
        self._tally = Tally.load(state["tally"], self.ranks, self.device)
        self.optimization.catch_up(self.epoch, self.trained)

    def check_finite(self) -> None:
        """Raise FloatingPointError if a step since the last look was not finite, or, where such are skipped, an epoch's every one."""
        self._guard.look(self._tally, self.epoch, self.trained, self.global_step)

    def _record(self, loss: Tensor, finite: Tensor, logits: Tensor, targets: Tensor) -> None:
        correct = self._tally.add(self.trained - 1, loss, finite, logits, targets)
        self.last_logits = logits
        self.last_step = loss, 100 * correct / len(targets)
        self._guard.step(self.learning_rate)
        if self.device.type == "cpu" or self.trained % 100 == 0 or self.at_epoch_end:
            self.check_finite()
