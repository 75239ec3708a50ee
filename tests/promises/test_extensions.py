"""Somebody's own model, data, method, reward, credit, observation, rule, policy, schedule, optimizer, metric, plot and algorithm, without
a line of rlmix changed: from the command line as ``module:attribute``, and by registration. docs/extending.md has the table."""

import json
import re

import pytest
import torch
import toy_package

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.bandit import BanditAgent
from rlmix.agents.features import num_features
from rlmix.common.saved_config import read_config
from rlmix.envs.credit import share_credit
from rlmix.experiments.families import FAMILIES, rows
from rlmix.mixing.core import patch_weights
from rlmix.reporting.plots import PLOTS
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import newest_state
from rlmix.training.run_folder import read_metrics

TINY = ["--data", "toy_package:data", "--model", "toy_package:network", "--batch-size", "8", "--epochs", "2", "--device", "cpu"]
OWN = {
    "method": ["--method", "toy_package:Darken", "--mixing.strength", "0.25"],
    "reward": ["--method", "rmix", "--reward", "toy_package:share_reward"],
    "credit": ["--method", "rlmix", "--credit", "toy_package:twice"],
    "observation": ["--method", "rlmix", "--observation", "toy_package:WITH_LOSS"],
    "rule": ["--method", "rmix", "--rule", "toy_package:half"],
    "policy": ["--method", "policy", "--policy", "toy_package:by_brightness"],
    "schedule": ["--method", "vanilla", "--schedule", "toy_package:falling"],
    "optimizer": ["--method", "vanilla", "--optimizer", "toy_package:momentum_free"],
    "torch's optimizer": ["--method", "vanilla", "--optimizer", "torch.optim:RAdam", "--learning-rate", "0.01"],
    "metric": ["--method", "vanilla", "--metrics", "ece", "toy_package:mean_logit"],
    "logger": ["--method", "vanilla", "--loggers", "csv", "toy_package:Diary", "--log-every", "1"],
}


@pytest.mark.parametrize("kind", OWN)
def test_ones_own_is_trained_recorded_and_resumed_to_the_bit(kind, tmp_path):
    whole = tmp_path / "whole"
    rlmix_main(["train", *TINY, *OWN[kind], "--out", str(whole)])
    assert read_config(whole)["model"] == "toy_package:network"
    assert read_config(whole)["data"] == "toy_package:data"
    end, lines = newest_state(whole), read_metrics(whole)
    (whole / "checkpoints" / "epoch-0002.pt").unlink()
    rlmix_main(["train", "--resume", str(whole)])
    again = newest_state(whole)
    for name, expected in end["training"]["model"].items():
        assert torch.equal(again["training"]["model"][name], expected), name
    for first, second in zip(lines, read_metrics(whole), strict=True):
        assert first | {"epoch_seconds": 0} == second | {"epoch_seconds": 0}


def test_what_they_do_is_what_they_say(tmp_path):
    def epochs(kind):
        rlmix_main(["train", *TINY, *OWN[kind], "--out", str(tmp_path / kind)])
        return read_metrics(tmp_path / kind)

    assert read_config_of(tmp_path, epochs, "method")["mixing"] == {"strength": 0.25}
    halves = epochs("rule")
    assert all(0 < line["reward_mean"] <= 1 for line in halves)
    masks = torch.rand(2, 3, 4, 4) > 0.5
    assert patch_weights(*masks, 0.9, "toy_package:half").tolist() == torch.full((3, 4, 4), 0.5).tolist()
    OWN["both"] = [*OWN["reward"], "--rule", "toy_package:half"]
    assert [line["reward_mean"] for line in epochs("both")] == [0.5, 0.5]  # each image's share of its target
    del OWN["both"]
    assert share_credit(torch.tensor([1.0, 2.0]), torch.zeros(2), "toy_package:twice").tolist() == [2, 4]
    assert num_features("toy_package:WITH_LOSS") == num_features("paper") + 1
    shares = epochs("reward")
    assert all(0 < line["reward_mean"] < 1 for line in shares)
    chosen = epochs("policy")[-1]["top_k_counts"]
    assert chosen[0] > 0
    assert chosen[9] > 0
    assert sum(chosen) == chosen[0] + chosen[9] == 24
    assert epochs("schedule")[-1]["learning_rate"] == pytest.approx(0.05 / 6)
    rate = epochs("torch's optimizer")[0]
    assert rate["train_loss"] > 0
    optimizers = [
        newest_state(tmp_path / name)["training"]["optimizer"]["state"][0] for name in ("torch's optimizer", "schedule")
    ]
    assert [set(state) for state in optimizers] == [{"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}]
    epochs("metric")
    result = json.loads((tmp_path / "metric" / "result.json").read_text())
    assert isinstance(result["toy_package:mean_logit"], float)
    assert "fgsm_error" not in result


def read_config_of(tmp_path, epochs, kind):
    epochs(kind)
    return read_config(tmp_path / kind)


def test_a_comparison_runs_them_in_processes_of_their_own(tmp_path, register):
    register(PLOTS, "epochs", toy_package.number_of_epochs)
    methods = ["--methods", "vanilla", "toy_package:Darken", "--mixing.strength", "0.25", "--metrics", "toy_package:mean_logit"]
    rlmix_main(["compare", *TINY, *methods, "--seeds", "0", "--jobs", "2", "--threads", "1", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "compare.json").read_text())
    assert set(report["methods"]) == {"vanilla", "toy_package:Darken"}
    assert "toy_package:mean_logit" in report["methods"]["vanilla"]
    assert report["methods"]["toy_package:Darken"]["step_ratio"] > 0
    assert (tmp_path / "plots" / "epochs.png").exists()
    assert "mean_logit" in (tmp_path / "report.md").read_text()


def test_every_command_reads_such_a_run(tmp_path):
    for name, method in (("frozen", "vanilla"), ("darkened", "toy_package:Darken"), ("learned", "rlmix")):
        rlmix_main(["train", *TINY, "--method", method, "--out", str(tmp_path / name)])
        rlmix_main(["evaluate", str(tmp_path / name), "--attacks", "fgsm"])
        assert json.loads((tmp_path / name / "evaluate.json").read_text())["num_images"] == 12
        rlmix_main(["visualize", str(tmp_path / name), "--batches", "2", "--out", str(tmp_path / "pictures" / name)])
        assert (tmp_path / "pictures" / name / "figure2.png").exists()
        rlmix_main(["export", str(tmp_path / name)])
        assert (tmp_path / name / "classifier.pt").exists()
    rlmix_main(["visualize", *TINY, "--methods", "vanilla", "toy_package:Darken", "--out", str(tmp_path / "methods.png")])
    options = [
        "--policies",
        str(tmp_path / "learned"),
        "--batches",
        "2",
        "--batch-size",
        "8",
        "--out",
        str(tmp_path / "policies"),
    ]
    rlmix_main(["policies", "--freeze-from", str(tmp_path / "frozen"), *options])
    assert "learned" in (tmp_path / "policies" / "report.md").read_text()


def test_an_algorithm_is_one_class(tmp_path, register):
    class Slow(BanditAgent):
        """The bandit at a tenth of its rate."""

        algorithm = "slow"

    register(ALGORITHMS, "slow", Slow, layers=r"\d+")
    rlmix_main(["train", *TINY, "--algorithm", "slow", "--out", str(tmp_path / "slow")])
    rlmix_main(["train", *TINY, "--method", "policy", "--policy", str(tmp_path / "slow"), "--out", str(tmp_path / "frozen")])
    assert read_metrics(tmp_path / "frozen")[-1]["policy_entropy"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_lists_its_members_and_refuses_others(family, capsys):
    listed = rows(family)
    assert listed
    assert all(name and doc.endswith((".", "``.", ")")) for name, doc, _ in listed)
    rlmix_main(["list", family])
    assert listed[0][0] in capsys.readouterr().out
    with pytest.raises(ValueError, match=rf"must be one of .*{listed[0][0]}"):
        FAMILIES[family]["nothing of the kind"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model no_such:thing", "model no_such:thing must name a module that can be imported, got No module named 'no_such'"),
        ("--model toy_package:netwrok", "the attribute must be one of .*got 'netwrok' .did you mean 'network'"),
        ("--model toy_package:mean_logit", "model toy_package:mean_logit must "),
        ("--data toy_package:network", "data toy_package:network must give .train, test., got TypeError"),
        (
            "--reward toy_package:network --method rmix",
            "reward toy_package:network must be a function of clean, mixed, partner, share",
        ),
        ("--observation toy_package:data", "observation toy_package:data must be a mapping of names to Parts"),
        (
            "--schedule toy_package:mean_logit --method vanilla",
            "schedule toy_package:mean_logit must not raise, and raised TypeError",
        ),
        ("--method toy_package:Darken --mixing.strong 1", "which has strength: it would do nothing"),
        ("--method toy_package:Darken --mixing.strength much", "mixing.strength must be float, got 'much'"),
        ("--optimizer toy_package:data --method vanilla", "optimizer toy_package:data must be built from parameter groups, got "),
        ("--metrics toy_package:network --method vanilla", "metric toy_package:network must be a function of logits, labels"),
    ],
)
def test_what_does_not_fit_is_one_line(line, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", *TINY, "--method", "rlmix", *line.split(), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1]), said
    assert said[-1].startswith("rlmix: error: ")
