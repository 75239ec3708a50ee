"""Correlations over runs, against SciPy's own and a partial correlation; and which runs they are over."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from rlmix.reporting.correlation import correlate
from rlmix.reporting.plots import reward_scatter
from rlmix.reporting.reward_accuracy import reward_correlations
from rlmix.reporting.tables import correlation_cells

FIRST, SECOND = np.random.default_rng(0).normal(size=(2, 9))


def test_of_one_group_it_is_scipys():
    found = correlate(FIRST.tolist(), SECOND.tolist())
    linear = stats.pearsonr(FIRST, SECOND)
    low, high = linear.confidence_interval(0.95)
    assert (found.runs, *found[1:4]) == pytest.approx((9, linear.statistic, low, high))
    ranks = np.corrcoef(FIRST.argsort().argsort(), SECOND.argsort().argsort())[0, 1]
    half = stats.norm.ppf(0.975) * math.sqrt((1 + ranks**2 / 2) / 6)
    assert found[4:] == pytest.approx((ranks, math.tanh(math.atanh(ranks) - half), math.tanh(math.atanh(ranks) + half)))


def test_of_groups_it_is_the_partial_correlation():
    """From the inverse covariance of both figures and the groups' indicators; shifting a whole group changes nothing."""
    groups = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    indicators = [[group == name for group in groups] for name in "bc"]
    precision = np.linalg.inv(np.cov(np.array([FIRST, SECOND, *indicators], float)))
    partial = -precision[0, 1] / math.sqrt(precision[0, 0] * precision[1, 1])
    half = stats.norm.ppf(0.975) / math.sqrt(9 - 2 - 3)
    found = correlate(FIRST.tolist(), SECOND.tolist(), groups)
    expected = (partial, math.tanh(math.atanh(partial) - half), math.tanh(math.atanh(partial) + half))
    assert found[1:4] == pytest.approx(expected)
    shift = np.repeat([0, 100, -70], [4, 3, 2])
    assert correlate((FIRST + shift).tolist(), (SECOND - shift).tolist(), groups)[1:] == pytest.approx(found[1:])
    alone = correlate([*FIRST, 1e6], [*SECOND, -1e6], [*groups, "d"])
    assert alone == pytest.approx(found)  # a group of one says nothing


def test_too_few_or_equal_figures_have_no_correlation():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(map(math.isnan, correlate([1, 2], [2, 1])[1:]))
        assert all(map(math.isnan, correlate([0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4])[1:]))
        assert all(map(math.isnan, correlate([1, 2, 3], [1, 2, 3], [0, 1, 2])[1:]))
        assert correlate([1, 2, 3, 4], [2, 4, 6, 8])[1:4] == pytest.approx((1, 1, 1))
        assert math.isnan(correlate([1, 2, 3], [1, 3, 2]).linear_low)
    with pytest.raises(ValueError, match="must be of one length, got 2, 1, 2"):
        correlate([1, 2], [1])


def row(pairs, model="m"):
    runs = {str(seed): {"reward_mean": reward, "top1": top1} for seed, (reward, top1) in enumerate(pairs)}
    return {"label": model, "model": model, "runs": runs}


def test_methods_may_agree_where_runs_do_not():
    """Within each method more reward goes with less accuracy, and between methods with more."""
    rows = {
        "low": row([(0.1, 13), (0.2, 12), (0.3, 11), (0.4, 10)]),
        "high": row([(10.1, 53), (10.2, 52), (10.3, 51), (10.4, 50)]),
        "unpaid": row([(None, 90)] * 4),
    }
    found = reward_correlations(rows)
    assert {name: entry["linear"] for name, entry in found["methods"].items()} == pytest.approx({"low": -1, "high": -1})
    assert (found["within_seeds"]["linear"], found["within_seeds"]["runs"]) == pytest.approx((1, 8))
    assert found["within_methods"]["rank"] == pytest.approx(-1)
    _, lines = correlation_cells({"methods": rows, "reward_top1": found})
    assert [line[:2] for line in lines[2:]] == [
        ["all methods, each seed's mean removed", "8"],
        ["all methods, each method's mean removed", "8"],
    ]
    assert lines[2][3] == "+1.00 [1.00, 1.00]"
    assert set(reward_correlations(rows, pooled=False)) == {"methods"}


def test_fewer_than_four_runs_show_nothing():
    rows = {"rmix": row([(0.1, 1), (0.2, 2), (0.3, 4)]), "vanilla": row([(None, 3)] * 3)}
    assert reward_correlations(rows) == {}
    assert correlation_cells({"methods": rows, "reward_top1": {}}) is None
    assert correlation_cells({"methods": rows}) is None  # as written by earlier versions
    curves = {"rmix": {seed: [{"reward_mean": 0.1, "test_top1": 1.0}] for seed in range(3)}}
    assert reward_scatter(curves) is None
    curves["rmix"][3] = [{"reward_mean": 0.2, "test_top1": 2.0}]
    (line,) = reward_scatter(curves).axes[0].lines
    assert line.get_xdata().tolist() == [0.1, 0.1, 0.1, 0.2]
