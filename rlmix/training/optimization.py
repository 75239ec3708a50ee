"""What a training does with its gradients: sums of several batches, their length, steps of the optimizer, and what follows these."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from rlmix.config import Config
from rlmix.models.head import layer_rates
from rlmix.training.accumulation import Accumulation
from rlmix.training.average import make_average
from rlmix.training.guard import all_finite
from rlmix.training.optimizers import guarded_step, is_guarded, make_optimizer
from rlmix.training.schedules import make_schedule


class Optimization:
    """A training's optimizer, its schedule, and the average of the weights that it moves. Batches of an epoch count from 1.

    Args:
        model: The classifier, on its device.
        others: A method's own parameters.
        config: Resolved.
        num_classes: Of the classifier, which ``layer_decay`` finds its head by.
        groups: The batches that are a step each.
        num_updates: Steps of the optimizer in the whole training.
        fabric: Of the training.

    Attributes:
        average: Of the classifier's weights, where the configuration asks for one.
        optimizer: As the fabric has it.
        scheduler: Of its learning rates.
    """

    def __init__(
        self,
        model: nn.Module,
        others: Sequence[nn.Parameter],
        config: Config,
        num_classes: int,
        groups: Accumulation,
        num_updates: int,
        fabric: Fabric,
    ) -> None:
        self.groups, self._num_updates = groups, num_updates
        self._model, self._parameters = model, [*model.parameters(), *others]
        frozen, decay = config.model.freeze_from is not None, config.optim.layer_decay
        rates = layer_rates(model, num_classes, decay) if decay < 1 and not frozen else None
        optimizer = make_optimizer(model, others, config, rates)
        self.scheduler = make_schedule(optimizer, config, num_updates)
        ema = None if frozen else config.optim.ema
        self.average = None if ema is None else make_average(model, ema, next(model.parameters()).device)
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self._guarded = is_guarded(config.optim.optimizer)
        self._clip_norm = config.recipe.clip_norm

    @property
    def learning_rate(self) -> float:
        """Of the next step; under ``layer_decay`` the head's."""
        return next(float(group["lr"]) for group in self.optimizer.param_groups if group.get("scale", 1.0) == 1.0)

    def begin(self, batch: int) -> None:
        """Forget the gradients of the last group, before the first backward pass of the next one."""
        if self.groups.begins(batch):
            self.optimizer.zero_grad()

    def all_finite(self, loss: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether a loss and every gradient are finite; stays on the device."""
        return all_finite(loss, self._parameters)

    def step(self, batch: int, finite: Bool[Tensor, ""]) -> None:
        """Step by the mean gradient of the batches summed up, after the last of a group, where all of it is finite."""
        if not self.groups.ends(batch):
            return
        size = self.groups.size(batch)
        if size > 1:
            torch._foreach_div_([parameter.grad for parameter in self._parameters if parameter.grad is not None], size)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        guarded_step(self.optimizer, finite, self._guarded)

    def follow(self, batch: int) -> None:
        """Move the average, where there is one, after a step that was taken."""
        if self.average is not None and self.groups.ends(batch):
            self.average.update_parameters(self._model)

    def move_on(self, batch: int) -> None:
        """Go to the next step's learning rate."""
        if self.groups.ends(batch):
            self.scheduler.step()

    def catch_up(self, epoch: int, batch: int) -> None:
        """Go to the learning rate of the step after so many batches of an epoch, which others may have been left out before."""
        taken = (epoch - 1) * self.groups.per_epoch + self.groups.done(batch)
        target = min(taken, self._num_updates - 1)
        if self.scheduler.last_epoch == 0 < target:
            with warnings.catch_warnings():
                # a frozen classifier's optimizer has not stepped, nor one whose first step was skipped
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.scheduler.step()
        while self.scheduler.last_epoch < target:
            self.scheduler.step()

    def state_dict(self, batch: int) -> dict[str, Any]:
        """Everything that changes, after so many batches of an epoch: gradients too, where a group is open."""
        more: dict[str, Any] = {} if self.average is None else {"ema": self.average.state_dict()}
        if not self.groups.ends(batch):
            more["gradients"] = [parameter.grad for parameter in self._parameters]
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(), **more}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        own = {"milestones": self.scheduler.milestones} if isinstance(self.scheduler, MultiStepLR) else {}
        self.scheduler.load_state_dict(state["scheduler"] | own)
        if "gradients" in state:
            for parameter, gradient in zip(self._parameters, state["gradients"], strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
