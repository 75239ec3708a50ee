"""Statistics of methods compared over the same seeds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Summary(NamedTuple):
    """Mean, sample standard deviation, and the mean's confidence interval, over seeds (NaN for one seed)."""

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
    """Summary of one method's figure by seed, with Student's t interval of the mean.

    Student's, because it keeps its level for two or three seeds of about normal figures. A percentile bootstrap does not: of n = 2, 3, 5
    and 10 seeds its 95 % interval holds the mean in 50, 75, 84 and 90 % of the cases.
    """
    numbers = np.array(list(values.values()), dtype=float)
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
    return Summary(float(numbers.mean()), std, *_student(numbers, confidence))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """How much higher ``values`` are than ``baseline``, seed by seed, with Student's t interval of the mean difference.

    Raises:
        ValueError: If they share no seed.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        raise ValueError(f"values and baseline must share seeds, got {sorted(values)} and {sorted(baseline)}")
    differences = np.array([values[seed] - baseline[seed] for seed in seeds])
    return Difference(float(differences.mean()), *_student(differences, confidence))


def _student(numbers: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The interval of the mean of independent, about normal numbers (Student 1908, "The Probable Error of a Mean")."""
    if len(numbers) < 2:
        return math.nan, math.nan
    half = float(stats.sem(numbers) * stats.t.ppf((1 + confidence) / 2, len(numbers) - 1))
    return float(numbers.mean()) - half, float(numbers.mean()) + half
