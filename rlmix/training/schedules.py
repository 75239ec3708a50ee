"""The family of schedules: the learning rate of each step of a training."""

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

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
        max_lr=recipe.learning_rate,
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


def make_schedule(optimizer: torch.optim.Optimizer, config: Config, num_steps: int) -> LRScheduler:
    """The learning rate of each step, by ``config.recipe.schedule``; ValueError for an unknown one."""
    return SCHEDULES[config.recipe.schedule](optimizer, config, num_steps)
