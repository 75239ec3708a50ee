"""rlmix compare: statistics against SciPy's own, what is written, and what is not trained twice."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from toys import write_npz

from rlmix.comparison import paired_difference, summarize
from rlmix.runs import read_metrics
from rlmix.scripts import compare as command
from rlmix.scripts.main import main as rlmix_main

numbers = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(numbers)
def test_paired_difference_is_that_of_scipys_paired_t_test(pairs):
    first, second = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    ours = paired_difference(first, second)
    assert ours.mean == pytest.approx(np.mean([a - b for a, b in pairs]), abs=1e-9)
    if np.std([a - b for a, b in pairs]) > 1e-3:  # else SciPy warns of cancellation
        low, high = stats.ttest_rel(list(first.values()), list(second.values())).confidence_interval(0.95)
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_summary_and_difference_of_literal_values():
    assert summarize({0: 1.0, 1: 3.0}) == (2.0, math.sqrt(2))
    assert paired_difference({0: 5.0, 1: 9.0}, {1: 1.0, 2: 7.0})[0] == 8.0  # seed 1 alone is shared
    assert math.isnan(paired_difference({0: 5.0}, {0: 4.0}).low)
    with pytest.raises(ValueError, match="must share seeds"):
        paired_difference({0: 1.0}, {1: 1.0})


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """A comparison of two epochs of four steps on toy data."""
    folder = tmp_path_factory.mktemp("compare")
    data = ["--data", write_npz(folder, 16), "--model", "preactresnet18_w16", "--learning-rate", "0.05", "--device", "cpu"]
    small = ["--batch-size", "16", "--epochs", "2"]
    return [*data, *small, "--methods", "rlmix", "rmix", "vanilla", "--seeds", "0", "1", "--out", str(folder / "out")]


@pytest.fixture(scope="module")
def folder(options):
    command.main(options)
    return command.parse(command.Compare, "compare", options).out


def test_the_table_is_that_of_the_runs(folder):
    report = json.loads((folder / "compare.json").read_text())
    assert list(report["methods"]) == ["rlmix", "rmix", "vanilla", "rmix-p8"]  # with the control
    results = {
        (method, seed): json.loads((folder / "runs" / f"{method}-s{seed}" / "result.json").read_text())
        for method in report["methods"]
        for seed in (0, 1)
    }
    for method, row in report["methods"].items():
        top1 = [results[method, seed]["top1"] for seed in (0, 1)]
        assert row["top1"]["mean"] == pytest.approx(np.mean(top1))
        assert row["top1"]["std"] == pytest.approx(np.std(top1, ddof=1))
        if method != "rmix":
            base = [results["rmix", seed]["top1"] for seed in (0, 1)]
            assert row["top1"]["difference"]["mean"] == pytest.approx(np.mean(top1) - np.mean(base))
        assert row["step_ratio"] > 0
    assert report["methods"]["vanilla"]["step_ratio"] == 1
    assert "reward_mean" not in report["methods"]["vanilla"]
    with open(folder / "compare.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 8
    for line in lines:
        assert float(line["top1"]) == results[line["method"], int(line["seed"])]["top1"]
    text = (folder / "report.md").read_text()
    assert all(f"| {method} |" in text for method in report["methods"])
    for name in ("learning_curves", "reward", "top_k", "train_loss"):
        assert f"plots/{name}.png" in text
        assert min(Image.open(folder / "plots" / f"{name}.png").size) > 200


def test_who_decides_is_the_only_difference_from_the_control(folder):
    """The first step of rlmix and rmix-p8 sees the same batch, partners and lam: only later do they part."""
    configs = [(folder / "runs" / f"{method}-s0" / "config.yaml").read_text().splitlines() for method in ("rlmix", "rmix-p8")]
    assert [a for a, b in zip(*configs, strict=True) if a != b] == ["method: rlmix"]


def test_a_finished_comparison_is_not_trained_again_and_a_half_finished_one_goes_on(folder, options, monkeypatch):
    before = json.loads((folder / "compare.json").read_text())
    (folder / "runs" / "rmix-s1" / "result.json").unlink()
    trained = []
    train = command.train
    monkeypatch.setattr(command, "train", lambda run, quiet: trained.append(run.folder.name) or train(run, quiet=quiet))
    monkeypatch.setattr(command.benchmark, "measure", lambda *args, **kwargs: pytest.fail("timed again"))
    command.main(options)
    assert trained == ["rmix-s1"]
    after = json.loads((folder / "compare.json").read_text())
    assert after["methods"]["rmix"]["top1"] == before["methods"]["rmix"]["top1"]
    assert len(read_metrics(folder / "runs" / "rmix-s1")) == 2


def refused(capsys, args):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["compare", *args])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line(folder, options, capsys, tmp_path):
    assert "method must be one of rlmix, rmix" in refused(capsys, ["--methods", "rmixx", "--out", str(tmp_path / "x")])
    assert "baseline must be one of the methods" in refused(capsys, ["--methods", "vanilla", "--out", str(tmp_path / "x")])
    assert "seeds must differ, got (1, 1)" in refused(capsys, ["--seeds", "1", "1", "--out", str(tmp_path / "x")])
    assert "holds a run with other options (alpha)" in refused(capsys, [*options, "--alpha", "0.5"])
    assert not (tmp_path / "x").exists()
