"""Statistics of methods compared over the same seeds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 9999
"""Bootstrap resamples: SciPy's default."""


class Summary(NamedTuple):
    """Mean, sample standard deviation, and the mean's percentile bootstrap interval, over seeds (NaN for one seed)."""

    mean: float
    std: float
    low: float
    high: float


class Difference(NamedTuple):
    """Mean of paired differences, and its confidence interval (NaN for one pair)."""

    mean: float
    low: float
    high: float


def summarize(values: Mapping[int, float], confidence: float = 0.95) -> Summary:
    """Summary of one method's figure by seed.

    The bootstrap knows no more than the seeds it is given: of 2 or 3 its 95 % interval is simply the range of the values, which holds
    the mean of a symmetric distribution with probability 1/2 or 3/4. Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13.
    """
    numbers = np.array(list(values.values()), dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Summary(mean, math.nan, math.nan, math.nan)
    generator = np.random.default_rng(0)  # the same interval for the same values
    found = stats.bootstrap(
        (numbers,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="percentile", random_state=generator
    )
    low, high = found.confidence_interval
    return Summary(mean, float(numbers.std(ddof=1)), float(low), float(high))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """How much higher ``values`` are than ``baseline``, seed by seed, with Student's t interval of the mean difference.

    Student's, because it keeps its level for two and three seeds, where a bootstrap does not (see :func:`summarize`).

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
