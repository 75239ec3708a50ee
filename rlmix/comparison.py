"""Statistics of methods compared over the same seeds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats


class Summary(NamedTuple):
    """Mean and sample standard deviation over seeds (NaN for one seed)."""

    mean: float
    std: float


class Difference(NamedTuple):
    """Mean of paired differences, and its confidence interval (NaN for one pair)."""

    mean: float
    low: float
    high: float


def summarize(values: Mapping[int, float]) -> Summary:
    """Summary of one method's figure by seed."""
    numbers = np.array(list(values.values()))
    return Summary(float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """How much higher ``values`` are than ``baseline``, seed by seed, with Student's t interval of the mean difference.

    Raises:
        ValueError: If they share no seed.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        raise ValueError(f"values and baseline must share seeds, got {sorted(values)} and {sorted(baseline)}")
    differences = np.array([values[seed] - baseline[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(differences) < 2:
        return Difference(mean, math.nan, math.nan)
    half = float(stats.sem(differences) * stats.t.ppf((1 + confidence) / 2, len(differences) - 1))
    return Difference(mean, mean - half, mean + half)
