"""The family of schedules: the learning rate of each step of a training."""

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR

from rlmix.common.registry import Registry
from rlmix.config import Config

SCHEDULES: Registry[Callable[[torch.optim.Optimizer, Config, int], LRScheduler]] = Registry("schedule")
"""Traits: ``anytime``, for those whose past does not depend on how long the training will be, given that no milestone has moved."""


@SCHEDULES.register("onecycle", reads=("div_factor", "pct_start", "final_learning_rate"))
def onecycle(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """A warm-up, then cosine annealing; the momentum is constant."""
    recipe, optim = config.recipe, config.optim
    initial = recipe.learning_rate / optim.div_factor
    pct_start = optim.pct_start
    if pct_start * num_steps == 1:  # OneCycleLR divides by the length of a warm-up that ends with its first step
        pct_start += 1e-6
    return OneCycleLR(
        optimizer,
        max_lr=[recipe.learning_rate * group.get("scale", 1.0) for group in optimizer.param_groups],
        total_steps=num_steps,
        pct_start=pct_start,
        div_factor=optim.div_factor,
        final_div_factor=initial / optim.final_learning_rate,
        cycle_momentum=False,
    )


@SCHEDULES.register("multistep", reads=("milestones",), anytime=True)
def multistep(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """A tenth of the rate at each milestone."""
    return MultiStepLR(optimizer, [round(part * num_steps) for part in config.recipe.milestones])


@SCHEDULES.register("cosine", reads=("warmup", "final_learning_rate"))
def cosine(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """A linear warm-up, then half a cosine down to final_learning_rate."""
    lowest, length = config.optim.final_learning_rate / config.recipe.learning_rate, warmup_steps(config, num_steps)

    def factor(step: int) -> float:
        if step < length:
            return (step + 1) / (length + 1)
        part = (step - length) / max(1, num_steps - 1 - length)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(part, 1.0))) / 2

    return LambdaLR(optimizer, factor)


@SCHEDULES.register("constant", reads=("warmup",))
def constant(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """One rate, after a linear warm-up."""
    length = warmup_steps(config, num_steps)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (length + 1)))


def warmup_steps(config: Config, num_steps: int) -> int:
    """Steps of the warm-up, all of them below the highest rate."""
    return round(config.optim.warmup * num_steps)


def make_schedule(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """The learning rate of each step, by ``config.recipe.schedule``.

    Raises:
        ValueError: If there is no such schedule, or what ``module:function`` names gives none.
    """
    name = config.recipe.schedule
    made: object = SCHEDULES[name](optimizer, config, num_steps)
    if not isinstance(made, LRScheduler):
        raise ValueError(f"schedule {name} must give a torch LRScheduler, got {type(made).__name__}")
    return made
