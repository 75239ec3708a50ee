"""Rewards for mixtures that the classifier finds hard, which weak mixing does not earn. docs/rewards.md tells reasons and sources."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlmix.envs.rewards import REWARDS, Judge, Reaction
from rlmix.mixing.core import Mixed
from rlmix.models.as_found import frozen_statistics
from rlmix.training.trainer import Training


@REWARDS.register("difficulty")
def difficulty(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """How far the prediction for a mixture is from its target, KL(target, prediction): what is hard now pays.

    The cross-entropy less the target's own entropy, which a soft target has even where the prediction is perfect.

    Source: Zhang et al. 2020, "Adversarial AutoAugment" (the classifier's loss as the policy's reward).
    """
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, reduction="none")
    return loss - torch.special.entr(targets).sum(1)


@REWARDS.register("difficulty_gap", average=True)
@contextmanager
def difficulty_gap(training: Training) -> Iterator[Judge]:
    """Difficulty for the classifier less that for its moving average (--ema): hard, and yet it can be learned. A pass more.

    Source: Suzuki 2022, "TeachAugment" (the loss of the target network less the teacher's, an average of its weights).
    """
    average = training.average
    assert average is not None  # the process has checked the option

    def judge(mixed: Mixed, reaction: Reaction) -> Tensor:
        with torch.no_grad(), training.fabric.autocast(), frozen_statistics(average):
            taught = average(mixed.images)
        assert reaction.logits is not None  # a step has them
        return difficulty(reaction.logits, mixed.targets) - difficulty(taught, mixed.targets)

    yield judge
