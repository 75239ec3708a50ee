"""The figures people read: of a run's result and best.pt, of compare's table and of the policies' table, from numbers that all differ."""

import json
import statistics

import numpy as np
import pytest
import torch
from scipy import stats
from toys import toy_config

from rlmix.experiments import policies
from rlmix.reporting import tables
from rlmix.scripts import train as command
from rlmix.training.checkpoints import BEST
from rlmix.training.trainer import Training

TEST = [30.0, 11.0, 12.0, 15.0, 78.0, 20.0, 63.0, 17.0, 90.0, 25.0, 38.0, 33.0, 47.0, 29.0]
VAL = [10.0, 40.0, 20.0, 70.0, 30.0, 60.0, 15.0, 70.0, 35.0, 55.0, 25.0, 45.0, 12.0, 50.0]
"""Of fourteen epochs. The best validation epochs are the fourth and the eighth, the best test epoch is the ninth."""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A run of fourteen epochs of one step that measures the numbers above: its result, its records and its folder."""
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3)
    options = [
        "--data",
        config.data.name,
        "--model",
        config.model.name,
        "--device",
        "cpu",
        "--learning-rate",
        "0.05",
        "--method",
        "vanilla",
    ]
    options += ["--epochs", "14", "--checkpoint-every", "0"]

    def run(*more, val):
        def evaluate(training):
            epoch = training.epoch - 1
            measured = {"val_loss": 1.0, "val_top1": VAL[epoch], "val_top5": 100.0} if val else {}
            return measured | {"test_loss": 1.0, "test_top1": TEST[epoch], "test_top5": 100.0}

        monkeypatch.setattr(Training, "evaluate", evaluate)
        command.main([*options, *more, "--out", str(tmp_path / "run")])
        return json.loads((tmp_path / "run" / "result.json").read_text())

    return run


def test_nothing_is_chosen_on_the_test_split(train, tmp_path):
    """top1_best is the test top-1 of the first epoch of the best validation top-1; best.pt is that epoch's."""
    result = train("--val-fraction", "0.34", "--batch-size", "4", val=True)
    assert (result["top1_best"], result["val_top1"], result["top1"]) == (TEST[3], VAL[-1], TEST[-1])
    assert torch.load(tmp_path / "run" / "checkpoints" / BEST, weights_only=True)["epoch"] == 4


def test_the_median_is_of_the_last_ten_epochs(train):
    result = train("--batch-size", "4", val=False)
    assert result["top1_median10"] == statistics.median([78.0, 20.0, 63.0, 17.0, 90.0, 25.0, 38.0, 33.0, 47.0, 29.0]) == 35.5
    assert len({statistics.median(TEST[start : start + 10]) for start in (0, 4)} | {statistics.median(TEST)}) == 3
    assert result["top1"] == 29.0
    assert "val_top1" not in result


def test_every_cell_of_compares_table_is_its_own_figure():
    """A report in which no two numbers are alike: mean, deviation, interval and paired difference of each figure of each method."""
    count = iter(range(1, 1000))

    def figure(scale):
        mean, std, low, high, gain, least, most = (scale * next(count) for _ in range(7))
        return {"mean": mean, "std": std, "low": low, "high": high, "difference": {"mean": gain, "low": least, "high": most}}

    names, scales = ("top1", "top1_median10", "ece", "fgsm_error", "reward_mean"), (1.01, 1.01, 1.01, 1.01, 0.0101)
    rows = {
        method: {"label": method, "model": "net", "baseline": "a", "step_ratio": 0.25 * next(count)}
        | {name: figure(scale) for name, scale in zip(names, scales, strict=True)}
        for method in ("a", "b")
    }
    del rows["a"]["top1"]["difference"], rows["a"]["reward_mean"]["difference"]
    header, lines = tables.cells({"methods": rows})
    for line, row in zip(lines, rows.values(), strict=True):
        top1, median, ece, fgsm, reward = (row[name] for name in names)
        expected = {
            "method": row["label"],
            "top-1 %": f"{top1['mean']:.2f} ± {top1['std']:.2f}",
            "95 % interval": f"[{top1['low']:.2f}, {top1['high']:.2f}]",
            "top-1 - a": "",
            "median of last 10": f"{median['mean']:.2f} ± {median['std']:.2f}",
            "ECE %": f"{ece['mean']:.2f} ± {ece['std']:.2f}",
            "FGSM error %": f"{fgsm['mean']:.2f} ± {fgsm['std']:.2f}",
            "reward": f"{reward['mean']:.4f} ± {reward['std']:.4f}",
            "reward - a": "",
            "step / vanilla": f"{row['step_ratio']:.2f}",
        }
        for column, part, digits in (("top-1 - a", top1, 2), ("reward - a", reward, 4)):
            if "difference" in part:
                gain = [f"{part['difference'][end]:+.{digits}f}" for end in ("mean", "low", "high")]
                expected[column] = f"{gain[0]} [{gain[1]}, {gain[2]}]"
        assert dict(zip(header, line, strict=True)) == expected
    _, rule, *rows_of_text = tables.markdown_table((header, lines))
    assert rule == "| --- |" + " ---: |" * (len(header) - 1)
    assert rows_of_text == ["| " + " | ".join(line) + " |" for line in lines]


def test_an_interval_over_seeds_is_that_of_the_seeds_means():
    """Three seeds of one policy on eight batches: Student's interval over the three means, and beside it that over the eight batches."""
    draw = np.random.default_rng(0)
    rewards = {name: draw.random(8) for name in ("uniform", "coin", "runs/agent-s0", "runs/agent-s1", "runs/agent-s2")}
    learned = [name for name in rewards if name.startswith("runs/")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in policies.table(rewards, learned).splitlines()]
    row = dict(zip(rows[0], next(row for row in rows if row[0] == "agent"), strict=True))
    seeds = np.array([rewards[f"runs/agent-s{seed}"] for seed in range(3)])
    assert (row["seeds"], row["reward"], row["gap closed"]) == ("3", f"{seeds.mean():.4f}", "")
    for yardstick in ("uniform", "coin"):
        gains = seeds - rewards[yardstick]
        for column, sample in ((f"- {yardstick}", gains.mean(0)), (f"- {yardstick}, over seeds", gains.mean(1))):
            low, high = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
            assert row[column] == f"{gains.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
    alone = dict(zip(rows[0], next(row for row in rows if row[0] == "coin"), strict=True))
    assert (alone["- coin"], alone["- coin, over seeds"], alone["- uniform, over seeds"]) == ("", "", "")
