"""What compare says first, against scipy's paired t-test."""

import re

import numpy as np
import pytest
from scipy import stats

from rlmix.reporting.verdict import verdicts


def report(baseline="b", **top1):
    """What compare.json holds of methods with these figures, a seed each."""
    rows = {}
    for name, values in top1.items():
        runs = {str(seed): {"top1": value} for seed, value in enumerate(values)}
        rows[name] = {"label": name, "model": "net", "baseline": baseline, "runs": runs, "top1": {"mean": float(np.mean(values))}}
    return {"methods": rows}


def test_a_difference_beyond_noise_is_told_with_its_interval():
    first, second = [81.0, 80.0, 82.5], [79.0, 78.5, 80.0]
    (said,) = verdicts(report(a=first, b=second))
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert low > 0
    assert said.text == (
        f"a is better than b by 2.00 points of test top-1, which is beyond noise (95 % interval {low:+.2f} to {high:+.2f}, 3 seeds)."
    )
    assert said.more == ""


def test_a_difference_within_noise_makes_no_method_better():
    first, second = [81.0, 78.0, 82.5], [79.0, 79.5, 80.0]
    low, _ = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert low < 0
    (said,) = verdicts(report(a=first, b=second))
    assert said.text.startswith("No method is shown to be better: a is 1.00 points of test top-1 above b, which is within noise")


def test_the_baseline_ahead_is_set_against_the_next_one():
    (said,) = verdicts(report(a=[70.0, 71.0, 72.0], b=[80.0, 81.5, 82.0], c=[60.0, 61.0, 62.5]))
    assert said.text.startswith("b is better than a by ")
    assert said.more.startswith("b is beyond noise above c. Each interval is of one pair")


def test_one_seed_tells_nothing():
    (said,) = verdicts(report(a=[90.0], b=[50.0]))
    assert said.text == "One seed tells nothing about which method is better."
    assert "a is 40.00 points of test top-1 above b" in said.more


@pytest.mark.parametrize(
    ("top1", "text"),
    [
        ({"b": [70.0, 72.0]}, r"Only b was trained, .*: test top-1 71.00 % over 2 seeds\."),
        ({"a": [70.0, 72.0], "b": [72.0, 70.0]}, "No difference: a and b have the same mean"),
        ({"a": [71.0, 73.0], "b": [70.0, 72.0]}, "a is 1.00 points .* under each of 2 seeds: without spread"),
    ],
)
def test_what_cannot_be_told_is_said(top1, text):
    (said,) = verdicts(report(**top1))
    assert re.match(text, said.text)


def test_each_model_has_its_own_verdict():
    found = report(a=[81.0, 80.0, 82.5], b=[79.0, 78.5, 80.0])
    other = report(a=[50.0, 51.0], b=[60.0, 61.5])
    rows = found["methods"] | {
        f"wide-{name}": row | {"model": "wide", "baseline": "wide-b"} for name, row in other["methods"].items()
    }
    first, second = verdicts({"methods": rows})
    assert first.text.startswith("net: a is better than b")
    assert second.text.startswith("wide: b is better than a")
