"""Whether two figures go together over runs that share seeds, methods or models."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Correlation(NamedTuple):
    """Of two figures over runs, in [-1, 1], each with its confidence interval; NaN where there is none."""

    runs: int
    linear: float
    """Pearson's."""
    linear_low: float
    linear_high: float
    rank: float
    """Spearman's."""
    rank_low: float
    rank_high: float


def correlate(
    first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Correlation:
    """The correlations of two figures, a pair a run.

    Where runs share something that moves both figures, such as a seed, ``groups`` tells which: each group's mean is removed from both, and
    a group of one run, which then says nothing, is left out. The intervals are Fisher's, on the arc tangent's scale with variance
    1 / (n - 3) for Pearson's, (1 + r^2 / 2) / (n - 3) for Spearman's (Bonett & Wright 2000); n counts the runs less one for each mean
    removed beyond the first, as for a partial correlation. They take runs for independent and figures for about normal.

    Raises:
        ValueError: If there are not as many of each.
    """
    groups = [0] * len(first) if groups is None else groups
    if not len(first) == len(second) == len(groups):
        raise ValueError(f"first, second and groups must be of one length, got {len(first)}, {len(second)}, {len(groups)}")
    kept = [row for row, group in enumerate(groups) if groups.count(group) > 1]
    labels = np.unique([list(dict.fromkeys(groups)).index(groups[row]) for row in kept], return_inverse=True)[1]
    pair = [_centred(np.array(values, float)[kept], labels) for values in (first, second)]
    size = len(kept) - max(int(labels.max(initial=0)), 0)
    if size < 3 or not all(map(np.any, pair)):
        return Correlation(len(kept), *[math.nan] * 6)
    linear, rank = (float(found.statistic) for found in (stats.pearsonr(*pair), stats.spearmanr(*pair)))
    linear_interval = _interval(linear, 1.0, size, confidence)
    return Correlation(len(kept), linear, *linear_interval, rank, *_interval(rank, 1 + rank**2 / 2, size, confidence))


def _centred(values: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Each group's mean removed, in units of the largest value; rounded, so that equal differences are tied."""
    means = np.bincount(labels, values) / np.bincount(labels)
    largest = float(np.abs(values).max(initial=0)) or 1.0
    return np.round((values - means[labels]) / largest, 12)


def _interval(value: float, variance: float, size: int, confidence: float) -> tuple[float, float]:
    if size <= 3:
        return math.nan, math.nan
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(variance / (size - 3))
    middle = math.atanh(value) if abs(value) < 1 else math.copysign(math.inf, value)
    return math.tanh(middle - half), math.tanh(middle + half)
