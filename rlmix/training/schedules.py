"""The learning rate of each step of a training."""

import torch
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from rlmix.config import TrainingConfig


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
