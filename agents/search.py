"""The best that could have been chosen for a batch: every choice tried, on the same images, partners and lam."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.envs.process import MixingProcess


class Choice(NamedTuple):
    """One of the K values an image, and what the batch earns on the mean."""

    indices: Int[Tensor, " batch"]
    reward: float


def reward_table(process: MixingProcess) -> Float[Tensor, "batch values values"]:
    """What each image of the batch that waits earns by itself under every choice of its own and of its partner: ``[i, own, partner's]``.

    K^2 passes through the classifier, and nothing changes. In a pass every image's partner makes the same choice: the images see each
    other through the batch norms alone, whose statistics differ a little from those of a batch in which choices differ.

    Raises:
        ValueError: If partners are among what is chosen: then there is no table by one's own choice and one partner's.
    """
    if process.actions.apart is not None:
        raise ValueError("searched must be 0 where partners are chosen, which the choices of all decide together")
    batch_size = process.config.recipe.batch_size
    everyone = [process.actions.everyone(row, batch_size) for row in range(len(process.actions))]
    columns = [torch.stack([process.try_out(own, theirs.top_k) for theirs in everyone], 1) for own in everyone]
    return torch.stack(columns, 1)


def best_constant(process: MixingProcess) -> Choice:
    """For each image the best of the K values when everyone chooses the same: K passes.

    A ceiling in hindsight that no batch can reach, for an image and its partner have different best values. (DESIGN: best-of-K.)
    """
    batch_size = process.config.recipe.batch_size
    actions = process.actions
    rewards = torch.stack([process.try_out(actions.everyone(row, batch_size)) for row in range(len(actions))], 1)
    best, indices = rewards.max(1)
    return Choice(indices, float(best.mean()))


def best_joint(table: Float[Tensor, "batch values values"], partner: Int[Tensor, " batch"]) -> Choice:
    """The choices of all images at once with the largest mean reward: exact, for what the table says.

    An image's reward depends on its own choice and its partner's. Partners are a permutation, so the batch falls into cycles, and on a
    cycle the best choices follow by dynamic programming over ``max_a (best so far[a0, a] + table[i, a, b])`` (Bellman), once for each
    first choice a0: K^3 operations an image.
    """
    table, followers = table.cpu(), partner.tolist()
    indices = torch.full((len(table),), -1)
    for start in range(len(table)):
        if indices[start] >= 0:
            continue
        cycle = [start]
        while followers[cycle[-1]] != start:
            cycle.append(followers[cycle[-1]])
        indices[cycle] = _best_cycle(table[cycle])
    own = torch.arange(len(table))
    return Choice(indices, float(table[own, indices, indices[partner.cpu()]].mean()))


def _best_cycle(table: Float[Tensor, "length values values"]) -> Int[Tensor, " length"]:
    """Choices along one cycle, where image t's partner is image t + 1 and the last one's is the first."""
    best, came_from = table[0], []  # best[a0, b]: from the first image's choice a0 to choice b of the image that comes next
    for rewards in table[1:]:
        best, previous = (best[:, :, None] + rewards[None]).max(1)
        came_from.append(previous)
    first = int(best.diagonal().argmax())
    choices, current = [], first
    for previous in reversed(came_from):
        current = int(previous[first, current])
        choices.append(current)
    return torch.tensor([first, *reversed(choices)])
