"""Policies beside each other on common random numbers: every one chooses for the same images, partners and lam."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlmix.agents.policies import Policy
from rlmix.agents.search import Choice, best_constant, best_joint, reward_table
from rlmix.envs.process import Decision, MixingProcess
from rlmix.reporting.statistics import Difference, paired_difference

Rewards = NDArray[np.float64]
"""A policy's mean reward, batch by batch, before credit is shared; NaN for a batch it was not tried on."""
CEILINGS = ("best constant", "best joint")
"""The best value for each image where everyone has the same, in hindsight; and the best choices of all at once."""


def try_policies(
    process: MixingProcess,
    policies: Mapping[str, Policy],
    num_batches: int,
    num_searched: int = 0,
    on_batch: Callable[[Decision], None] = lambda decision: None,
    on_search: Callable[[Decision, Tensor, Choice], None] = lambda decision, table, best: None,
) -> dict[str, Rewards]:
    """Mean rewards of policies, and of the ceilings, on the same batches of a frozen classifier, whose draws no action moves.

    Args:
        process: Just reset.
        policies: By name.
        num_batches: Batches that all of them choose for.
        num_searched: Batches, the first ones, for which the ceilings are searched as well, at K + K^2 passes each.
        on_batch: Called with each batch.
        on_search: Called with each batch that is searched, its table of rewards and the best joint choice.

    Raises:
        ValueError: If the classifier is not frozen: then the first policy's choices would move it for all.
    """
    training = process.require_training()
    if not training.frozen:
        raise ValueError("policies must be tried on a frozen classifier (freeze_from), got one that trains")
    rewards = {name: np.full(num_batches, np.nan) for name in (*policies, *(CEILINGS if num_searched else ()))}
    for batch in range(num_batches):
        if training.mixing_finished:
            training = process.reset()
        decision = process.observe()
        choices = {name: policy(decision) for name, policy in policies.items()}
        for name, action in choices.items():
            rewards[name][batch] = float(process.try_out(action).mean())
        if batch < num_searched:
            table = reward_table(process)
            joint = best_joint(table, decision.pairing.partner)
            on_search(decision, table, joint)
            rewards["best constant"][batch] = best_constant(process).reward
            rewards["best joint"][batch] = float(
                process.try_out(process.actions[joint.indices]).mean()
            )  # not only what the table says
        process.act(next(iter(choices.values())))
        on_batch(decision)
    return rewards


def difference(rewards: Rewards, baseline: Rewards, confidence: float = 0.95) -> Difference:
    """How much higher rewards are, batch by batch, with Student's interval of the mean, over the batches that both were tried on."""
    first, second = (dict(enumerate(values.tolist())) for values in (rewards, baseline))
    both = np.flatnonzero(np.isfinite(rewards) & np.isfinite(baseline)).tolist()
    return paired_difference({batch: first[batch] for batch in both}, {batch: second[batch] for batch in both}, confidence)


def closed_share(rewards: Rewards, baseline: Rewards, ceiling: Rewards) -> float:
    """Part of the way from ``baseline`` to ``ceiling`` that a policy goes, over the batches that the ceiling was searched on."""
    searched = np.isfinite(ceiling)
    return float((rewards - baseline)[searched].mean() / (ceiling - baseline)[searched].mean())
