"""Three ordered labels on a grid: the energy of PuzzleMix's masks, and a batched solver that runs where the tensors are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

STEP = 0.4  # dual step, relative to the weights: best of 0.1, 0.2, 0.4, 0.8, 1.6 at 8 and 16 cells a side
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


class Energy(NamedTuple):
    """``E(l) = sum_p unary[l_p, p] + sum_pq w_pq (l_p - l_q)^2 / 4`` over the cells of a grid, labels 0, 1, 2; one a batch item."""

    unary: Float[Tensor, "batch 3 rows columns"]
    """Convex in the label: ``unary[:, 0] + unary[:, 2] >= 2 * unary[:, 1]``."""
    down: Float[Tensor, "batch edges columns"]
    """``w`` between a cell and the one below, >= 0; one row fewer."""
    right: Float[Tensor, "batch rows edges"]
    """``w`` between a cell and the one to its right, >= 0; one column fewer."""


def evaluate(energy: Energy, labels: Int[Tensor, "*more batch rows columns"]) -> Float[Tensor, "*more batch"]:
    """``E`` of a labelling, or of several at once."""
    zero, one, two = energy.unary.unbind(1)
    unary = torch.where(labels == 0, zero, torch.where(labels == 1, one, two))
    label = labels.to(unary.dtype)
    down, right = label.diff(dim=-2), label.diff(dim=-1)
    cuts = (energy.down * down * down).sum((-1, -2)) + (energy.right * right * right).sum((-1, -2))
    return unary.sum((-1, -2)) + cuts / 4


def minimise(energy: Energy, iterations: int = 48) -> Int[Tensor, "batch rows columns"]:
    """Labels of least energy, all grids at once, without leaving the device.

    With unaries convex in the label this is one minimum cut (Ishikawa 2003), and its relaxation to ``l`` in [0, 2], unary and
    square both interpolated linearly between the integers, is tight: rounding a minimiser ``x`` to ``floor(x + 1 - t)`` is optimal
    for every ``t`` in (0, 1). The relaxation is solved by the primal-dual iteration of Chambolle and Pock (2011) with their
    diagonal preconditioning; of five roundings of the last iterate each grid takes its best.

    Args:
        energy: What to minimise. Its solution does not depend on the scale.
        iterations: How many. Mean gap to the optimum at 16 cells a side: 0.03 % after 24, 0.01 % after 32, 0.0002 % (random
            instances) to 0.004 % (a classifier's) after 48, the worst of 800 then 0.36 %; none at 8 cells a side and below.
    """
    # Batch last: shifted slices of the grid are then long contiguous runs.
    unary = energy.unary.float().permute(1, 2, 3, 0).contiguous()
    rows, columns, batch = unary.shape[1:]
    weight = unary.new_zeros(2, rows, columns, batch)  # zero beyond the last row and column
    weight[0, :-1] = energy.down.permute(1, 2, 0) / 4
    weight[1, :, :-1] = energy.right.permute(1, 2, 0) / 4
    degree = weight.sum(0)
    degree[1:] += weight[0, :-1]
    degree[:, 1:] += weight[1, :, :-1]
    step = 1 / (2 * STEP * degree.clamp(min=torch.finfo(torch.float32).tiny ** 0.5))
    slope = step * (unary[1] - unary[0])
    kink = 1 + step * (unary[2] - 2 * unary[1] + unary[0])

    label = torch.ones_like(slope)
    ahead = label.clone()
    difference, dual = torch.zeros_like(weight), torch.zeros_like(weight)  # dual variables in units of their weights: in [-3, 3]
    for _ in range(iterations):
        torch.sub(ahead[1:], ahead[:-1], out=difference[0, :-1])
        torch.sub(ahead[:, 1:], ahead[:, :-1], out=difference[1, :, :-1])
        dual.add_(difference, alpha=STEP)
        outer = F.softshrink(dual, 1 + STEP).clamp_(-2, 2)  # |d| has slope 1 up to a difference of 1, d^2 then 3
        dual.clamp_(-1, 1).add_(outer)
        flow = weight * dual
        force = flow[0] + flow[1]
        force[1:] -= flow[0, :-1]
        force[:, 1:] -= flow[1, :, :-1]
        moved = torch.addcmul(label - slope, step, force)
        moved = (moved - kink).clamp_(0, 1).add_(moved.clamp(0, 1))  # waits at label 1, where the unary bends
        ahead = torch.lerp(label, moved, 2.0)
        label = moved

    label = label.permute(2, 0, 1)
    candidates = torch.stack([(label + (1 - level)).floor() for level in LEVELS]).long().clamp_(0, 2)
    best = evaluate(energy, candidates).argmin(0)
    return candidates[best, torch.arange(batch, device=best.device)]
