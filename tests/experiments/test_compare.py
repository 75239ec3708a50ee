"""rlmix compare: statistics against SciPy's own, what is written, and what is not trained twice."""

import base64
import csv
import json
import math
import re
import signal
import subprocess
import sys
import time
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import NETWORK, picture_size, write_npz

from rlmix.common.saved_config import read_config
from rlmix.evaluation import reliability_bins
from rlmix.evaluation.calibration import pool_bins
from rlmix.evaluation.metrics import METRICS
from rlmix.experiments import executors as engines
from rlmix.experiments import study
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.options import parse
from rlmix.experiments.reliability import load_reliability
from rlmix.experiments.settings import settled
from rlmix.models import MODELS
from rlmix.models.preactresnet import PreActResNet
from rlmix.option_groups import MixingConfig
from rlmix.reporting import interactive, tables
from rlmix.reporting.report import render
from rlmix.reporting.statistics import paired_difference, summarize
from rlmix.scripts import compare as command
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints
from rlmix.training.run_folder import read_metrics

PLOTS = ("seeds", "learning_curves", "accuracy_by_time", "train_loss", "reward", "reward_top1", "reliability", "top_k")
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
    # half widths by hand: t(0.975, 1) = 12.7062, t(0.975, 2) = 4.30265; standard errors 1 and sqrt(7 / 3)
    assert summarize({0: 1.0, 1: 3.0}) == pytest.approx((2.0, math.sqrt(2), 2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert summarize({0: 1.0, 1: 2.0, 2: 6.0})[2:] == pytest.approx((3 - 6.57248, 3 + 6.57248), abs=1e-4)
    assert summarize({0: 1.0})[0] == 1.0
    assert all(math.isnan(value) for value in summarize({0: 1.0})[1:])
    assert paired_difference({0: 5.0, 1: 9.0}, {1: 1.0, 2: 7.0})[0] == 8.0  # seed 1 alone is shared
    assert math.isnan(paired_difference({0: 5.0}, {0: 4.0}).low)
    with pytest.raises(ValueError, match="must share seeds"):
        paired_difference({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_hold_the_mean_as_often_as_they_say(seeds):
    draws = np.random.default_rng(seeds).normal(70, 1.5, (1500, 2, seeds))
    held = paired = 0
    for first, second in draws:
        own, other = dict(enumerate(first)), dict(enumerate(second))
        mean, difference = summarize(own), paired_difference(own, other)
        held += mean.low <= 70 <= mean.high
        paired += difference.low <= 0 <= difference.high
    assert [held / 1500, paired / 1500] == pytest.approx([0.95, 0.95], abs=0.02)  # 3.5 standard errors of the simulation


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """A comparison of two epochs of four steps on toy data."""
    folder = tmp_path_factory.mktemp("compare")
    data = ["--data", write_npz(folder, 16), "--model", NETWORK, "--learning-rate", "0.05", "--device", "cpu"]
    small = ["--batch-size", "16", "--epochs", "2"]
    return [*data, *small, "--methods", "rlmix", "rmix", "vanilla", "--seeds", "0", "1", "--out", str(folder / "out")]


@pytest.fixture(scope="module")
def folder(options):
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # as without the extra; tests/reporting/test_report.py has the plots to hover over
        patch.setattr(interactive, "available", lambda: False)
        command.main(options)
    return parse(Compare, "compare", options).out


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
        half = stats.t.ppf(0.975, 1) * abs(top1[0] - top1[1]) / 2
        assert (row["top1"]["low"], row["top1"]["high"]) == pytest.approx((np.mean(top1) - half, np.mean(top1) + half))
    assert report["methods"]["vanilla"]["step_ratio"] == 1
    assert "reward_mean" not in report["methods"]["vanilla"]
    with open(folder / "compare.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 8
    for line in lines:
        assert float(line["top1"]) == results[line["method"], int(line["seed"])]["top1"]
    text = (folder / "report.md").read_text()
    assert all(f"| {method} |" in text for method in report["methods"])
    for name in PLOTS:
        assert f"plots/{name}.png" in text
        assert min(picture_size(folder / "plots" / f"{name}.png")) > 200


def test_reward_is_set_against_top1_over_the_runs(folder):
    report = json.loads((folder / "compare.json").read_text())
    runs = {
        (method, seed): [row["runs"][seed][figure] for figure in ("reward_mean", "top1")]
        for method, row in report["methods"].items()
        for seed in ("0", "1")
        if method != "vanilla"  # which earns nothing
    }
    found = report["reward_top1"]
    assert found["methods"] == {}  # two runs each
    for key, part in (("within_seeds", 1), ("within_methods", 0)):
        rest = [
            np.subtract(pair, np.mean([other for place, other in runs.items() if place[part] == run[part]], axis=0))
            for run, pair in runs.items()
        ]
        assert found[key]["runs"] == 6
        assert found[key]["linear"] == pytest.approx(np.corrcoef(rest, rowvar=False)[0, 1])
    text = (folder / "report.md").read_text()
    assert "| all methods, each seed's mean removed | 6 |" in text
    assert text.count("last mixed epoch's mean") == 2  # under --mix-until the last one has no reward
    assert tables.CORRELATIONS in (folder / "report.html").read_text()


def test_who_decides_is_the_only_difference_from_the_control(folder):
    """The first step of rlmix and rmix sees the same batch, partners and lam: only later do they part."""
    configs = [(folder / "runs" / f"{method}-s0" / "config.yaml").read_text().splitlines() for method in ("rlmix", "rmix")]
    assert [a for a, b in zip(*configs, strict=True) if a != b] == ["method: rlmix"]


def test_the_html_report_needs_nothing_beside_it(folder):
    class Reader(HTMLParser):
        found = ()

        def handle_starttag(self, tag, attributes):
            self.found = (*self.found, (tag, dict(attributes)))

    reader, text = Reader(), (folder / "report.html").read_text()
    reader.feed(text)
    pictures = [attributes for tag, attributes in reader.found if tag == "img"]
    images = [attributes for attributes in pictures if attributes.get("class") == "still"]
    assert len(pictures) == len(images) + 4 * (2 + 4)  # four images, their partners, and four methods
    assert interactive.MISSING.partition("(")[0] in text
    assert len(images) == len(PLOTS)
    for image, name in zip(images, PLOTS, strict=True):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (folder / "plots" / f"{name}.png").read_bytes()
        assert image["alt"]
    for _, attributes in reader.found:
        for link in ("src", "href"):
            assert attributes.get(link, "data:").startswith(("data:", "runs/"))
    links = {attributes["href"] for tag, attributes in reader.found if tag == "a"}
    assert links == {f"runs/{run.name}/" for run in (folder / "runs").iterdir()}
    assert not re.search(r"https?://|url\(|@import", text)
    assert not any(tag == "script" for tag, _ in reader.found)


def test_reliability_has_the_gap_of_the_calibration_error(folder):
    for run in (folder / "runs").iterdir():
        bins = load_reliability(run)
        assert bins.num_images.sum() == 40
        gap = 100 * np.abs(bins.correct.numpy() - bins.confidence.numpy()).sum() / 40
        assert gap == pytest.approx(json.loads((run / "result.json").read_text())["ece"], abs=1e-4)


def test_bins_pooled_over_runs_are_those_of_all_their_images():
    probabilities = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [1.0, 0.0]])
    bins = reliability_bins(probabilities, torch.tensor([0, 1, 1, 0]), num_bins=2)
    assert bins.num_images.tolist() == [1, 3]  # a half belongs to the lower bin
    assert bins.confidence.tolist() == pytest.approx([0.5, 0.8 + 0.9 + 1.0])
    assert bins.correct.tolist() == [1, 2]
    parts = [reliability_bins(probabilities[part], torch.tensor([0, 1, 1, 0])[part], num_bins=2) for part in ([0, 3], [1, 2])]
    assert all(torch.equal(*sums) for sums in zip(pool_bins(parts), bins, strict=True))


def test_a_finished_comparison_is_not_trained_again_and_a_half_finished_one_goes_on(folder, options, monkeypatch):
    before = json.loads((folder / "compare.json").read_text())
    (folder / "runs" / "rmix-s1" / "result.json").unlink()
    trained = []
    train = engines.train
    monkeypatch.setattr(engines, "train", lambda run, quiet: trained.append(run.folder.name) or train(run, quiet=quiet))
    monkeypatch.setattr(study.benchmark, "measure", lambda *args, **kwargs: pytest.fail("timed again"))
    command.main(options)
    assert trained == ["rmix-s1"]
    assert json.loads((folder / "compare.json").read_text()) == before
    assert len(read_metrics(folder / "runs" / "rmix-s1")) == 2


def without_times(value):
    if isinstance(value, dict):
        return {name: without_times(entry) for name, entry in value.items() if "seconds" not in name and "step_" not in name}
    return value


def small(options, tmp_path, *more):
    """Two runs of a comparison like ``options``; its compare.json, times aside."""
    args = [
        *options,
        "--methods",
        "vanilla",
        "rmix",
        "--seeds",
        "1",
        "--threads",
        "1",
        "--no-timing",
        *more,
        "--out",
        str(tmp_path),
    ]
    command.main(args)
    return without_times(json.loads((tmp_path / "compare.json").read_text()))


@pytest.fixture(scope="module")
def in_process(options, tmp_path_factory):
    return small(options, tmp_path_factory.mktemp("here"))


def test_runs_at_once_give_the_same_to_the_bit(options, in_process, tmp_path, capsys):
    assert small(options, tmp_path, "--jobs", "2") == in_process
    assert {"1/2", "2/2"} <= set(capsys.readouterr().out.split())


@pytest.mark.slow
def test_ray_gives_the_same_to_the_bit(options, in_process, tmp_path):
    pytest.importorskip("ray")
    assert small(options, tmp_path, "--engine", "ray") == in_process


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FloatingPointError("the loss is nan in epoch 1"), "the loss is nan in epoch 1"),
        (RuntimeError("out of\nmemory"), "RuntimeError: out of memory"),
    ],
)
def test_a_failed_run_is_named_and_does_not_stop_the_others(error, said, options, tmp_path, capsys, monkeypatch):
    train = engines.train

    def diverge(run, quiet):
        if run.run.method == "vanilla":
            raise error
        return train(run, quiet=quiet)

    monkeypatch.setattr(engines, "train", diverge)
    args = [*options, "--methods", "vanilla", "rmix", "--seeds", "1", "--no-timing", "--out", str(tmp_path)]
    assert f"1 of 2 runs failed, the others are kept; vanilla-s1: {said}" in refused(capsys, args)
    assert (tmp_path / "runs" / "rmix-s1" / "result.json").exists()


@pytest.mark.slow
def test_ctrl_c_stops_every_run_and_what_is_done_is_kept(options, tmp_path):
    """A comparison of two processes, interrupted after an epoch or two of each."""
    command_line = [
        sys.executable,
        "-m",
        "rlmix.scripts.main",
        "compare",
        *options,
        "--methods",
        "vanilla",
        "rmix",
        "--seeds",
        "1",
    ]
    command_line += ["--no-timing", "--jobs", "2", "--threads", "1", "--epochs", "2000", "--out", str(tmp_path)]
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    logs = [tmp_path / "runs" / name / "metrics.jsonl" for name in ("vanilla-s1", "rmix-s1")]
    while not all(log.exists() and log.read_text().count("\n") > 1 for log in logs):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    sizes = [log.stat().st_size for log in logs]
    time.sleep(2)
    assert [log.stat().st_size for log in logs] == sizes  # nobody goes on training
    for log in logs:
        assert len(list_checkpoints(log.parent / "checkpoints")) == 2
        assert not list(log.parent.rglob("*.tmp"))


def test_models_share_a_table_and_each_has_its_own_baseline(options, tmp_path, register, capsys):
    register(MODELS, "narrow", partial(PreActResNet, (1, 1, 1, 1), width=8))
    args = [*options, "--methods", "vanilla", "cutmix", "--models", "narrow", "preactresnet18_w16", "--baseline", "vanilla"]
    command.main([*args, "--epochs", "1", "--seeds", "1", "--no-timing", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "compare.json").read_text())
    names = ["narrow-vanilla", "narrow-cutmix", "preactresnet18_w16-vanilla", "preactresnet18_w16-cutmix"]
    assert list(report["methods"]) == names
    for base, name in (names[:2], names[2:]):
        row = report["methods"][name]
        assert row["top1"]["difference"]["mean"] == row["top1"]["mean"] - report["methods"][base]["top1"]["mean"]
    text = (tmp_path / "report.md").read_text()
    assert "| preactresnet18_w16 | cutmix |" in text
    *_, first, second, written = capsys.readouterr().out.splitlines()
    assert [first, second] == [
        f"{model}: One seed tells nothing about which method is better." for model in ("narrow", "preactresnet18_w16")
    ]
    assert text.index(f"**{tables.markdown(first)}**") < text.index(f"**{tables.markdown(second)}**") < text.index("|")
    assert written == f"written to {tmp_path / 'report.html'}, report.md, compare.json, compare.csv and plots"


def refused(capsys, args):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["compare", *args])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_none(value, options, tmp_path, register):
    register(METRICS, "odd", lambda logits: value)
    args = [*options, "--methods", "vanilla", "input_mixup", "--epochs", "1", "--seeds", "0", "1", "--metrics", "odd"]
    command.main([*args, "--no-timing", "--out", str(tmp_path)])
    runs = [json.loads(path.read_text(), parse_constant=pytest.fail) for path in tmp_path.glob("runs/*/result.json")]
    assert [run["odd"] for run in runs] == [None] * 4
    run = tmp_path / "runs" / "vanilla-s0" / "result.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"odd": value}))  # an earlier version's
    command.main([*args, "--no-timing", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "compare.json").read_text(), parse_constant=pytest.fail)
    assert report["methods"]["vanilla"]["runs"]["0"]["odd"] is None
    assert "odd" not in tables.cells(report)[0]
    assert tables.mean_std({"mean": None, "std": None}) == ""


def test_a_run_of_an_earlier_version_is_finished_too(folder, options):
    """Its config.yaml lacks the options that came later, which it was trained without."""
    path = folder / "runs" / "rmix-s1" / "config.yaml"
    config = path.read_text()
    path.write_text("".join(line for line in config.splitlines(True) if not line.startswith(("relabel", "test_images"))))
    assert path.read_text() != config
    wanted = parse(Compare, "compare", options)
    run = wanted.study.run(next(arm for arm in wanted.study.arms if arm.name == "rmix"), 1)
    try:
        assert study.plan_run(run) is None
    finally:
        path.write_text(config)


def test_other_data_than_those_of_the_finished_runs_are_noticed(tmp_path, capsys):
    small = ["--model", NETWORK, "--batch-size", "16", "--epochs", "1", "--device", "cpu", "--seeds", "0", "--no-timing"]
    args = ["--data", write_npz(tmp_path, 8), *small, "--out", str(tmp_path / "out"), "--methods", "vanilla"]
    command.main(args)
    command.main([*args, "input_mixup"])
    write_npz(tmp_path, 8, num_train=65)
    command.main(args)  # nothing is missing
    capsys.readouterr()
    run = tmp_path / "out" / "runs" / "vanilla-s0"
    assert f"the data must be those that the run in {run} was trained on; the" in refused(capsys, [*args, "rmix"])
    assert not (tmp_path / "out" / "runs" / "rmix-s0").exists()


def test_bad_input_is_one_line(folder, options, capsys, tmp_path):
    assert "--methods must be one of rlmix, rmix" in refused(capsys, ["--methods", "rmixx", "--out", str(tmp_path / "x")])
    args = ["--methods", "vanilla", "--baseline", "rmix", "--out", str(tmp_path / "x")]
    assert "baseline must be one of the methods vanilla, got 'rmix'" in refused(capsys, args)
    assert "seeds must differ, got (1, 1)" in refused(capsys, ["--seeds", "1", "1", "--out", str(tmp_path / "x")])
    assert "holds a run with other options: alpha None is not 0.5" in refused(capsys, [*options, "--alpha", "0.5"])
    assert "models must differ, got ('a', 'a')" in refused(capsys, ["--models", "a", "a", "--out", str(tmp_path / "x")])
    assert "--models must be one of" in refused(capsys, ["--models", "resnet", "--out", str(tmp_path / "x")])
    assert "jobs must be at least 1, got 0" in refused(capsys, ["--jobs", "0", "--out", str(tmp_path / "x")])
    assert "holds a comparison with other settings: threads" in refused(capsys, [*options, "--threads", "99"])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("methods", "base"),
    [
        (("rlmix", "rmix", "vanilla"), "rmix"),
        (("rlmix", "cutmix", "vanilla"), "vanilla"),
        (("rlmix", "cutmix"), "cutmix"),
        (("cutmix", "rlmix", "cutout"), "cutmix"),
        (("rlmix",), "rlmix"),
    ],
)
def test_differences_are_from_a_method_that_is_compared(methods, base):
    options = Compare(methods=methods)
    options.check()
    assert {arm.baseline for arm in options.study.arms} == {base}


@pytest.mark.parametrize(("typed", "masks"), [((), (2, 4)), ((4,), (4,)), ((8,), (8,))])
def test_the_same_masks_for_everyone_but_the_papers_eight(typed, masks):
    options = Compare(methods=("rlmix", "rmix", "coin"), mixing=MixingConfig(num_patches=typed or None))
    arms = {arm.name: settled(arm.options).mixing.num_patches for arm in options.study.arms}
    assert arms == {"rlmix": masks, "rmix": masks, "coin": masks, "rmix-p8": (8,)}


def test_a_comparison_and_a_run_do_not_share_a_folder(folder, options, capsys):
    run = folder / "runs" / "rmix-s1"
    before = sorted(path.name for path in run.iterdir())
    assert f"out must be a comparison's folder or a new one, and {run} holds a run" in refused(
        capsys, [*options, "--out", str(run)]
    )
    assert sorted(path.name for path in run.iterdir()) == before
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["train", "--method", "vanilla", "--out", str(folder), "--overwrite"])
    assert stop.value.code == 2
    assert f"out must be a run's folder or a new one, and {folder} holds a comparison" in capsys.readouterr().err
    assert not (folder / "config.yaml").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("x_train <b>&amp;", "x_train &lt;b>&amp;amp;"),
        ("npz:[a](b)*c*", r"npz:[a\](b)\*c\*"),
        ("two\nlines `code` ~~no~~ $x$", r"two lines \`code\` \~\~no\~\~ \$x\$"),
        ("_emphasised_ +1.05 [-1.17, +3.27]", r"\_emphasised\_ +1.05 [-1.17, +3.27]"),
    ],
)
def test_markdown_shows_names_letter_by_letter(text, shown):
    assert tables.markdown(text) == shown
    (_, _, row) = tables.markdown_table((["name"], [[text]]))
    assert row == f"| {shown} |"


def test_a_report_of_odd_names_keeps_its_table(folder):
    report = json.loads((folder / "compare.json").read_text())
    report["methods"]["rmix"]["label"] = "r|mix*"
    report["config"]["data"] = "npz:a|b*.npz"
    text = render("report.md", report, "Of a|b")
    header, _, *rows = text[text.index("| method") :].split("\n\n")[0].splitlines()
    assert any(row.startswith(r"| r\|mix\* |") for row in rows)
    assert len({row.replace(r"\|", "").count("|") for row in (header, *rows)}) == 1
    assert r"on a\|b\*.npz" in text


def test_a_hyperparameter_is_one_methods_and_part_of_its_runs(options, tmp_path, capsys):
    """The others are trained without; the finished run is found again, and is not that of another value."""
    args = [*options, "--methods", "manifold_mixup", "vanilla", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    layers = ["--mixing.layers", "input", "stage1"]
    command.main([*args, *layers, "--no-timing"])
    results = [tmp_path / "runs" / name / "result.json" for name in ("manifold_mixup-s1", "vanilla-s1")]
    written = [path.stat().st_mtime_ns for path in results]
    assert read_config(tmp_path / "runs" / "manifold_mixup-s1")["mixing"] == {"layers": ["input", "stage1"]}
    assert read_config(tmp_path / "runs" / "vanilla-s1")["mixing"] == {}
    command.main([*args, *layers, "--no-timing"])
    assert [path.stat().st_mtime_ns for path in results] == written
    for other in ([], ["--mixing.layers", "input"]):
        assert "mixing" in refused(capsys, [*args, *other, "--no-timing"])
